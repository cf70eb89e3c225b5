"""`edgetrack bench` from request to record: candidates on the same frames, in interleaved rounds, saved after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import msgspec

from edgetrack import capabilities, errors
from edgetrack.benchmark.candidates import (
    OUTPUT_FOLDER,
    Candidate,
    Export,
    Notify,
    add_references,
    choose,
    on_device,
    require_gpu,
)
from edgetrack.benchmark.config import BenchConfig, BenchRequest
from edgetrack.benchmark.frames import BenchFrames, memory_for_frames, prepare_frames
from edgetrack.benchmark.measurement import (
    CandidateMeasurement,
    LimitMeasurement,
    Measurement,
    RooflineMeasurement,
    failures,
    results,
)
from edgetrack.benchmark.protocol import Start, Worker, WorkerProcess, start_worker
from edgetrack.benchmark.record import BenchRecord, save
from edgetrack.benchmark.scenarios import find_scenario, resolve
from edgetrack.capabilities import Target
from edgetrack.device_name import is_cuda
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.io import ScratchFolder
from edgetrack.media.sources import open_source
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.system.clock import Clock, MonotonicClock
from edgetrack.system.gpu import GpuWatch, Watch
from edgetrack.system.machine import MachineRecord, collect
from edgetrack.system.sampler import Sampler, Sensors, SourceName, find_sensors
from edgetrack.system.timeline import Window

_T = TypeVar("_T")


def no_export(
    tracker: str | None, target: str, output: Path | None, weights: str | None, overrides: Sequence[str]
) -> Path:
    """Export nothing.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"a bundle of {tracker or 'the default tracker'} for {target} is missing; export it first")


def this_machine() -> MachineRecord:
    """This machine, with the versions of every target's packages."""
    return collect(capabilities.recorded_packages())


@dataclass(frozen=True)
class Environment:
    """What `bench` and `check` need from outside.

    Attributes:
        export: makes a bundle, see `candidates.Export`.
        notify, progress: tell people.
        start: starts a worker.
        look: reads the machine's record.
        sensors: opens what telemetry is read from.
        best_target, reference_target: rows of the capability table.
        watch: opens a GPU's driver.
        clock: of time limits.
        folder: where bundles are looked for.
    """

    export: Export = no_export
    notify: Notify = lambda line: None
    progress: Progress = no_progress
    start: Start = start_worker
    look: Callable[[], MachineRecord] = this_machine
    sensors: Callable[[Sequence[SourceName] | None], Sensors] = find_sensors
    best_target: Callable[[str | None], Target] = capabilities.best_target
    reference_target: Callable[[], Target] = capabilities.reference_target
    watch: Watch = GpuWatch
    clock: Clock = field(default_factory=MonotonicClock)
    folder: Path = OUTPUT_FOLDER


