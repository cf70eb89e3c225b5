"""--verbose, --quiet and --debug: every verb has them, and each does what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from edgetrack.cli.console import stderr
from edgetrack.cli.main import app
from edgetrack.presentation.progress import Verbosity, set_verbosity, shown_progress

RUN = CliRunner()


@pytest.fixture(autouse=True)
def as_usual():
    yield
    set_verbosity(Verbosity.NORMAL)


def _verbs(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, (*path, name))
        else:
            yield (*path, name), command


VERBS = dict(_verbs(get_command(app)))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_the_three_options(verb: tuple[str, ...]) -> None:
    names = {name for option in VERBS[verb].params for name in option.opts}
    assert {"-v", "--verbose", "-q", "--quiet", "--debug"} <= names


def test_quiet_leaves_out_remarks_but_no_error(tmp_path) -> None:
    empty = ["list", str(tmp_path)]
    assert "no bundles in" in RUN.invoke(app, empty).stderr
    assert RUN.invoke(app, [*empty, "-q"]).stderr == ""
    wrong = RUN.invoke(app, ["inspect", str(tmp_path / "nowhere"), "--quiet"])
    assert wrong.exit_code == 2
    assert "nowhere" in wrong.stderr


def test_both_at_once_are_refused() -> None:
    both = RUN.invoke(app, ["list", "-q", "-v"])
    assert (both.exit_code, both.stderr) == (
        2,
        "edgetrack: --verbose and --quiet contradict each other; give one of them\n",
    )


@pytest.mark.parametrize("asked", [["--debug"], []], ids=["option", "environment"])
def test_debug_shows_where_an_error_comes_from(asked: list[str], tmp_path, monkeypatch) -> None:
    command = ["inspect", str(tmp_path / "nowhere")]
    assert "Traceback" not in RUN.invoke(app, command).stderr
    if not asked:
        monkeypatch.setenv("EDGETRACK_DEBUG", "1")
    shown = RUN.invoke(app, [*command, *asked])
    assert shown.exit_code == 2
    assert "Traceback (most recent call last)" in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("edgetrack: ")


def _said(verbosity: Verbosity, steps: Callable, capsys) -> list[str]:
    set_verbosity(verbosity)
    with shown_progress(stderr()) as progress:
        steps(progress)
    return capsys.readouterr().err.splitlines()


def test_verbose_makes_a_line_of_every_step_but_not_of_every_frame(capsys) -> None:
    def steps(progress) -> None:
        progress("convert", 0, 0)
        for frame in range(1, 5001):
            progress("track", frame, 5000)

    lines = _said(Verbosity.VERBOSE, steps, capsys)
    assert lines[0].endswith(" s: convert")
    assert lines[1].endswith(" s: 1/5000 track")
    assert lines[-1].endswith(" s: 5000/5000 track")
    assert len(lines) < 100  # one a second at most, however slow the machine
    assert _said(Verbosity.QUIET, steps, capsys) == []
