"""Files that take their final name only when they are done."""

from __future__ import annotations

from pathlib import Path

from edgetrack.errors import UsageError


def claim(path: Path, partial: Path, *, overwrite: bool) -> None:
    """Make sure that `path` may be written by way of `partial`, its sibling; their folder is made where it is missing.

    Raises:
        UsageError: either exists and `overwrite` is not set, `path` is a folder, or its folder cannot be made.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file to write")
    if not overwrite and path.exists():
        raise UsageError(f"{path} exists; give another name or add --overwrite")
    if not overwrite and partial.exists():
        raise UsageError(f"{partial} was left by a run that did not end; move it away or add --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder of {path} cannot be made: {error.strerror or error}") from error


def suffix_of(path: Path, allowed: tuple[str, ...], what: str) -> str:
    """The path's ending in lower case.

    Raises:
        UsageError: it is none of those allowed.
    """
    suffix = path.suffix.lower()
    if suffix not in allowed:
        raise UsageError(f"{path} ends in {suffix or 'nothing'!r}; {what} are written as {', '.join(allowed)}")
    return suffix
