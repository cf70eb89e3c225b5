"""Reading TOML files (recipes, calibration sets, budgets, devices) strictly, since anyone may have written them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from edgetrack.errors import EdgetrackError, UsageError

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable

    import tomllib
else:
    from importlib.abc import Traversable

    import tomli as tomllib

Described = TypeVar("Described")
LARGEST = 64 << 10
"""Bytes; people write such files by hand."""


def read_toml(
    path: Path | Traversable,
    type_: type[Described],
    what: str,
    *,
    error: type[EdgetrackError] = UsageError,
    largest: int = LARGEST,
    advice: str = "",
) -> Described:
    """A TOML file as an object of a type.

    Args:
        path: the file.
        type_: what msgspec converts it to, strictly.
        what: its kind, for messages: "recipe".
        error: class of the errors.
        largest: in bytes.
        advice: what to do, for the end of messages.

    Raises:
        EdgetrackError: of class `error`: it cannot be read, is too large, is not TOML, or not of that type.
    """
    end = f"; {advice}" if advice else ""
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as fault:
        raise error(f"{what} {path} cannot be read: {fault.strerror or fault}{end}") from None
    if len(data) > largest:
        raise error(f"{what} {path} is larger than {largest >> 10} KB{end}")
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8")), type_)
    except msgspec.ValidationError as fault:
        raise error(f"{path} is not a {what} of schema 1: {fault}{end}") from None
    except (ValueError, RecursionError) as fault:  # not TOML, not UTF-8, a number of 5000 digits, 1000 brackets
        raise error(f"{what} {path} is not TOML: {fault}{end}") from None
