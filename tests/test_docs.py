"""The documentation tells the truth: the site builds without a warning, and every command in it is one that exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from edgetrack.capabilities import TARGETS
from edgetrack.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_COMMAND = re.compile(r"^(?:\$ |    (?:\$ )?)?(edgetrack [a-z].*)$")


def _commands(page: Path) -> list[str]:
    """The edgetrack commands of a page's code, lines that end in a backslash joined."""
    found, fenced = [], False
    for line in page.read_text("utf-8").replace("\\\n", " ").split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        command = _COMMAND.match(line)
        if command and (fenced or line.startswith("    ")):
            found.append(command[1])
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if _commands(page)], ids=lambda page: page.stem)
def test_every_command_of_the_documentation_parses(page: Path) -> None:
    known = {name for row in TARGETS for name in (row.name, *row.aliases)}
    for text in _commands(page):
        words = shlex.split(re.split(r" [|>&]| 2>", text)[0], comments=True)[1:]
        command = get_command(app)
        path = ["edgetrack"]
        while hasattr(command, "commands"):
            assert words, text
            assert words[0] in command.commands, text
            path.append(words[0])
            command = command.commands[words.pop(0)]
        target = words[words.index("--target") + 1] if "--target" in words else ""
        if "..." not in words and set(target.split(",")) <= {"", "all", *known}:  # others bring options of their own
            command.make_context(" ".join(path), words)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="MKDOCS ABSENT: pip install 'edgetrack[docs]'")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site/reference/cli/index.html").read_text("utf-8")
    assert "edgetrack calibrate collect" in reference
    # Nothing is fetched from elsewhere when a page is read.
    assert not re.search(
        r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', reference.replace('rel="canonical"', "")
    )
