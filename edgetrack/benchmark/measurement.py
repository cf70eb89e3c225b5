"""The benchmark's side of each worker: what it is asked, what it answered, and the results made from that."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from edgetrack.benchmark import protocol, warnings
from edgetrack.benchmark.candidates import Candidate
from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.latency import Rounds, fps, latency_of
from edgetrack.benchmark.protocol import Attainable, Loaded, Measure, PeakMemory, Roofline, RoundSamples, Worker
from edgetrack.benchmark.record import (
    BenchResult,
    CandidateFailure,
    Fps,
    Latencies,
    MemoryUse,
    PytorchInterval,
    RooflineRatio,
    SamplesMs,
    VersusPaper,
    VersusPytorch,
    Waterfall,
)
from edgetrack.benchmark.scenarios import scenario_of
from edgetrack.benchmark.warnings import BenchWarning, WarningCode
from edgetrack.bundle.manifest import Manifest
from edgetrack.device_name import is_cuda
from edgetrack.errors import EdgetrackError
from edgetrack.runtime.trackers.base import find_procedure
from edgetrack.stats.bootstrap import Ratio, ratio_of_medians
from edgetrack.system.machine import MachineRecord
from edgetrack.system.sampler import Expectation
from edgetrack.system.timeline import Timeline, energy_of

_WARMUP_FRAMES = 10
_DISCARDED = 5
"""Warm-up frames of each round: at least these bring back the caches after another candidate's turn."""
_MEMORY_FRAMES = 30
_LONGEST_PROBE_S = 0.5
_LIMIT_S = 15.0
_BUSY = WarningCode.BUSY_MACHINE.warning("").code
_SEED = 0
_NO_TIMELINE = Timeline(interval_s=0.0)
_NOTHING_EXPECTED = Expectation()


