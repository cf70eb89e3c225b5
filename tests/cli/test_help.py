"""The help of every verb in a narrow, a usual and a wide terminal: whole, in words, and within the width."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from edgetrack.cli.main import app

ROOT = Path(__file__).resolve().parents[2]


def _commands(group: Any, path: tuple[str, ...] = ("edgetrack",)) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), group
    for name, command in getattr(group, "commands", {}).items():
        yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(get_command(app)))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_cut_or_wider_than_the_terminal(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    command = COMMANDS[name]
    context = command.context_class(command, info_name=name, **{"max_content_width": 110, **command.context_settings})
    text = command.get_help(context)
    assert [line for line in text.splitlines() if len(line) > width] == []
    words = text.split()
    for parameter in command.get_params(context):
        if parameter.hidden:
            continue
        for option in (*parameter.opts, *parameter.secondary_opts):
            if parameter.param_type_name == "option":
                assert any(word.strip(",;/") == option for word in words), option
            else:
                assert parameter.metavar in words
    # A sentence that ends in dots was cut; Python's types are no words of the field's.
    assert not re.search(r"\w\.\.\.$", text.partition("\n\n")[2], re.MULTILINE)
    assert not re.search(r"<(str|int|float|path|bool|list)|\[\[|TyperOption", text)
    flat = " ".join(words)
    for sub in getattr(command, "commands", {}).values():
        assert " ".join((sub.help or "").partition("\n\n")[0].split()) in flat
    if not hasattr(command, "commands"):
        page = re.search(r"More: (docs/[\w-]+\.md)\Z", flat)
        assert page is not None, flat[-80:]
        assert (ROOT / page[1]).is_file()


@pytest.mark.parametrize("words", [(), ("bench",)], ids=["edgetrack", "bench"])
def test_a_process_in_a_narrow_terminal_prints_that_help(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", *words, "--help"],
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 50 < max(map(len, done.stdout.splitlines())) <= 60
    assert ("--iterations N" if words else "Measure bundles:") in done.stdout
