"""Packages that a page of the documentation spells out: written, built as wheels, installed, and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FILE = re.compile(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_files(page: Path) -> dict[str, str]:
    """The files of a page, by their paths."""
    return dict(_FILE.findall(page.read_text("utf-8")))


def install_page(page: Path, source: Path, site: Path) -> None:
    """Build every package of a page as a wheel in `source`, and unpack it to `site`, as an installer does."""
    for name, text in page_files(page).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, "utf-8")
    for project in source.rglob("pyproject.toml"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(source / "dist")],
            cwd=project.parent,
            check=True,
            capture_output=True,
            timeout=300,
        )
    for wheel in (source / "dist").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)


def run_edgetrack(site: Path, folder: Path, *arguments: str, code: int = 0) -> str:
    """What the command prints in a folder of its own; on failures, where `code` says so, its error."""
    path = os.pathsep.join([str(site), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "EDGETRACK_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
