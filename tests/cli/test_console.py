from __future__ import annotations

import json

from edgetrack.cli.console import print_json, print_text, stderr, stdout


def test_names_that_look_like_markup_or_commands_are_shown_as_they_are(capsys):
    for console in (stdout(), stderr()):
        for text in ("failed: car[a]|b", "[bold]plain[/bold]:smile:", "[/red]", "\x1b]0;x\n::error::y", "::error::z"):
            console.print(text)
    for shown in capsys.readouterr():
        assert shown.splitlines() == [
            "failed: car[a]|b",
            "[bold]plain[/bold]:smile:",
            "[/red]",
            "\ufffd]0;x\ufffd::error::y",
            "\\::error::z",
        ]


def test_a_pipe_has_room_for_a_long_line(capsys):
    print_text("x" * 5000 + "\ny")
    assert capsys.readouterr().out == "x" * 5000 + "\ny\n"


def test_json_means_the_same_and_steers_nothing(capsys):
    value = {"a\x1b\x9b\u202e": "##[error]x\n::error::y", "b": "## a"}
    print_json(value)
    told = capsys.readouterr().out
    assert json.loads(told) == value
    assert "##[" not in told
    assert "\n::" not in told
    assert all(character == "\n" or character.isprintable() for character in told)
