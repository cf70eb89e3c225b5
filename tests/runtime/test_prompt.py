"""Descriptions of targets, as users give them and as phrases."""

from __future__ import annotations

from typing import Any

import pytest

from edgetrack.errors import InvalidTextError
from edgetrack.runtime.prompt import Prompt, parse_text, phrases_of
from edgetrack.runtime.trackers.atstrack import split_sentence

FOUR = ("category", "appearance", "action", "location")


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([], None),
        (["red car turning left"], "red car turning left"),
        (["sign that says 2 + 2 = 4"], "sign that says 2 + 2 = 4"),
        (["category=car", "action = turning left"], {"category": "car", "action": "turning left"}),
        (["category=a=b"], {"category": "a=b"}),
    ],
)
def test_what_is_typed_is_a_sentence_or_phrases(items: list[str], found: Any) -> None:
    assert parse_text(items) == found


@pytest.mark.parametrize("items", [["a car", "a bus"], ["category=car", "a bus"], ["action=a", "action=b"]])
def test_what_is_typed_otherwise_is_refused(items: list[str]) -> None:
    with pytest.raises(InvalidTextError, match="expected one sentence, or each attribute once"):
        parse_text(items)


@pytest.mark.parametrize(
    ("given_text", "attributes", "match"),
    [
        ("", FOUR, "says nothing"),
        ("   ", FOUR, "says nothing"),
        ({}, FOUR, "says nothing"),
        ({"action": " "}, FOUR, "says nothing"),
        ({"colour": "red"}, FOUR, "'colour' is not one that this tracker reads; expected some of: category, "),
        ({"location": "left"}, ("category",), "'location' is not one"),
        ({"category": 3}, FOUR, "expected a sentence, or a dict"),
        (b"car", FOUR, "expected a sentence, or a dict"),
        (["car"], FOUR, "expected a sentence, or a dict"),
        ("car", (), "takes no description"),
        ("on the road", ("action",), "says nothing of action"),
    ],
)
def test_descriptions_that_cannot_be_read_are_named(given_text: Any, attributes: tuple[str, ...], match: str) -> None:
    with pytest.raises(InvalidTextError, match=match):
        phrases_of(given_text, Prompt(attributes, split_sentence) if attributes else None)


def test_phrases_come_in_the_trackers_order_without_empty_ones() -> None:
    given_text = {"action": " running ", "category": "dog", "location": ""}
    assert list(phrases_of(given_text, Prompt(FOUR, split_sentence)).items()) == [
        ("category", "dog"),
        ("action", "running"),
    ]
