from __future__ import annotations

import io
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from edgetrack.benchmark.table import bench_table
from edgetrack.capabilities import targets
from edgetrack.cli import doctor, inspect, verify
from edgetrack.cli import list as list_verb
from edgetrack.evaluation.comparison_report import compare_table
from edgetrack.evaluation.results import eval_table
from edgetrack.gate import outputs
from edgetrack.gate.report import RuleFinding
from edgetrack.presentation.sanitize import log_line
from edgetrack.presentation.table import Column, Table, counted, number, span
from edgetrack.runtime.verify import Verification, compare
from edgetrack.system.opencv import OpenCvBuild
from tests.builders import scripted_manifest
from tests.gate.conftest import report
from tests.report.conftest import MACHINE, benchmark, comparison, contestant, evaluated, pair, side

COLUMNS = (Column("bundle", align="left"), Column("frames"), Column("track ms", digits=2))
ROWS = (("car[a]|b", 1200, 7.25), ("[bold]plain[/bold]", 3, None), ("up\x1b[2J:smile:", 7, 1.0))
TABLE = Table(COLUMNS, ROWS, notes=("FAILED: car[a]|b: no *such* file",))


def shown(table, width=100, **options):
    out = io.StringIO()
    table.show(Console(file=out, width=width, **options))
    return out.getvalue()


def test_a_terminal_shows_names_that_look_like_markup_as_they_are():
    for text in (shown(TABLE), shown(TABLE, force_terminal=True, color_system="truecolor")):
        lines = text.splitlines()
        assert "car[a]|b" in lines[1]
        assert "[bold]plain[/bold]" in lines[2]
        assert ":smile:" in lines[3]
        assert lines[4] == "FAILED: car[a]|b: no *such* file"


def test_no_escape_sequence_reaches_the_terminal():
    assert "\x1b[2J" not in shown(TABLE, force_terminal=True)
    assert "up\ufffd[2J:smile:" in shown(TABLE)


def test_numbers_are_aligned_and_have_their_columns_digits():
    lines = shown(TABLE).splitlines()
    assert lines[0].split() == ["bundle", "frames", "track", "ms"]
    assert lines[1].split()[-2:] == ["1200", "7.25"]
    assert lines[2].split()[-2:] == ["3", "-"]
    assert len({len(line.rstrip()) for line in lines[1:4]}) == 1


def test_markdown_has_as_many_cells_in_every_row_whatever_the_names():
    head, rule, first, second, third, blank, note = TABLE.markdown().splitlines()
    assert rule == "| --- | ---: | ---: |"
    assert head == "| bundle | frames | track ms |"
    assert first == "| car\\[a\\]\\|b | 1200 | 7.25 |"
    assert second == "| \\[bold\\]plain\\[/bold\\] | 3 | - |"
    assert third == "| up\ufffd\\[2J:smile: | 7 | 1.00 |"
    assert (blank, note) == ("", "- FAILED: car\\[a\\]\\|b: no \\*such\\* file")


def test_plain_text_has_columns():
    lines = TABLE.plain().splitlines()
    assert lines[0] == "bundle              frames  track ms"
    assert lines[1] == "car[a]|b              1200      7.25"
    assert lines[-1] == "FAILED: car[a]|b: no *such* file"


def test_a_table_without_notes_ends_with_its_rows():
    assert Table((Column("a"),), ((1,),)).markdown() == "| a |\n| ---: |\n| 1 |"


def test_numbers_and_spans():
    assert (number(None, 2), number(1.5, 0), number(3), number(2.25, 1)) == ("-", "2", "3", "2.2")
    assert (span(None), span((0.451, 0.519)), span((0.4512, 0.519), 3)) == ("-", "0.45-0.52", "0.451-0.519")