def measure(request: BenchRequest, environment: Environment) -> BenchRecord:
    """Measure bundles and compare them with each other, their PyTorch reference and the machine's roofline.

    The record is written to `request.output` after each round. Ctrl-C ends the measurement early: what there is by then
    is saved and returned, with `complete` false.

    Raises:
        UsageError: a request that cannot be followed, or an output that exists.
        DeviceUnavailableError: neither the CPU nor a CUDA device, or a GPU where there is none.
        EdgetrackError: a bundle or source that cannot be opened. A candidate that fails later only fails itself.
    """
    began = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    config = resolve(request.config)
    request.check()
    if request.reference is not None and not find_scenario(config.scenario).compares:
        raise UsageError(f"--reference has no use in the scenario {config.scenario}; leave it out")
    if request.attainable and not find_scenario(config.scenario).compares:
        raise UsageError(f"--attainable has no use in the scenario {config.scenario}; leave it out")
    before = environment.look()
    nvidia = before.nvidia_present or before.is_jetson
    if is_cuda(config.device) and not request.places:
        require_gpu(config.device, nvidia, environment.watch)
    with open_source(request.source):  # before a reference is exported for half a minute
        pass
    with ScratchFolder() as scratch:
        candidates = _candidates(request, config, environment, scratch, nvidia)
        scene = scratch / "scene"
        scene.mkdir()
        keep_mb = memory_for_frames(before.memory_available_mib, len(candidates))
        frames = prepare_frames(request.source, request.box, scene, keep_mb=keep_mb)
        measurements = _measurements(candidates, frames, config, request.timeout_s)
        if request.attainable:
            timed = [one for one in candidates if one.device in (None, "cpu")]
            measurements += [LimitMeasurement(config, request.timeout_s, one, before) for one in timed]
        devices = sorted({one.device or config.device for one in candidates})
        settings = msgspec.structs.replace(config, device=" and ".join(devices))
        found = environment.sensors(request.expected.sources)
        with Sampler(found.sources, missing=found.missing, power_mode=found.power_mode) as sampler:
            done = 0

            def record(rounds: int) -> BenchRecord:
                """The record after so many rounds, also on disk where an output was asked for."""
                nonlocal done
                done = rounds
                timeline = sampler.timeline()
                record = BenchRecord(
                    complete=rounds == config.rounds,
                    machine=before,
                    settings=settings,
                    source=frames.note,
                    results=results(measurements, before, timeline, request.expected),
                    failures=failures(measurements),
                    telemetry=timeline,
                    date=began,
                )
                if request.output is not None:
                    save(record, request.output)
                return record

            with suppress(KeyboardInterrupt):
                Runner(measurements, config.rounds, environment.start, environment.progress, sampler).run(record)
        return record(done)


def exit_code(record: BenchRecord) -> int:
    """0 where all candidates finished; that of their error where all failed by the same one; else 1."""
    kinds = {failure.error for failure in record.failures}
    if not kinds:
        return 0
    if record.results or len(kinds) > 1:
        return 1
    return int(getattr(getattr(errors, kinds.pop(), errors.EdgetrackError), "exit_code", 1))


def _candidates(
    request: BenchRequest, config: BenchConfig, environment: Environment, scratch: Path, nvidia: bool
) -> list[Candidate]:
    """The candidates with their references, as they are measured on the device.

    Args:
        nvidia: whether the machine's record has NVIDIA's driver.
    """
    candidates = choose(
        request.bundles,
        request.hint,
        export=environment.export,
        best_target=partial(environment.best_target, config.device),
        notify=environment.notify,
        folder=environment.folder,
        device=config.device,
        places=request.places,
        profile=config.profile,
    )
    for device in sorted({one.device for one in candidates if one.device is not None and is_cuda(one.device)}):
        require_gpu(device, nvidia, environment.watch)
    compares = find_scenario(config.scenario).compares
    if not compares and len(candidates) > 1:
        raise UsageError(
            f"{len(candidates)} bundles in the scenario {config.scenario}, where one would heat the device for the "
            "next: give one bundle"
        )
    reference = environment.reference_target() if request.with_reference and compares else None
    if reference is not None and not reference.runs_on(config.device):
        environment.notify(f"{reference.name} does not run on {config.device}: nothing is compared with it")
        reference = None
    if reference is not None:
        candidates = add_references(
            candidates,
            reference,
            given=request.reference,
            export=environment.export,
            scratch=scratch,
            notify=environment.notify,
            folder=environment.folder,
            device=request.places.get(reference.name, config.device),
        )
    return on_device(candidates, reference, environment.watch)


def _measurements(
    candidates: Sequence[Candidate], frames: BenchFrames, config: BenchConfig, timeout_s: float
) -> list[Measurement]:
    # The roofline is that of the processor, and a long run is not about it.
    on_cpu = [one for one in candidates if one.device in (None, "cpu")]
    compared = on_cpu if find_scenario(config.scenario).compares else []
    precisions = dict.fromkeys(candidate.arithmetic for candidate in compared)
    return [
        *(CandidateMeasurement(config, timeout_s, candidate, frames) for candidate in candidates),
        *(RooflineMeasurement(config, timeout_s, precision) for precision in precisions),
    ]


