from __future__ import annotations

from rich.table import Table

from edgetrack.cli.console import PIPE_WIDTH, stderr, stdout


def test_names_that_look_like_markup_are_shown_as_they_are(capsys):
    table = Table("bundle", title="of car[a]|b")
    table.add_row("car[a]|b")
    table.add_row("[bold]plain[/bold]:smile:")
    for console in (stdout(), stderr()):
        console.print(table)
        console.print("failed: car[a]|b")
    for shown in capsys.readouterr():
        assert shown.count("car[a]|b") == 3
        assert "[bold]plain[/bold]:smile:" in shown


def test_a_pipe_has_room_for_a_wide_table():
    assert stdout().width == PIPE_WIDTH