@dataclass
class Measurement(abc.ABC):
    """One worker's part in the benchmark; `failure` ends it.

    Attributes:
        config: how to measure, resolved.
        timeout_s: longest wait for one answer.
        failure: why it did not finish.
        never_idle: whether its process computed while it was not asked to.
        rounds_done: complete rounds.
    """

    config: BenchConfig
    timeout_s: float
    failure: EdgetrackError | None = field(default=None, init=False)
    never_idle: bool = field(default=False, init=False)
    rounds_done: int = field(default=0, init=False)

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What it is called in progress, notes and the record."""

    @property
    @abc.abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """What each round measures of it."""

    @abc.abstractmethod
    def open(self, worker: Worker) -> None:
        """Load what is measured, and ask all that is asked only once."""

    @abc.abstractmethod
    def warm_up(self, worker: Worker) -> None:
        """Run, and discard the samples."""

    @abc.abstractmethod
    def measure(self, worker: Worker, kind: str) -> RoundSamples | None:
        """Run and keep one round of one of `kinds`; its samples, where there are any."""


@dataclass
class CandidateMeasurement(Measurement):
    """A bundle's answers: `loaded` and `peak` once it is open, `rounds` with the samples by kind, in their order."""

    candidate: Candidate
    frames: BenchFrames
    loaded: Loaded = field(init=False)
    peak: PeakMemory = field(init=False)
    rounds: dict[str, list[RoundSamples]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.scenario = scenario_of(self.config)

    @property
    def label(self) -> str:
        return self.candidate.label

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.candidate.device or self.config.device

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.scenario.kinds

    @property
    def track(self) -> list[RoundSamples]:
        """The rounds that make the model and track speeds."""
        return self.rounds.get(self.scenario.track_kind, [])

    @property
    def camera(self) -> list[RoundSamples]:
        """The rounds that make the camera speed."""
        return self.rounds.get("camera", [])

    @property
    def camera_ahead(self) -> list[RoundSamples]:
        """The rounds that make the camera speed of frames that are read ahead."""
        return self.rounds.get("camera_ahead", [])

    @property
    def discarded(self) -> int:
        """Warm-up frames of each round, also those that fill a memory of past frames.

        PyTorch's reference reads the entries that there are, a graph of fixed shape masks those that are not: on a
        memory that is not full yet the one does less work than ever again, the other as much.
        """
        manifest = self.candidate.manifest
        estimate = find_procedure(manifest).memory_estimate(manifest)
        return max(_DISCARDED, 0 if estimate is None else estimate.schedule.full_at - 1)

    def open(self, worker: Worker) -> None:
        request = protocol.Load(
            **{**msgspec.structs.asdict(self.config), "device": self.device},
            bundle=str(self.candidate.path),
            hint=self.candidate.hint,
            source=self.frames.path,
            box=self.frames.note.box,
            keep_frames=self.frames.keep_frames,
            keep_mb=self.frames.keep_mb,
        )
        self.loaded = worker.ask(request, Loaded, self.timeout_s)
        self.peak = worker.ask(protocol.Memory(_MEMORY_FRAMES), PeakMemory, self.timeout_s)

    def warm_up(self, worker: Worker) -> None:
        request = Measure("track", self.config.warmup_s, _WARMUP_FRAMES, 0)
        worker.ask(request, RoundSamples, self.timeout_s + self.config.warmup_s)

    def measure(
        self, worker: Worker, kind: str, *, seconds: float | None = None, frames: int | None = None
    ) -> RoundSamples:
        """Run and keep one round; `seconds` and `frames` are the config's where they are left out."""
        seconds = self.config.round_s if seconds is None else seconds
        request = Measure(kind, seconds, frames or self.config.round_frames, self.discarded)
        found = worker.ask(request, RoundSamples, self.timeout_s + seconds + self.scenario.extra_wait_s(kind))
        self.rounds.setdefault(kind, []).append(found)
        return found


@dataclass
class RooflineMeasurement(Measurement):
    """The machine's peak throughput at one precision; it takes its turns among the `track` rounds."""

    precision: str
    roofline: Roofline | None = field(default=None, init=False)

    @property
    def label(self) -> str:
        return f"roofline {self.precision}"

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("track",)

    def open(self, worker: Worker) -> None:
        worker.ask(protocol.LoadRoofline(self.precision, self.config.threads), protocol.Ready, self.timeout_s)

    def warm_up(self, worker: Worker) -> None:
        self._probe(worker)

    def measure(self, worker: Worker, kind: str) -> None:
        self._probe(worker)

    def _probe(self, worker: Worker) -> None:
        request = protocol.Probe(min(_LONGEST_PROBE_S, self.config.round_s))
        self.roofline = worker.ask(request, protocol.Rate, self.timeout_s).roofline


@dataclass
class LimitMeasurement(Measurement):
    """A candidate's attainable limit; measured once, before the rounds, on the machine as it was then."""

    candidate: Candidate
    machine: MachineRecord
    attainable: Attainable = field(default_factory=Attainable, init=False)

    @property
    def label(self) -> str:
        return f"attainable limit of {self.candidate.label}"

    @property
    def kinds(self) -> tuple[str, ...]:
        return ()

    def open(self, worker: Worker) -> None:
        request = protocol.Attain(
            bundle=str(self.candidate.path),
            hint=self.candidate.hint,
            device=self.candidate.device or self.config.device,
            threads=self.config.threads,
            seconds=_LIMIT_S,
            processor=self.machine.processor,
            busy=any(one.code == _BUSY for one in warnings.of_machine(self.machine, 0)),
        )
        self.attainable = worker.ask(request, protocol.Attained, self.timeout_s + _LIMIT_S).attainable

    def warm_up(self, worker: Worker) -> None:
        """Nothing is left to do."""

    def measure(self, worker: Worker, kind: str) -> None:
        """Nothing is left to do."""


def failures(measurements: Sequence[Measurement]) -> list[CandidateFailure]:
    """Those that did not finish."""
    return [
        CandidateFailure(
            candidate=one.label,
            error=type(one.failure).__name__,
            message=str(one.failure),
            rounds_done=one.rounds_done,
        )
        for one in measurements
        if one.failure is not None
    ]


def results(
    measurements: Sequence[Measurement],
    machine: MachineRecord,
    timeline: Timeline = _NO_TIMELINE,
    expected: Expectation = _NOTHING_EXPECTED,
) -> list[BenchResult]:
    """One result for each candidate that has not failed and was measured at least once.

    Args:
        measurements: of all candidates, of the rooflines and of the limits.
        machine: as it was before the first frame.
        timeline: the sensors' readings.
        expected: what the device's profile says.
    """
    rooflines = {one.precision: one.roofline for one in measurements if isinstance(one, RooflineMeasurement)}
    measured = {
        one.label: one
        for one in measurements
        if isinstance(one, CandidateMeasurement) and one.failure is None and one.track
    }
    limits = {one.candidate.label: one.attainable for one in measurements if isinstance(one, LimitMeasurement)}
    found = [_result(one, measured, rooflines, machine, timeline, expected) for one in measured.values()]
    return [msgspec.structs.replace(one, attainable=_versus(limits.get(one.label), one)) for one in found]


def _versus(limit: Attainable | None, result: BenchResult) -> Attainable | None:
    """A limit with the result's ratio to it."""
    if limit is None or not limit.limit_ms:
        return limit
    return msgspec.structs.replace(limit, model=result.latency_ms.model.p50 / limit.limit_ms)


def _result(
    own: CandidateMeasurement,
    measured: Mapping[str, CandidateMeasurement],
    rooflines: Mapping[str, Roofline | None],
    machine: MachineRecord,
    timeline: Timeline,
    expected: Expectation,
) -> BenchResult:
    candidate, manifest, config, scenario = own.candidate, own.candidate.manifest, own.config, own.scenario
    samples = _samples(own)
    latencies = Latencies(
        model=latency_of(samples.model),
        track=latency_of(samples.track),
        camera=latency_of(samples.camera) if samples.camera else None,
        camera_ahead=latency_of(samples.camera_ahead) if samples.camera_ahead else None,
    )
    reference = measured.get(candidate.reference or "")
    ratios, intervals = _versus_pytorch(own, None if reference is own else reference)
    roofline, roofline_warnings = _versus_roofline(manifest, latencies.model.p50, rooflines.get(candidate.arithmetic))
    found = [
        *warnings.of_machine(machine, config.threads),
        *warnings.of_device(timeline, expected),
        *candidate.warnings,
        *warnings.of_latencies(latencies.track, latencies.camera),
        *(roofline_warnings if scenario.compares else []),
    ]
    if own.never_idle:
        found.append(WarningCode.NEVER_RESTED.warning(f"{own.label} did not stop computing between its rounds"))
    if candidate.reference is not None and reference is None:
        found.append(WarningCode.NO_REFERENCE.warning(f"{candidate.reference} failed in this run"))
    energy = {kind: energy_of(timeline, own.label, kind, expected.rails) for kind in own.kinds}
    speeds = Fps(
        **{
            name: fps(one.p50) if one is not None and one.p50 > 0 else None
            for name in ("model", "track", "camera", "camera_ahead")
            for one in [getattr(latencies, name)]
        }
    )
    wall_s = sum(one.wall_s for one in own.track)
    result = BenchResult(
        bundle=candidate.name,
        tracker=manifest.tracker,
        target=manifest.target,
        precision=manifest.precision,
        hint=candidate.hint,
        weights=manifest.weights.origin,
        device=own.device,
        threads=own.loaded.threads,
        versions=own.loaded.versions,
        latency_ms=latencies,
        fps=speeds,
        waterfall_ms=_waterfall(samples),
        memory_mb=MemoryUse(peak_rss=own.peak.peak_rss_mb, gpu=own.peak.gpu_mb),
        size_mb=candidate.size_mb,
        load_ms=own.loaded.load_ms,
        first_ms=own.loaded.first_ms,
        cores_busy=sum(one.cpu_s for one in own.track) / wall_s if wall_s > 0 else 0.0,
        vs_pytorch=ratios,
        vs_pytorch_interval=intervals,
        vs_paper=_versus_paper(manifest, speeds.track, own.peak.peak_rss_mb, on_gpu=is_cuda(own.device)),
        roofline=roofline,
        warnings=found,
        samples_ms=samples,
        overrides=manifest.overrides,
        placement=own.loaded.placement,
        thread_race=own.loaded.thread_race,
        energy={kind: one for kind, one in energy.items() if one is not None},
    )
    result = msgspec.structs.replace(result, **scenario.summarize(result, own.rounds, timeline))
    late = [*warnings.of_run(timeline, own.label, own.kinds, expected), *scenario.warnings(result)]
    return msgspec.structs.replace(result, warnings=[*found, *late])


def _samples(own: CandidateMeasurement) -> SamplesMs:
    return SamplesMs(
        model=[one.graphs for one in own.track],
        track=[one.track for one in own.track],
        camera=[one.whole for one in own.camera],
        crop=[one.crop for one in own.track],
        decode=[one.decode for one in own.track],
        read=[one.read for one in own.camera],
        camera_ahead=[one.whole for one in own.camera_ahead],
    )


def _waterfall(samples: SamplesMs) -> Waterfall:
    crop, decode = np.concatenate(samples.crop), np.concatenate(samples.decode)
    return Waterfall(
        crop=float(np.median(crop)),
        graphs=float(np.median(np.concatenate(samples.model))),
        decode=float(np.median(decode)),
        outside=float(np.median(crop + decode)),
        read=float(np.median(np.concatenate(samples.read))) if samples.read else None,
    )


def _versus_pytorch(
    own: CandidateMeasurement, reference: CandidateMeasurement | None
) -> tuple[VersusPytorch, PytorchInterval]:
    if reference is None:
        return VersusPytorch(), PytorchInterval()
    ours, theirs = _samples(own), _samples(reference)
    model, track = _ratio(theirs.model, ours.model), _ratio(theirs.track, ours.track)
    peak = reference.peak.peak_rss_mb
    ratios = VersusPytorch(
        model=model.value if model else None,
        track=track.value if track else None,
        peak_rss=own.peak.peak_rss_mb / peak if peak > 0 else None,
    )
    return ratios, PytorchInterval(model=_ends(model), track=_ends(track))


def _ratio(theirs: Rounds, ours: Rounds) -> Ratio | None:
    """Over the rounds that both have; None where a stage is too short for the clock."""
    pairs = list(zip(theirs, ours, strict=False))
    if not all(min(a) > 0 and min(b) > 0 for a, b in pairs):
        return None
    return ratio_of_medians([a for a, _ in pairs], [b for _, b in pairs], rng=np.random.default_rng(_SEED))


def _ends(ratio: Ratio | None) -> tuple[float, float] | None:
    return None if ratio is None or ratio.low is None or ratio.high is None else (ratio.low, ratio.high)


def _versus_paper(manifest: Manifest, ours: float | None, peak_mb: float, *, on_gpu: bool) -> VersusPaper:
    paper = manifest.paper
    named = paper.gpu_fps if on_gpu else paper.cpu_fps
    stated = named or paper.fps
    if not (stated or paper.memory_gb):
        return VersusPaper()
    return VersusPaper(
        fps=stated,
        ratio=None if ours is None or not stated else ours / stated,
        cpu=None if on_gpu or not named else paper.cpu or None,
        gpu=paper.gpu or None if on_gpu and named else None,
        memory_gb=paper.memory_gb,
        memory_ratio=peak_mb * 2**20 / 1e9 / paper.memory_gb if paper.memory_gb else None,
        source=paper.source or None,
    )


def _versus_roofline(
    manifest: Manifest, p50: float, roofline: Roofline | None
) -> tuple[RooflineRatio, list[BenchWarning]]:
    flops = sum(graph.flops for graph in manifest.graphs if graph.role == "step")
    if roofline is None or not roofline.gflops:
        reason = roofline.reason if roofline is not None and roofline.reason else "the roofline was not measured"
        known = RooflineRatio(precision=roofline.precision, engine=roofline.engine) if roofline else RooflineRatio()
        return known, [WarningCode.NO_ROOFLINE.warning(reason)]
    known = RooflineRatio(gflops=roofline.gflops, precision=roofline.precision, engine=roofline.engine)
    if not flops:
        reason = "the bundle does not say how many operations a frame takes"
        return known, [WarningCode.NO_ROOFLINE.warning(reason)]
    limit = flops / (roofline.gflops * 1e6)
    return msgspec.structs.replace(known, model=p50 / limit, limit_ms=limit), []
