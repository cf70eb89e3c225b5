"""The four attributes of a target that ATSTrack reads, and what each looks at (docs/trackers/atstrack.md)."""

from __future__ import annotations

# Attribute -> the visual tokens it is modulated by: the latest template's, all templates', or the search region's.
SOURCES = {"category": "template", "appearance": "template", "action": "sequence", "location": "search"}


def parse_attributes(text: str) -> tuple[str, ...]:
    """`category, action` as names in the order of the paper; empty for a network without language.

    Raises:
        ValueError: there is no such attribute, or one is named twice.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    unknown = [name for name in names if name not in SOURCES]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"attributes is {text!r}, expected some of {', '.join(SOURCES)}, each once with commas between them, or an "
            "empty text for none"
        )
    return tuple(name for name in SOURCES if name in names)
