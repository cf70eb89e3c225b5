"""What is said of a target: descriptions as users give them, phrases, and CLIP's token ids of a phrase."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetrack.errors import BackendMissingError, InvalidTextError
from edgetrack.runtime.splitter import split

if TYPE_CHECKING:
    from edgetrack.runtime.trackers.base import Procedure

Text = str | Mapping[str, str]
"""A sentence, or a phrase for each attribute of which something is known."""

START, END = 49406, 49407
"""CLIP's marks around a phrase; rows of ids are padded with 0."""
CONTEXT = 77
"""The most tokens that CLIP was trained with, its marks included."""
_STAND_IN = ["the", "target", "in", "the", "middle", "of", "the", "first", "frame"]


def parse_text(items: Sequence[str]) -> Text | None:
    """What was typed behind several `--text`, or stands in the lines of a file: `action=running`, or a sentence.

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


def phrases_of(text: Text, attributes: Sequence[str]) -> dict[str, str]:
    """A description as phrases, by attribute.

    Args:
        text: a sentence is split by rules; of its parts those that the tracker reads are kept.
        attributes: those that the tracker reads; empty for a tracker without language.

    Raises:
        InvalidTextError: the tracker takes none, nothing is said, or of an attribute that it does not know.
    """
    if not attributes:
        raise InvalidTextError("this tracker takes no description of the target; leave text (--text) out")
    if not isinstance(text, (str, Mapping)) or any(not isinstance(part, str) for pair in _items(text) for part in pair):
        raise InvalidTextError(f"text is {text!r}, expected a sentence, or a dict of phrases by attribute")
    unknown = [] if isinstance(text, str) else [name for name in text if name not in attributes]
    if unknown:
        raise InvalidTextError(
            f"attribute {unknown[0]!r} is not one that this tracker reads; expected some of: {', '.join(attributes)}"
        )
    found = split(text) if isinstance(text, str) else text
    phrases = {name: found[name].strip() for name in attributes if found.get(name, "").strip()}
    if not phrases:
        raise InvalidTextError(
            f"text is {text!r}, which says nothing of {', '.join(attributes)}; describe the target: "
            f"text={{{attributes[0]!r}: 'car'}}, on the command line --text {attributes[0]}=car"
        )
    return phrases


def _items(text: Text) -> list[tuple[Any, ...]]:
    return list(text.items()) if isinstance(text, Mapping) else [(text,)]


def missing_text(attributes: Sequence[str]) -> InvalidTextError:
    """The error for a tracker that reads a description and was given none."""
    return InvalidTextError(
        f"this tracker reads what is said of the target ({', '.join(attributes)}), given nothing; describe it: "
        f"tracker.init(frame, box, text={{{attributes[0]!r}: 'car'}}), or with one sentence; on the command line "
        f"--text {attributes[0]}=car or --text 'red car turning left'; for a data set also by nlp.txt beside the boxes"
    )


def stand_in_text(attributes: Sequence[str]) -> dict[str, str]:
    """A description for a proof or a measurement where nothing is said: phrases of different lengths.

    It says nothing about accuracy.
    """
    return {name: " ".join(_STAND_IN[: 2 + 2 * index]) for index, name in enumerate(attributes)}


def describe(procedure: Procedure, text: Text | None = None) -> None:
    """Give a procedure a description before `init`, where it takes one: what is known, else a stand-in."""
    if procedure.attributes:
        given = stand_in_text(procedure.attributes) if text is None else phrases_of(text, procedure.attributes)
        procedure.describe(given)


def clip_tokens(phrase: str, room: int, attribute: str) -> list[int]:
    """CLIP's byte-pair ids of a phrase, with its marks; cleaned, unescaped and lowered as CLIP does.

    Args:
        phrase: of which the attribute is named in messages.
        room: the most ids that the graph takes, marks included.

    Raises:
        InvalidTextError: it is longer, or holds nothing that can be read.
        BackendMissingError: the tokenizer is not installed.
    """
    fix, tokenizer = _tokenizer()
    cleaned = html.unescape(html.unescape(fix(phrase))).strip()
    ids = [START, *tokenizer.encode(cleaned), END]
    if len(ids) > room:
        limit = f"CLIP takes {CONTEXT}" if len(ids) > CONTEXT else f"this bundle takes {room}"
        remedy = (
            "" if len(ids) > CONTEXT else f", or export with text_tokens = {len(ids)} in the recipe's [configuration]"
        )
        raise InvalidTextError(
            f"the phrase of {attribute!r} has {len(ids)} tokens with start and end, {limit}: {_short(phrase)!r}; "
            f"shorten it{remedy}"
        )
    if len(ids) == 2:
        raise InvalidTextError(f"the phrase of {attribute!r} is {_short(phrase)!r}, in which there is no word")
    return ids


def _short(phrase: str) -> str:
    return phrase if len(phrase) <= 60 else f"{phrase[:57]}..."


@functools.cache
def _tokenizer() -> tuple[Any, Any]:
    try:
        from ftfy import fix_text
        from instant_clip_tokenizer import Tokenizer
    except ImportError as error:
        raise BackendMissingError(
            f"reading text needs a tokenizer ({error}); install it with: pip install 'edgetrack[text]'"
        ) from error
    return fix_text, Tokenizer()
