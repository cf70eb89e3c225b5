"""Descriptions of the target, for trackers that read one: as users give them, and as phrases by attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetrack.errors import InvalidTextError, did_you_mean

if TYPE_CHECKING:
    from edgetrack.runtime.trackers.base import Procedure

Text = str | Mapping[str, str]
"""A sentence, or a phrase for each attribute of which something is known."""

_STAND_IN = ["the", "target", "in", "the", "middle", "of", "the", "first", "frame"]


@dataclass(frozen=True)
class Prompt:
    """What a tracker reads of a description.

    Attributes:
        attributes: what a description may speak of, such as `category`.
        split: cuts a sentence into phrases by attribute.
    """

    attributes: tuple[str, ...]
    split: Callable[[str], Mapping[str, str]]


def parse_text(items: Sequence[str]) -> Text | None:
    """What several `--text` say, or the lines of a file: `action=running`, or a sentence.

    Raises:
        InvalidTextError: both at once, several sentences, or an attribute twice.
    """
    if not items:
        return None
    pairs = [item.partition("=") for item in items]
    named = [bool(mark) and name.strip().isidentifier() for name, mark, _ in pairs]
    if not any(named) and len(items) == 1:
        return items[0]
    names = [name.strip() for name, _, _ in pairs]
    if not all(named) or len(set(names)) < len(names):
        raise InvalidTextError(
            f"text is {', '.join(map(repr, items))}; expected one sentence, or each attribute once, ATTRIBUTE=PHRASE: "
            "--text category=car --text action='turning left'"
        )
    return {name: phrase.strip() for name, (_, _, phrase) in zip(names, pairs, strict=True)}


def phrases_of(text: Text, prompt: Prompt | None) -> dict[str, str]:
    """A description as phrases, by attribute.

    Args:
        text: a sentence is split by rules; of its parts those that the tracker reads are kept.
        prompt: what the tracker reads; None for a tracker without language.

    Raises:
        InvalidTextError: the tracker takes no text, or the text is empty or names an attribute that it does not know.
    """
    if prompt is None:
        raise InvalidTextError("this tracker takes no description of the target; leave text (--text) out")
    attributes = prompt.attributes
    if not isinstance(text, (str, Mapping)) or any(not isinstance(part, str) for pair in _items(text) for part in pair):
        raise InvalidTextError(f"text is {text!r}, expected a sentence, or a dict of phrases by attribute")
    unknown = [] if isinstance(text, str) else [name for name in text if name not in attributes]
    if unknown:
        raise InvalidTextError(
            f"attribute {unknown[0]!r} is not one that this tracker reads{did_you_mean(unknown[0], attributes)}; "
            f"expected some of: {', '.join(attributes)}"
        )
    found = prompt.split(text) if isinstance(text, str) else text
    phrases = {name: found[name].strip() for name in attributes if found.get(name, "").strip()}
    if not phrases:
        raise InvalidTextError(
            f"text is {text!r}, which says nothing of {', '.join(attributes)}; describe the target: "
            f"text={{{attributes[0]!r}: 'car'}}, on the command line --text {attributes[0]}=car"
        )
    return phrases


def _items(text: Text) -> list[tuple[Any, ...]]:
    return list(text.items()) if isinstance(text, Mapping) else [(text,)]


def missing_text(prompt: Prompt) -> InvalidTextError:
    """The error for a tracker that reads a description and was given none."""
    first, names = prompt.attributes[0], ", ".join(prompt.attributes)
    return InvalidTextError(
        f"this tracker reads a description of the target ({names}), given none; describe it: "
        f"tracker.init(frame, box, text={{{first!r}: 'car'}}), or with one sentence; on the command line "
        f"--text {first}=car or --text 'red car turning left'; for a data set also by nlp.txt beside the boxes"
    )


def stand_in_text(attributes: Sequence[str]) -> dict[str, str]:
    """A description for a proof or a measurement without one: phrases of different lengths.

    It says nothing about accuracy.
    """
    return {name: " ".join(_STAND_IN[: 2 + 2 * index]) for index, name in enumerate(attributes)}


def prepare_text(procedure: Procedure, text: Text | None = None) -> None:
    """Give a procedure that reads text a description before `init`: the given one, else a stand-in."""
    prompt = procedure.prompt
    if prompt is not None:
        procedure.set_text(stand_in_text(prompt.attributes) if text is None else phrases_of(text, prompt))
