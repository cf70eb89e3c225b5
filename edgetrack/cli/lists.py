"""Options that name several things."""

from __future__ import annotations


def split_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Names apart by commas, by repeating the option, or both; None where it was left out."""
    if given is None:
        return None
    return tuple(name for text in given for part in text.split(",") if (name := part.strip()))
