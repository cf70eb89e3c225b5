"""How processes of this package speak with each other: one JSON object per line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

_SHOWN = 120
_T = TypeVar("_T")


def encode(message: msgspec.Struct) -> bytes:
    """One line, with its line feed."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes, decoder: msgspec.json.Decoder[_T], refused: Callable[[str, str], Exception]) -> _T:
    """The message of a line.

    Args:
        line: whatever the other process wrote.
        decoder: of the messages that it may send.
        refused: makes the exception from the line's start, quoted, and what is wrong with it.

    Raises:
        Exception: what `refused` returned; the line is no such message.
    """
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        text = line[:_SHOWN].decode("utf-8", "replace").rstrip("\n")
        raise refused(repr(text + ("..." if len(line) > _SHOWN else "")), str(error)) from None
