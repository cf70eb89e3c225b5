"""What the package finds around it: the data that ships with it, a folder for its cache, the cores it may use."""

from __future__ import annotations

import os
from pathlib import Path

from edgetrack.errors import EdgetrackError

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
"""Environment variables by which native libraries choose their number of threads when they are loaded."""


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


def cache_folder() -> Path | None:
    """`$EDGETRACK_CACHE`, else `edgetrack` in the user's cache folder; None where it cannot be made or is switched off.

    `EDGETRACK_CACHE=off` switches the cache off. The folder is made readable by its owner only, since a backend loads
    compiled code from it.
    """
    chosen = os.environ.get("EDGETRACK_CACHE", "")
    if chosen == "off":
        return None
    try:
        base = (
            Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetrack"
        )
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return None
    return base if os.access(base, os.W_OK) else None


def usable_cores() -> int:
    """Cores that this process may run on, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
