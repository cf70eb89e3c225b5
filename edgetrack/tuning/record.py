"""A tuning as data: what was asked for, what each candidate measured, what is recommended, and every sample."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgetrack.benchmark.config import SourceNote
from edgetrack.decoding import decode_json
from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.protocols.anchored import Difference
from edgetrack.io import encode_json
from edgetrack.stats.race import MARGIN
from edgetrack.system.machine import MachineRecord

Standing = Literal["recommended", "equal", "slower", "undecided", "refused", "unproven", "failed"]


class TuneWishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate has to meet, None where nothing is asked.

    Attributes:
        fps: frames per second of track (crop, graphs and decode).
        max_drop: points of AO that it may lose against FP32, on `dataset`.
        dataset: its name.
        max_memory_mb: peak resident memory of the process that tracks, in MiB.
        margin: share of time that counts as equally fast.
    """

    fps: float | None = None
    max_drop: float | None = None
    dataset: str | None = None
    max_memory_mb: float | None = None
    margin: float = MARGIN


class TimeRatio(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's time over the fastest's, with the interval that the race judged it by; null: too few rounds."""

    value: float
    low: float | None
    high: float | None


class TuneEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate.

    Attributes:
        label: bundle, hint, place and threads.
        path, digest: of the bundle: where it was, and the SHA-256 of its manifest.
        rounds: that it ran in; track_ms: median over all of its frames; null where it never ran.
        versus_fastest: over the common rounds with the fastest of those that meet the wishes.
        standing: `equal`: within the margin of the fastest, and dearer than what is recommended. `slower`: shown to
            take longer than the margin allows. `refused`: shown not to meet a wish. `unproven`: its AO is not
            shown to meet the wish. `reason` says more.
        front: no other has less time, less memory and a precision as high.
        ao: against FP32, where it was measured.
    """

    label: str
    bundle: str
    path: str
    digest: str
    target: str
    precision: str
    hint: str | None
    device: str
    threads: int
    size_mb: float
    peak_rss_mb: float | None = None
    gpu_mb: float | None = None
    load_ms: float | None = None
    versions: dict[str, str] = {}
    rounds: int = 0
    track_ms: float | None = None
    mj_per_frame: float | None = None
    versus_fastest: TimeRatio | None = None
    standing: Standing = "undecided"
    reason: str = ""
    front: bool = False
    ao: Difference | None = None


class LeftOut(msgspec.Struct, frozen=True):
    """What was not raced, and why."""

    what: str
    reason: str


class Undecided(msgspec.Struct, frozen=True):
    """What is not decided, and about how many seconds more would decide it; null: time alone would not."""

    what: str
    more_s: float | None


class TuneRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgetrack tune --json` prints.

    Attributes:
        complete: nothing is left that more time would decide; where something is, the same command resumes.
        system, weights: of all bundles: the tracker with its settings, and the checkpoint's SHA-256 or origin.
        source: the frames that speed was measured on.
        entries: the fastest first.
        recommended: a label, or null where nothing meets the wishes.
        advice: the recommendation and its reasons, in sentences.
        seconds: all of it; race_seconds: of the rounds alone, those of a resumed race included.
        rounds_ms: the milliseconds of every frame, by round and candidate.
    """

    schema: int = 1
    complete: bool
    date: str
    machine: MachineRecord
    profile: str | None
    system: str
    weights: str
    source: SourceNote
    wishes: TuneWishes
    entries: list[TuneEntry]
    left_out: list[LeftOut]
    recommended: str | None
    advice: list[str]
    undecided: list[Undecided]
    exhaustive: bool
    seconds: float
    race_seconds: float
    rounds_ms: list[dict[str, list[float]]]

    @property
    def choice(self) -> TuneEntry | None:
        """What is recommended."""
        return next((one for one in self.entries if one.label == self.recommended), None)

    def to_json(self) -> bytes:
        """The record as one line of UTF-8 JSON."""
        return encode_json(self) + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str, *, source: str) -> TuneRecord:
        """The record that `to_json` wrote.

        Raises:
            EdgetrackError: not such a record; `source` says where it comes from.
        """
        return decode_json(data, cls, lambda words: EdgetrackError(f"{source} is not a tuning's record: {words}"))
