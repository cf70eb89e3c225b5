"""From what the workers answered to a record: summaries, ratios against PyTorch, the paper and the roof."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from edgetrack.benchmark import cautions
from edgetrack.benchmark.cautions import Code
from edgetrack.benchmark.entries import Entry, Plan, RooflineEntry, TrackerEntry
from edgetrack.benchmark.gpu_watch import is_gpu
from edgetrack.benchmark.latency import Latency, Rounds, fps, latency_of
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.messages import Kind, Slice
from edgetrack.benchmark.outcomes import burst_outcome, paced_outcome
from edgetrack.benchmark.record import (
    Caution,
    ContestantFailure,
    Fps,
    Latencies,
    MemoryUse,
    PytorchInterval,
    Result,
    RooflineRatio,
    SamplesMs,
    VersusPaper,
    VersusPytorch,
    Waterfall,
)
from edgetrack.benchmark.roofline import Roofline
from edgetrack.benchmark.soaking import soak_outcome
from edgetrack.bundle.manifest import Manifest
from edgetrack.stats.bootstrap import Ratio, ratio_of_medians
from edgetrack.telemetry.sources import Expectation
from edgetrack.telemetry.timeline import Energy, Timeline, energy_of

_SEED = 0
_NO_TIMELINE = Timeline(interval_s=0.0)
_NOTHING_EXPECTED = Expectation()


def failures(entries: Sequence[Entry]) -> list[ContestantFailure]:
    """Those that did not finish."""
    return [
        ContestantFailure(
            contestant=entry.label,
            error=type(entry.failure).__name__,
            message=str(entry.failure),
            rounds_done=entry.rounds_done,
        )
        for entry in entries
        if entry.failure is not None
    ]


def results(
    entries: Sequence[Entry],
    plan: Plan,
    machine: MachineRecord,
    timeline: Timeline = _NO_TIMELINE,
    expected: Expectation = _NOTHING_EXPECTED,
) -> list[Result]:
    """One result for each contestant that has not failed and was measured at least once.

    Args:
        entries: who took part.
        plan: how it was measured.
        machine: as it was before the first frame.
        timeline: what the sensors said meanwhile.
        expected: what the device's profile says.
    """
    roofs = {entry.precision: entry.roofline for entry in entries if isinstance(entry, RooflineEntry)}
    measured = {
        entry.label: entry
        for entry in entries
        if isinstance(entry, TrackerEntry) and entry.failure is None and entry.slices["track"]
    }
    general = (*cautions.of_machine(machine, plan.threads), *cautions.of_device(timeline, expected))
    found = [_result(entry, measured, roofs, plan, general) for entry in measured.values()]
    return [
        _with_scenario(result, entry, timeline, expected)
        for result, entry in zip(found, measured.values(), strict=True)
    ]


def _with_scenario(result: Result, entry: TrackerEntry, timeline: Timeline, expected: Expectation) -> Result:
    """The result with energy, what its scenario found, and the warnings that these call for."""
    scenario = entry.scenario
    paced = (
        paced_outcome(entry.paced, scenario.fps, unbroken=False)
        if scenario.name == "paced" and scenario.fps and entry.paced
        else None
    )
    burst = burst_outcome(entry.bursts, scenario, result.fps.track) if entry.bursts else None
    soak = soak_outcome(entry.paced, scenario, timeline, entry.label) if scenario.name == "soak" else None
    found = msgspec.structs.replace(
        result, energy=_energy(entry, timeline, expected.rails), paced=paced, burst=burst, soak=soak
    )
    own = [*cautions.of_run(timeline, entry.label, entry.kinds, expected), *cautions.of_deadlines(found)]
    return msgspec.structs.replace(found, warnings=[*found.warnings, *own])


def _energy(entry: TrackerEntry, timeline: Timeline, rails: tuple[str, ...]) -> dict[str, Energy]:
    known = {kind: energy_of(timeline, entry.label, kind, rails) for kind in entry.kinds}
    return {kind: energy for kind, energy in known.items() if energy is not None}


def _result(
    entry: TrackerEntry,
    measured: Mapping[str, TrackerEntry],
    roofs: Mapping[str, Roofline | None],
    plan: Plan,
    machine_cautions: tuple[Caution, ...],
) -> Result:
    contestant, manifest = entry.contestant, entry.contestant.manifest
    samples = _samples(entry)
    latencies = Latencies(
        model=latency_of(samples.model),
        track=latency_of(samples.track),
        camera=latency_of(samples.camera) if samples.camera else None,
    )
    reference = measured.get(contestant.reference or "")
    ratios, intervals = _versus_pytorch(entry, None if reference is entry else reference)
    roofline, roof_cautions = _roofline(manifest, latencies.model.p50, roofs.get(contestant.arithmetic))
    if not plan.scenario.compares:
        roof_cautions = []
    own = [*contestant.cautions, *cautions.of_latencies(latencies), *roof_cautions]
    if entry.never_rested:
        own.append(Code.NEVER_RESTED.caution(f"{entry.label} did not stop computing between its turns"))
    if contestant.reference is not None and reference is None:
        own.append(Code.NO_REFERENCE.caution(f"{contestant.reference} failed in this run"))
    speeds = _fps(latencies)
    return Result(
        bundle=contestant.name,
        tracker=manifest.tracker,
        target=manifest.target,
        precision=manifest.precision,
        hint=contestant.hint,
        weights=manifest.weights.origin,
        device=plan.device,
        threads=entry.loaded.threads if entry.loaded else plan.threads,
        versions=entry.loaded.versions if entry.loaded else {},
        latency_ms=latencies,
        fps=speeds,
        waterfall_ms=_waterfall(samples),
        memory_mb=MemoryUse(peak_rss=_peak(entry), gpu=entry.peak.gpu_mb if entry.peak else None),
        size_mb=contestant.size_mb,
        load_ms=entry.loaded.load_ms if entry.loaded else 0.0,
        first_ms=entry.loaded.first_ms if entry.loaded else 0.0,
        cores_busy=_cores_busy(entry.slices["track"]),
        vs_pytorch=ratios,
        vs_pytorch_interval=intervals,
        vs_paper=_versus_paper(manifest, speeds.track, on_gpu=is_gpu(plan.device)),
        roofline=roofline,
        warnings=[*machine_cautions, *own],
        samples_ms=samples,
    )


def _samples(entry: TrackerEntry) -> SamplesMs:
    def rounds(kind: Kind, pick: Callable[[Slice], list[float]]) -> Rounds:
        return [pick(piece) for piece in entry.slices[kind]]

    return SamplesMs(
        model=rounds("track", lambda piece: piece.graphs),
        track=rounds("track", track_ms),
        camera=rounds("camera", lambda piece: piece.whole),
        crop=rounds("track", lambda piece: piece.crop),
        decode=rounds("track", lambda piece: piece.decode),
        read=rounds("camera", lambda piece: piece.read),
    )


def track_ms(piece: Slice) -> list[float]:
    """Milliseconds of each frame by the papers' definition: crop, graphs and decode."""
    stages = zip(piece.crop, piece.graphs, piece.decode, strict=True)
    return [crop + graphs + decode for crop, graphs, decode in stages]


