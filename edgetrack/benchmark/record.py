"""What a benchmark found, as JSON: machine, settings, frames, one result per candidate with every sample.

Times are in milliseconds, sizes and memory in MiB. null means: not measured, or too few samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgetrack.benchmark.config import BenchConfig, SourceNote
from edgetrack.benchmark.latency import Latency, Rounds
from edgetrack.benchmark.protocol import Attainable
from edgetrack.benchmark.scenarios.burst import BurstOutcome, TogetherOutcome
from edgetrack.benchmark.scenarios.paced import PacedOutcome
from edgetrack.benchmark.scenarios.soak import SoakOutcome
from edgetrack.benchmark.warnings import BenchWarning
from edgetrack.bundle.manifest import Scalar
from edgetrack.bundle.reader import bundle_label
from edgetrack.decoding import decode_json
from edgetrack.errors import EdgetrackError
from edgetrack.io import encode_json, write_whole
from edgetrack.runtime.threads import ThreadRace
from edgetrack.system.machine import MachineRecord
from edgetrack.system.timeline import Energy, Timeline


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """The three speeds: graphs only; crop, graphs and decode; frame source to box.

    `camera` reads, decodes and tracks in turn; `camera_ahead` is from box to box where a thread reads and decodes ahead
    of the tracker, as `edgetrack track` does. null in records of versions that did not measure it.
    """

    model: Latency
    track: Latency
    camera: Latency | None
    camera_ahead: Latency | None = None


class Fps(msgspec.Struct, frozen=True, kw_only=True):
    """1000 / p50 of each speed."""

    model: float | None
    track: float | None
    camera: float | None
    camera_ahead: float | None = None


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of the stages; `outside` is that of crop + decode, `read` of getting a frame from the source."""

    crop: float
    graphs: float
    decode: float
    outside: float
    read: float | None


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Peak resident memory of the process that tracks straight from the source, and what it held of the GPU then."""

    peak_rss: float
    gpu: float | None = None


class VersusPytorch(msgspec.Struct, frozen=True, kw_only=True):
    """PyTorch's p50 over ours, above 1 is faster; `peak_rss` is ours over PyTorch's, below 1 is smaller."""

    model: float | None = None
    track: float | None = None
    peak_rss: float | None = None


class PytorchInterval(msgspec.Struct, frozen=True, kw_only=True):
    """95 % bootstrap intervals of the speed ratios; null where there are too few rounds."""

    model: tuple[float, float] | None = None
    track: tuple[float, float] | None = None


class VersusPaper(msgspec.Struct, frozen=True, kw_only=True):
    """The paper's frames per second on its `cpu`, for a GPU on its `gpu`, and ours (track) over it; memory alike.

    Memory is in GB of 10^9 bytes; ours is the peak of the process that tracks.
    """

    fps: float | None = None
    ratio: float | None = None
    cpu: str | None = None
    gpu: str | None = None
    memory_gb: float | None = None
    memory_ratio: float | None = None
    source: str | None = None


class RooflineRatio(msgspec.Struct, frozen=True, kw_only=True):
    """`model`: our p50 over the limit, 1 is perfect; the limit is the step graphs' FLOPs at the best rate found."""

    model: float | None = None
    limit_ms: float | None = None
    gflops: float | None = None
    precision: str | None = None
    engine: str | None = None


class SamplesMs(msgspec.Struct, frozen=True, kw_only=True):
    """Every sample, by round; `read` is the reading's share of `camera`."""

    model: Rounds
    track: Rounds
    camera: Rounds
    crop: Rounds
    decode: Rounds
    read: Rounds
    camera_ahead: Rounds = []


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate. `cores_busy` is processor time over wall time while track was measured.

    `overrides` as in the bundle's manifest, `placement` where each graph ran as its backend says (`GPU.0 in f16`).
    `energy` is by kind of round, where the device tells its power; `paced`, `burst`, `together` (a burst with
    `batched`) and `soak` are of those scenarios, `found` is of a scenario without a field of its own. `attainable` and
    `thread_race` are there where they were asked for.
    """

    bundle: str
    tracker: str
    target: str
    precision: str
    hint: str | None
    weights: str
    device: str
    threads: int
    versions: dict[str, str]
    latency_ms: Latencies
    fps: Fps
    waterfall_ms: Waterfall
    memory_mb: MemoryUse
    size_mb: float
    load_ms: float
    first_ms: float
    cores_busy: float
    vs_pytorch: VersusPytorch
    vs_pytorch_interval: PytorchInterval
    vs_paper: VersusPaper
    roofline: RooflineRatio
    warnings: list[BenchWarning]
    samples_ms: SamplesMs
    attainable: Attainable | None = None
    overrides: dict[str, Scalar] = {}
    placement: dict[str, str] = {}
    energy: dict[str, Energy] = {}
    paced: PacedOutcome | None = None
    burst: BurstOutcome | None = None
    together: TogetherOutcome | None = None
    soak: SoakOutcome | None = None
    thread_race: ThreadRace | None = None
    found: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def arrived(self) -> PacedOutcome | None:
        """What became of frames that arrived at a rate, where they did."""
        return self.paced or (self.soak.paced if self.soak is not None else None)

    @property
    def label(self) -> str:
        """The bundle's name, with its hint where it has one."""
        return bundle_label(self.bundle, self.hint)


class CandidateFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that did not finish; `error` is the exception's class, `rounds_done` counts complete rounds."""

    candidate: str = msgspec.field(name="contestant")
    error: str
    message: str
    rounds_done: int


class BenchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A benchmark. `complete` is false while rounds are missing, as after an interruption.

    `telemetry` has the readings of the device's sensors, on one axis of time with what was measured when. `date` is
    when it began, in UTC, None in records that are older than the field.
    """

    schema: int = 1
    complete: bool
    machine: MachineRecord
    settings: BenchConfig
    source: SourceNote
    results: list[BenchResult]
    failures: list[CandidateFailure]
    telemetry: Timeline | None = None
    date: str | None = None

    def to_json(self) -> bytes:
        """The record as one line of UTF-8 JSON."""
        return encode_json(self) + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str, *, source: str) -> BenchRecord:
        """The record that `to_json` wrote.

        Args:
            data: JSON.
            source: where it comes from, for the error's message.

        Raises:
            EdgetrackError: not such a record.
        """
        record = decode_json(data, cls, lambda words: EdgetrackError(f"{source} is not a benchmark's record: {words}"))
        if record.schema != 1:
            raise EdgetrackError(
                f"{source} is a benchmark's record of schema {record.schema}; this version reads schema 1"
            )
        return record


def save(record: BenchRecord, path: Path) -> None:
    """Write a record so that a reader sees the old file or the new one, never a part.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    write_whole(path, record.to_json())
