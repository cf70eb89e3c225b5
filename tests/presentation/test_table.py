from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from edgetrack.benchmark.table import bench_table
from edgetrack.evaluation.comparison_report import compare_table
from edgetrack.evaluation.results import eval_table
from edgetrack.presentation.table import Column, Table, counted, number, span
from tests.report.conftest import benchmark, comparison, contestant, evaluated, pair, side

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


def test_one_is_not_counted_as_many() -> None:
    assert [counted(n, "usable core") for n in (0, 1, 2)] == ["0 usable cores", "1 usable core", "2 usable cores"]
    assert counted(2, "loss") == "2 losses"