def _fps(latencies: Latencies) -> Fps:
    def of(latency: Latency | None) -> float | None:
        return fps(latency.p50) if latency is not None and latency.p50 > 0 else None

    return Fps(model=of(latencies.model), track=of(latencies.track), camera=of(latencies.camera))


def _waterfall(samples: SamplesMs) -> Waterfall:
    crop, decode = np.concatenate(samples.crop), np.concatenate(samples.decode)
    return Waterfall(
        crop=float(np.median(crop)),
        graphs=float(np.median(np.concatenate(samples.model))),
        decode=float(np.median(decode)),
        outside=float(np.median(crop + decode)),
        read=float(np.median(np.concatenate(samples.read))) if samples.read else None,
    )


def _peak(entry: TrackerEntry) -> float:
    return entry.peak.peak_rss_mb if entry.peak else 0.0


def _cores_busy(slices: Sequence[Slice]) -> float:
    wall = sum(piece.wall_s for piece in slices)
    return sum(piece.cpu_s for piece in slices) / wall if wall > 0 else 0.0


def _versus_pytorch(entry: TrackerEntry, reference: TrackerEntry | None) -> tuple[VersusPytorch, PytorchInterval]:
    if reference is None:
        return VersusPytorch(), PytorchInterval()
    ours, theirs = _samples(entry), _samples(reference)
    model, track = _ratio(theirs.model, ours.model), _ratio(theirs.track, ours.track)
    peak = _peak(reference)
    return (
        VersusPytorch(
            model=model.value if model else None,
            track=track.value if track else None,
            peak_rss=_peak(entry) / peak if peak > 0 else None,
        ),
        PytorchInterval(model=_bounds(model), track=_bounds(track)),
    )


def _ratio(theirs: Rounds, ours: Rounds) -> Ratio | None:
    """Over the rounds that both have; None where a stage is too short for the clock."""
    pairs = list(zip(theirs, ours, strict=False))
    if not all(min(a) > 0 and min(b) > 0 for a, b in pairs):
        return None
    return ratio_of_medians([a for a, _ in pairs], [b for _, b in pairs], rng=np.random.default_rng(_SEED))


def _bounds(ratio: Ratio | None) -> tuple[float, float] | None:
    return None if ratio is None or ratio.low is None or ratio.high is None else (ratio.low, ratio.high)


def _versus_paper(manifest: Manifest, ours: float | None, *, on_gpu: bool) -> VersusPaper:
    paper = manifest.paper
    stated = paper.gpu_fps if on_gpu else paper.cpu_fps
    if not stated:
        return VersusPaper()
    return VersusPaper(
        fps=stated,
        ratio=None if ours is None else ours / stated,
        cpu=None if on_gpu else paper.cpu or None,
        gpu=paper.gpu or None if on_gpu else None,
        source=paper.source or None,
    )


def _roofline(manifest: Manifest, p50: float, roof: Roofline | None) -> tuple[RooflineRatio, list[Caution]]:
    flops = sum(graph.flops for graph in manifest.graphs if graph.role == "step")
    rate = roof.gflops if roof is not None else None
    known = RooflineRatio(gflops=rate, precision=roof.precision if roof else None, engine=roof.engine if roof else None)
    if not rate:
        reason = roof.reason if roof is not None and roof.reason else "the roof was not measured"
        return known, [Code.NO_ROOFLINE.caution(reason)]
    if not flops:
        return known, [Code.NO_ROOFLINE.caution("the bundle does not say how many operations a frame takes")]
    limit = flops / (rate * 1e6)
    return (
        RooflineRatio(model=p50 / limit, limit_ms=limit, gflops=rate, precision=known.precision, engine=known.engine),
        [],
    )
