"""Where compiled graphs are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


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
