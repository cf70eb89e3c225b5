from __future__ import annotations

import msgspec

from edgetrack.benchmark.table import bench_table, notes
from edgetrack.errors import WorkerError
from tests.benchmark.conftest import MACHINE, recorded, roofline


def test_the_markdown_table_has_all_columns_in_every_row(entry):
    found = recorded(entry("ours", 9.0, camera=False), entry("torch", 19.0), roofline(None))
    lines = [line for line in bench_table(found, 95).markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "track p95" in lines[0]
    assert "2.00 (2.00-2.00)" in lines[2]
    assert lines[3].split("|")[8].strip() == "-"


def test_notes_say_each_warning_once_and_what_failed(entry):
    failed = entry("broken", 9.0)
    failed.failure = WorkerError("killed by SIGKILL")
    machine = msgspec.structs.replace(MACHINE, governor="powersave")
    lines = list(notes(recorded(entry("ours", 9.0), entry("torch", 9.0), failed, machine=machine)))
    governor = [line for line in lines if "powersave" in line]
    assert len(governor) == 1
    assert "ours" not in governor[0]
    assert any(line.startswith("FAILED: broken: WorkerError") for line in lines)
    assert any("37 fps" in line and "a processor" in line for line in lines)
    assert not any("NOT COMPLETE" in line for line in lines)
    assert any("NOT COMPLETE" in line for line in notes(recorded(complete=False)))


def test_the_terminals_table_holds_the_same_cells(entry):
    made = bench_table(recorded(entry("ours", 9.0), entry("torch", 19.0)), 99)
    shown = made.plain().splitlines()[1:3]
    assert [line.split() for line in shown] == [" ".join(row).split() for row in made.cells()]
    assert made.cells()[0][:3] == ["ours", "9.00", "10.00"]


def test_names_from_outside_change_neither_the_terminal_nor_markdown(entry):
    failed = entry("broken", 9.0)
    failed.failure = WorkerError("a | pipe [red]and\x1b[31m colour")
    lines = bench_table(recorded(failed), 99).markdown().splitlines()
    (line,) = [line for line in lines if "FAILED" in line]
    assert "a \\| pipe \\[red\\]" in line
    assert "\x1b" not in line
