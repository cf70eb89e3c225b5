"""Wrong descriptions: what each kind does to phrases, that a seed repeats it, and what it cannot do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.text_noise import TextNoise, with_noise
from edgetrack.runtime.prompt import Prompt

FOUR = ("category", "appearance", "action", "location")
described = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(FOUR), st.sampled_from(["red", "car", "on the road", "runs"]), min_size=1),
    min_size=1,
    max_size=5,
)


@given(described, st.integers(0, 99))
def test_swap_says_what_another_sequence_says(said: dict[str, dict[str, str]], seed: int) -> None:
    found = TextNoise("swap", seed).apply(said, FOUR)
    assert list(found) == list(said)
    for name, phrases in found.items():
        others = [other for other in said.values() if other != said[name]]
        assert phrases in others if others else phrases == said[name]


@given(described, st.integers(0, 99))
def test_drop_leaves_some_phrases_out_and_not_all(said: dict[str, dict[str, str]], seed: int) -> None:
    for name, phrases in TextNoise("drop", seed).apply(said, FOUR).items():
        assert phrases.items() <= said[name].items()
        assert 1 <= len(phrases) <= max(len(said[name]) - 1, 1)


@given(described, st.integers(0, 99))
def test_shuffle_says_each_phrase_of_another_attribute(said: dict[str, dict[str, str]], seed: int) -> None:
    """Phrases are told apart, so that one that kept its attribute is seen."""
    apart = {name: {a: f"{a} {p}" for a, p in phrases.items()} for name, phrases in said.items()}
    for name, phrases in TextNoise("shuffle", seed).apply(apart, FOUR).items():
        assert sorted(phrases.values()) == sorted(apart[name].values())
        assert all(not phrase.startswith(attribute) for attribute, phrase in phrases.items())


@pytest.mark.parametrize("kind", ["swap", "drop", "shuffle"])
def test_a_seed_repeats_and_another_one_differs(kind: str) -> None:
    said = {f"s{i}": {a: f"{a} {i}" for a in FOUR} for i in range(20)}
    first, again, other = (TextNoise.parse(text).apply(said, FOUR) for text in (kind, f"{kind}:0", f"{kind}:1"))
    assert first == again != other
    if kind != "swap":
        few = TextNoise.parse(kind).apply({"s3": said["s3"]}, FOUR)
        assert few["s3"] == first["s3"]


@pytest.mark.parametrize("text", ["", "noise", "swap:", "swap:x", "swap:-1", "Drop"])
def test_what_is_no_noise_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected swap, drop, shuffle, with a seed"):
        TextNoise.parse(text)


def test_noise_that_can_change_nothing_is_refused() -> None:
    dataset = open_dataset("synthetic:")
    prompt = Prompt(FOUR, lambda sentence: {"category": sentence})
    with pytest.raises(UsageError, match="for a tracker that reads a description"):
        with_noise(dataset, TextNoise("drop"), None)
    with pytest.raises(UsageError, match="no sequence of synthetic has a description"):
        with_noise(dataset, TextNoise("drop"), prompt)
    spoken = replace(dataset, text="a car")
    for kind, why in (("swap", "all of its sequences say the same"), ("drop", "each has one phrase")):
        with pytest.raises(UsageError, match=why):
            with_noise(spoken, TextNoise.parse(kind), prompt)
    found, report = with_noise(spoken, TextNoise("shuffle"), prompt)
    assert (report.described, report.changed) == (len(dataset.entries), len(dataset.entries))
    assert all("category" not in found.read(entry).text for entry in found.entries)


def test_a_misspelt_kind_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'swp:3' \(did you mean 'swap'\?\)"):
        TextNoise.parse("swp:3")