STRANGE = "car[a]|b"
MANIFEST = scripted_manifest()
VERBS = {
    "bench": lambda: bench_table(benchmark(contestant("smat-openvino-fp32", 20.0, bundle=STRANGE))),
    "eval": lambda: eval_table(msgspec.structs.replace(evaluated("smat-openvino-fp32", 0.7, None), bundle=STRANGE)),
    "compare": lambda: compare_table(
        comparison(side("smat-a-fp32", 0.7), side("smat-b-fp32", 0.7), None, [pair(STRANGE, [1.0, 0.9])])
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_table_shows_a_strange_name_on_a_terminal_and_in_markdown(verb):
    table = VERBS[verb]()
    assert STRANGE in shown(table, width=200)
    told = table.markdown()
    assert "car\\[a\\]\\|b" in told
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


NO_OPENCV = OpenCvBuild(
    packages={"opencv-python": "5.0.0.93"}, problem="OpenCV cannot be imported: libGL.so.1 is missing"
)
PARTS = re.compile(r".+?\d-(?=[\d.])|.+")


def every_table():
    """A table of each verb that prints one, with figures that are easy to cut."""
    slow = [contestant(f"smat-openvino_with_a_long_name{i}-fp32", 1520.75 * i, pytorch=1.234) for i in (1, 2)]
    yield "bench", bench_table(benchmark(*slow))
    yield "eval", eval_table(evaluated("smat-openvino-fp32", 0.7, (0.6, 0.8)))
    sequences = [pair("a sequence/of a long name", [1.0, 0.9])]
    yield "compare", compare_table(comparison(side("smat-a-fp32", 0.7), side("smat-b-fp32", 0.7), None, sequences))
    findings = [
        RuleFinding(
            rule="track_p95_ratio", limit=1.05, unit="x", verdict="undecided", value=1.0421, low=1.0311, high=1.0561,
            detail="effective sample size 1234 of 12345 frames; Mann-Whitney p above 0.031",
        )
    ]  # fmt: skip
    yield "check", outputs.table(report(*findings))
    one = compare("step/score:frame 3", np.array([1.0, 25.4]), np.array([1.0, 25.4001]), atol=1e-4, rtol=1e-3)
    (found,) = verify.tables(Verification(bundle="a", weights="official", files=4, ok=True, checks=(one,)))
    yield "verify", found
    yield from (("inspect", table) for table in inspect.tables(MANIFEST, None))
    yield from (("doctor", table) for table in doctor.tables(MACHINE, NO_OPENCV, targets(), {}, ["x86"]))
    for name, rows in (("targets", list_verb._targets()), ("trackers", list_verb._trackers())):
        yield f"list --{name}", list_verb.table(rows)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_is_cut_in_any_verbs_table(width):
    for verb, table in every_table():
        drawn = shown(table, width=width).splitlines()
        body = drawn[: len(drawn) - len(table.notes)]
        gone = next((line for line in body if line.startswith("left out in this width: ")), "")
        lines = [line for line in body if line is not gone]
        assert max(map(len, lines)) <= width, (verb, lines)
        words = {part for word in " ".join(lines).split() for part in (word, *PARTS.findall(word))}
        for index, column in enumerate(table.columns):
            if column.title and column.title in gone:
                continue
            for row in table.cells():
                if column.align == "right":
                    figures = {figure for piece in row[index].split() for figure in PARTS.findall(piece)}
                    assert figures <= words, (verb, column.title, row[index], lines)


@given(
    st.lists(st.tuples(st.text(max_size=60), st.floats(allow_nan=False), st.text("ab -/", max_size=90)), max_size=4),
    st.integers(24, 200),
)
def test_whatever_the_cells_are_no_line_is_too_long_and_no_letter_is_lost(rows, width):
    columns = (Column("name", align="left"), Column("figure"), Column("more", align="left"))
    lines = Table(columns, rows).plain(width).splitlines()
    assert all(cell_len(line) <= width + line.startswith("\\") for line in lines)
    if any(line.startswith("name") for line in lines):
        told = "".join("".join(lines[1:]).split())
        for cells in Table(columns, rows).cells():
            assert all(not set(cell) - set(told) - {" "} for cell in map(log_line, cells) if cell.isascii())


def test_a_terminal_that_is_too_narrow_for_what_must_stay_gets_a_block_for_each_row():
    columns = (Column("name", align="left"), *(Column(f"figure {i}", 6) for i in range(4)))
    assert Table(columns, [("car", 1.0, 2.0, None, 123456.0)]).plain(30).splitlines() == [
        "car",
        "  figure 0 1.000000",
        "  figure 1 2.000000",
        "  figure 2 -",
        "  figure 3 123456.000000",
    ]


def test_a_name_is_no_command_of_a_workflow():
    named = Table((Column("name", align="left"),), [("::error::x",), ("##[error]y",)])
    assert shown(named).splitlines()[1:] == ["\\::error::x", "#\\#[error]y"]


def test_one_is_not_counted_as_many() -> None:
    assert [counted(n, "usable core") for n in (0, 1, 2)] == ["0 usable cores", "1 usable core", "2 usable cores"]
    assert counted(2, "loss") == "2 losses"
