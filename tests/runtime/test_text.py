"""Descriptions of targets: CLIP's tokens against the official ones, the splitter on LaSOT's sentences, hostile text."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgetrack.errors import BackendMissingError, InvalidTextError
from edgetrack.runtime import text
from edgetrack.runtime.splitter import split
from edgetrack.runtime.text import clip_tokens, parse_text, phrases_of, stand_in_text

FOUR = ("category", "appearance", "action", "location")


def test_tokens_are_the_official_ones(shared: Path) -> None:
    official = json.loads((shared / "golden/clip_tokens.json").read_text())
    assert (official["sot"], official["eot"], official["context_length"]) == (text.START, text.END, text.CONTEXT)
    compared = 0
    for case in official["cases"]:
        if len(case["ids"]) > 2:
            assert clip_tokens(case["text"], 77, "category") == case["ids"], case["text"]
            compared += 1
    assert compared >= 9


@given(st.text(max_size=40))
@example("!{")  # "!" inside a word is CLIP's number 0
def test_any_text_gives_tokens_or_a_clear_error(phrase: str) -> None:
    try:
        ids = clip_tokens(phrase, 16, "action")
    except InvalidTextError as error:
        ids = []
        said = str(error)
    if not ids:
        assert "'action'" in said
        return
    assert (ids[0], ids[-1]) == (text.START, text.END)
    assert 3 <= len(ids) <= 16
    assert all(0 <= i < text.START for i in ids[1:-1])


@pytest.mark.parametrize(
    ("phrase", "room", "match"),
    [
        ("a " * 20, 16, r"22 tokens .*this bundle takes 16.*text_tokens = 22"),
        ("a " * 90, 16, r"92 tokens .*CLIP takes 77.*shorten it$"),
        ("&nbsp;", 16, "no word"),
        ("", 16, "no word"),
    ],
)
def test_phrases_that_do_not_fit_are_named(phrase: str, room: int, match: str) -> None:
    with pytest.raises(InvalidTextError, match=match):
        clip_tokens(phrase, room, "location")


def test_without_the_tokenizer_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text._tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, "instant_clip_tokenizer", None)  # as the import system marks what is not there
    with pytest.raises(BackendMissingError, match=r"edgetrack\[text\]"):
        clip_tokens("car", 16, "category")
    monkeypatch.undo()
    assert clip_tokens("car", 16, "category")


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
        phrases_of(given_text, attributes)


def test_phrases_come_in_the_trackers_order_without_empty_ones() -> None:
    given_text = {"action": " running ", "category": "dog", "location": ""}
    assert list(phrases_of(given_text, FOUR).items()) == [("category", "dog"), ("action", "running")]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (
            "white airplane landing on ground",
            {"category": "airplane", "appearance": "white airplane", "action": "landing", "location": "on ground"},
        ),
        (
            "a man in blue t-shirt walking behind a car",
            {
                "category": "man",
                "appearance": "man in blue t-shirt",
                "action": "walking",
                "location": "behind a car",
            },
        ),
        ("hand of a woman", {"category": "hand", "appearance": "hand of woman"}),
        ("red kite being flown by a boy", None),
        ("Car", {"category": "Car"}),
        ("swing", {"category": "swing"}),
        ("", {}),
        (" ,;. ", {}),
    ],
)
def test_sentences_are_cut_by_rules(sentence: str, expected: dict[str, str] | None) -> None:
    found = split(sentence)
    if expected is None:
        assert found["category"] == "kite"
        assert found["action"] == "being flown by a boy"
    else:
        assert found == expected


def test_lasots_sentences_split_and_fit(shared: Path) -> None:
    """1400 sentences of the data set: the category is mostly the class's name, and no phrase is too long."""
    sentences = json.loads((shared / "data/lang/lasot_nlp.json").read_text())
    seen: Counter[str] = Counter()
    right = 0
    for name, sentence in sentences.items():
        found = phrases_of(sentence, FOUR)
        seen.update(found.keys())
        right += name.rsplit("-", 1)[0].lower().endswith(found["category"].lower())
        for attribute, phrase in found.items():
            assert len(clip_tokens(phrase, 16, attribute)) <= 16
    assert seen["category"] == len(sentences) == 1400
    assert right > 1200
    assert min(seen.values()) > 600


@given(st.text(alphabet="abc ing,.on in red held by", max_size=60))
def test_no_word_is_made_up(sentence: str) -> None:
    words = sentence.replace(",", " ").replace(".", " ").replace(";", " ").split()
    for phrase in split(sentence).values():
        assert all(word in words for word in phrase.split())


def test_stand_ins_can_be_read_and_differ() -> None:
    phrases = stand_in_text(FOUR)
    lengths = [len(clip_tokens(phrase, 16, name)) for name, phrase in phrases.items()]
    assert lengths == [4, 6, 8, 10]
    assert stand_in_text(()) == {}