def order(candidates: Sequence[_T], round_number: int) -> list[_T]:
    """A B C in round 0, C B A in round 1, and so on: a machine that warms up slows all of them alike."""
    return list(candidates) if round_number % 2 == 0 else list(reversed(candidates))


class Runner:
    """Runs the workers of all candidates in rounds, never two at a time.

    Args:
        measurements: what to ask each worker; they keep the answers. Labels differ.
        rounds: how many.
        start: starts a worker.
        progress: is told of each step before it starts.
        sampler: is told when which candidate's frames ran, and reads its process's memory meanwhile.
    """

    def __init__(
        self,
        measurements: Sequence[Measurement],
        rounds: int,
        start: Start,
        progress: Progress,
        sampler: Sampler | None = None,
    ) -> None:
        if len({one.label for one in measurements}) != len(measurements):
            raise UsageError("two candidates have one name; give each bundle once")
        self._measurements = measurements
        self._rounds = rounds
        self._start = start
        self._progress = progress
        self._sampler = sampler
        self._workers: dict[str, Worker] = {}
        self._steps = count(1)
        self._total = sum(2 + len(one.kinds) * rounds for one in measurements)

    def run(self, after_round: Callable[[int], object]) -> None:
        """Load, warm up and measure all; one that fails is left out from there on, the others go on.

        Args:
            after_round: is told how many rounds are done, also 0 after the warm-up.
        """
        # Every kind of any candidate, in the order in which a round goes through them.
        kinds = dict.fromkeys(kind for one in self._measurements for kind in one.kinds)
        with ExitStack() as stack:
            for one in self._measurements:
                self._do(one, "loading", partial(self._open, stack, one))
            for one in self._measurements:
                self._do(one, "warming up", partial(self._warm_up, one))
            after_round(0)
            for number in range(self._rounds):
                if not self._workers:
                    return
                for kind in kinds:
                    title = f"round {number + 1}/{self._rounds}, {kind}"
                    for one in order([one for one in self._measurements if kind in one.kinds], number):
                        self._do(one, title, partial(self._measure, one, kind))
                for one in self._measurements:
                    one.rounds_done += one.failure is None
                after_round(number + 1)

    def _open(self, stack: ExitStack, one: Measurement) -> None:
        worker = self._start(one.label, one.config.threads)
        stack.callback(worker.close)
        self._workers[one.label] = worker
        one.open(worker)

    def _warm_up(self, one: Measurement) -> None:
        one.warm_up(self._workers[one.label])

    def _measure(self, one: Measurement, kind: str) -> None:
        """One round of one kind, put on the sensors' axis of time."""
        worker, sampler = self._workers[one.label], self._sampler
        if sampler is None:
            one.measure(worker, kind)
            return
        start = sampler.seconds()
        pid = worker.pid if isinstance(worker, WorkerProcess) else None
        with sampler.watch(one.label, pid) if pid is not None else nullcontext():
            found = one.measure(worker, kind)
        end = sampler.seconds()
        if found is not None:
            busy_s, device = min(found.wall_s, end - start), one.config.device
            sampler.add(Window(one.label, kind, start, end, busy_s, found.frames, device))

    def _do(self, one: Measurement, what: str, action: Callable[[], None]) -> None:
        """One step; afterwards the worker is idle before another one is timed."""
        self._progress(f"{what}: {one.label}", next(self._steps), self._total)
        if one.failure is not None:
            return
        try:
            action()
        except EdgetrackError as error:
            one.failure = error
            failed = self._workers.pop(one.label, None)
            if failed is not None:
                failed.close()
        else:
            one.never_idle |= not self._workers[one.label].wait_idle()
