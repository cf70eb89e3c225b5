"""What an evaluation found, as JSON. Figures are 0..1, times in milliseconds; null means: there is nothing to score."""

from __future__ import annotations

import msgspec

from edgetrack.evaluation.metrics import Scores
from edgetrack.runtime.diagnostics import DiagnosticSummary


class SequenceResult(Scores, frozen=True, kw_only=True):
    """One sequence.

    Attributes:
        name: of the sequence.
        frames: that were tracked, the first included; `lost`: in which the tracker said that it is lost.
        fps: 1000 over the median milliseconds of an update, None for a single frame.
        anchored_ao: mean over its runs from anchors; `anchor_runs`: how many; None where none were asked for.
        streaming_ao: AO under the clock; None where none was asked for.
        diagnostics: what the tracker mixed, by mixture; None where it mixes nothing.
    """

    name: str
    frames: int
    lost: int
    fps: float | None
    anchored_ao: float | None = None
    anchor_runs: int | None = None
    streaming_ao: float | None = None
    diagnostics: dict[str, DiagnosticSummary] | None = None


class AnchoredResult(msgspec.Struct, frozen=True, kw_only=True):
    """Short runs from anchors, forwards and backwards.

    Attributes:
        spacing, length: frames between anchors and frames of a run.
        runs: how many there were.
        ao: mean over sequences of the mean over their runs; `interval`: 95 %, bootstrapped over sequences and runs,
            None with fewer than two runs.
    """

    spacing: int
    length: int
    runs: int
    ao: float | None
    interval: tuple[float, float] | None


class StreamingResult(Scores, frozen=True, kw_only=True):
    """The same figures for the boxes that were known when each frame came.

    Attributes:
        rate: frames per second.
        latencies: `measured`, or the bundle whose recorded ones were replayed.
        median_ms: of the latencies that counted, init included.
        processed: share of frames after the first that the tracker took, of all sequences together.
        staleness: mean age of the known box in frames, over the same frames.
    """

    rate: float
    latencies: str
    median_ms: float | None
    processed: float | None
    staleness: float | None


class SequenceFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence that was not evaluated, and why."""

    name: str
    error: str


class EvalResult(Scores, frozen=True, kw_only=True):
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
        anchored, streaming: None where they were not asked for.
        scheduler: the Dask scheduler whose workers tracked; None for processes of this machine.
        diagnostics: what the tracker mixed over all frames after the first, by mixture; None where it mixes nothing.
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
    failures: list[SequenceFailure]
    anchored: AnchoredResult | None = None
    streaming: StreamingResult | None = None
    scheduler: str | None = None
    diagnostics: dict[str, DiagnosticSummary] | None = None


class EvalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgetrack eval --json` prints."""

    schema: int = 1
    results: list[EvalResult]
