"""What an evaluation found, as JSON. Figures are 0..1, times in milliseconds; null means: there is nothing to score."""

from __future__ import annotations

import msgspec

from edgetrack.evaluation.metrics import Scores


class SequenceResult(Scores, frozen=True, kw_only=True):
    """One sequence.

    Attributes:
        name: of the sequence.
        frames: that were tracked, the first included; `lost`: in which the tracker said that it is lost.
        fps: 1000 over the median milliseconds of an update, None for a single frame.
    """

    name: str
    frames: int
    lost: int
    fps: float | None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence that was not evaluated, and why."""

    name: str
    error: str


class Result(Scores, frozen=True, kw_only=True):
    """A bundle on a data set.

    Attributes:
        bundle, weights: its name, and where its weights come from.
        dataset, layout: the data set's name and layout.
        averaging: `sequences`, or `frames` where AO and SR are means over all frames (GOT-10k).
        frames: that were tracked, of all sequences; `limit`: frames of each sequence that were asked for.
        fps: 1000 over the median milliseconds of an update over all frames; `jobs` such processes of `threads`
            threads each shared the machine meanwhile.
        interval: 95 % bootstrap interval over sequences for each figure.
        sequences, failures: what was evaluated, and what was not.
    """

    bundle: str
    weights: str
    dataset: str
    layout: str
    averaging: str
    device: str
    precision_hint: str | None
    frames: int
    limit: int | None
    fps: float | None
    jobs: int
    threads: int
    interval: dict[str, tuple[float, float] | None]
    sequences: list[SequenceResult]
    failures: list[Failure]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgetrack eval --json` prints."""

    schema: int = 1
    results: list[Result]
