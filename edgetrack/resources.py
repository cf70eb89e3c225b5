"""Where the data that ships with the package lies: recipes, budgets, device profiles, calibration sets."""

from __future__ import annotations

from pathlib import Path

from edgetrack.errors import EdgetrackError


def data_folder(name: str) -> Path:
    """The folder `export_recipes`, `bench` or `calibration`: in the installed package, else beside it in a checkout.

    Raises:
        EdgetrackError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise EdgetrackError(f"the installation lacks its {name!r} folder; reinstall edgetrack")
