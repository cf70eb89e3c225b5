"""From values as they are typed, or given to `edgetrack.api`, to what the packages are asked for.

The checks of these verbs stand here once; no console and no command is known here.
"""

from __future__ import annotations

from pathlib import Path

from edgetrack.errors import UsageError


def at_least(low: int, **values: int | None) -> None:
    """Check numbers, by the names of their options.

    Raises:
        UsageError: one is below `low`.
    """
    for name, value in values.items():
        if value is not None and value < low:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected {low} or more")


def folder_or_file(output: Path | None) -> tuple[Path | None, Path | None]:
    """The folder for runs, and the file for the result, that `--output` names: a name in .json is a file's."""
    is_file = output is not None and output.suffix == ".json"
    return (None, output) if is_file else (output, None)
