"""What a device says is shown on a terminal here: without what would steer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def printable(lines: Sequence[str]) -> list[str]:
    """Lines with a question mark for each character that is none on paper."""
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


def harmless(value: Any) -> Any:
    """Plain data, as JSON holds it, whose texts and keys keep line feeds and lose all else that is not printable."""
    if isinstance(value, str):
        return "\n".join(printable(value.split("\n")))
    if isinstance(value, list):
        return [harmless(item) for item in value]
    if isinstance(value, dict):
        return {printable([key])[0]: harmless(item) for key, item in value.items()}
    return value
