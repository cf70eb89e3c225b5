"""Wrong descriptions on purpose: how much of a tracker's accuracy hangs on what it is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import msgspec
import numpy as np

from edgetrack.errors import InvalidTextError, SequenceError, UsageError, did_you_mean
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.datasets.clip import ClipFiles
from edgetrack.runtime.prompt import Prompt, phrases_of

Kind = Literal["swap", "drop", "shuffle"]
Phrases = dict[str, str]


class NoiseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was said wrong.

    Attributes:
        kind, seed: see `TextNoise`.
        described: how many sequences have a description.
        changed: how many of them were told something else.
    """

    kind: Kind
    seed: int
    described: int
    changed: int


@dataclass(frozen=True)
class TextNoise:
    """A way of telling a tracker something wrong; written `KIND` or `KIND:SEED`.

    Attributes:
        kind: `swap`, the phrases of another sequence that says something else; `drop`, some of the phrases and not all
            are left out; `shuffle`, each phrase is said of another attribute.
        seed: of the choice, which depends on it and on the sequence's name, for `swap` also on the other sequences.
    """

    kind: Kind
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> TextNoise:
        """`swap` or `swap:3`.

        Raises:
            UsageError: it is neither.
        """
        kind, mark, seed = text.partition(":")
        if kind not in get_args(Kind) or (mark and not (seed.isascii() and seed.isdecimal())):
            kinds = get_args(Kind)
            raise UsageError(
                f"--text-noise {text!r}{did_you_mean(kind, kinds)}: expected {', '.join(kinds)}, with a seed behind it "
                "as in swap:3"
            )
        return cls(cast(Kind, kind), int(seed) if mark else 0)

    def apply(self, described: Mapping[str, Phrases], attributes: tuple[str, ...]) -> dict[str, Phrases]:
        """What is said instead.

        Args:
            described: sequence -> its phrases by attribute, at least one.
            attributes: what the tracker reads.

        Returns:
            Of each sequence, in the tracker's order. A description to which nothing can be done stays: `swap` where all
            say the same, `drop` of a single phrase, `shuffle` for a tracker of one attribute.
        """
        return {name: self._noisy(name, described, attributes) for name in described}

    def _noisy(self, name: str, described: Mapping[str, Phrases], attributes: tuple[str, ...]) -> Phrases:
        # Of the sequence's name too: a choice of sequences does not change what is said in each.
        digest = hashlib.sha256(f"{self.kind} {self.seed} {name}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        said = described[name]
        given = list(said)
        if self.kind == "swap":
            others = [phrases for phrases in described.values() if phrases != said]
            return others[int(rng.integers(len(others)))] if others else said
        if self.kind == "drop":
            kept = int(rng.integers(1, len(given))) if len(given) > 1 else 1
            chosen = {given[i] for i in rng.permutation(len(given))[:kept]}
            return {name: phrase for name, phrase in said.items() if name in chosen}
        if len(given) == 1:
            others_to = [name for name in attributes if name not in said]
            return {others_to[int(rng.integers(len(others_to)))]: said[given[0]]} if others_to else said
        # A cycle through all of them in a random order: none keeps its own.
        order = [given[i] for i in rng.permutation(len(given))]
        moved = dict(zip(order, [said[name] for name in (*order[1:], order[0])], strict=True))
        return {name: moved[name] for name in given}


def _phrases(dataset: Dataset, entry: ClipFiles, prompt: Prompt) -> Phrases | None:
    try:
        text = dataset.read(entry).text
        return None if text is None else phrases_of(text, prompt)
    except (SequenceError, InvalidTextError):
        # Its evaluation says what is the matter.
        return None


def with_noise(dataset: Dataset, noise: TextNoise, prompt: Prompt | None) -> tuple[Dataset, NoiseReport]:
    """The data set with something else said of its targets, and of how many of them.

    Args:
        dataset: sequences that cannot be read, or have no description, stay as they are and fail later.
        noise: what to do.
        prompt: what the tracker reads.

    Raises:
        UsageError: the tracker reads no description, no sequence has one, or `swap` finds no other.
    """
    if prompt is None:
        raise UsageError(
            "--text-noise is for a tracker that reads a description of the target, which this one does not"
        )
    described = {
        entry.name: phrases for entry in dataset.entries if (phrases := _phrases(dataset, entry, prompt)) is not None
    }
    if not described:
        raise UsageError(
            f"--text-noise: no sequence of {dataset.name} has a description; give --text, or an nlp.txt each"
        )
    found = noise.apply(described, prompt.attributes)
    if found == described:
        raise UsageError(
            f"--text-noise {noise.kind} changes no description of {dataset.name}: "
            + {
                "swap": "all of its sequences say the same; choose more of them, or leave --text out",
                "drop": "each has one phrase",
                "shuffle": "each has one phrase, and the bundle reads one attribute",
            }[noise.kind]
        )
    changed = sum(found[name] != said for name, said in described.items())
    report = NoiseReport(kind=noise.kind, seed=noise.seed, described=len(described), changed=changed)
    return replace(dataset, texts=found), report
