"""`edgetrack bench` from options to a record: who takes part, on which frames, in rounds, saved after each."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgetrack import capabilities, errors
from edgetrack.benchmark import assemble, machine, record
from edgetrack.benchmark.entries import Entry, Plan, RooflineEntry, TrackerEntry
from edgetrack.benchmark.footage import DEFAULT_SOURCE, KEEP_FRAMES, KEEP_MB, Footage, stage
from edgetrack.benchmark.gpu import on_device, require_gpu
from edgetrack.benchmark.gpu_watch import GpuWatch, Watch, is_gpu
from edgetrack.benchmark.lineup import OUTPUT_FOLDER, Contestant, Export, Notify, choose
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.process import Start, start_worker
from edgetrack.benchmark.record import Record, Settings, SourceNote
from edgetrack.benchmark.references import add_references
from edgetrack.benchmark.runner import Progress, Runner
from edgetrack.benchmark.scenario import Scenario, choose_scenario
from edgetrack.benchmark.watching import Watcher
from edgetrack.box import Box
from edgetrack.capabilities import Target
from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.runtime.threads import usable_cores
from edgetrack.telemetry.sampler import Sampler
from edgetrack.telemetry.sources import Expectation, Sensors, SourceName, find_sensors

_MAX_ROUNDS = 1000
_DEVICES = re.compile(r"cpu|gpu|ane|all|cuda:\d{1,2}")


@dataclass(frozen=True)
class Options:
    """What `edgetrack bench` was asked for; see its help for what each option means.

    `rounds` is the scenario's own where it is None. `expected` and `profile` are of the device's profile.
    """

    bundles: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None
    scenario: str = "stream"
    fps: float | None = None
    streams: int | None = None
    warmup_s: float = 1.0
    duration_s: float = 6.0
    iterations: int = 150
    rounds: int | None = None
    timeout_s: float = 120.0
    source: str = DEFAULT_SOURCE
    box: Box | None = None
    hint: str | None = None
    reference: str | None = None
    with_reference: bool = True
    output: Path | None = None
    overwrite: bool = False
    profile: str | None = None
    expected: Expectation = field(default_factory=Expectation)


@dataclass(frozen=True)
class Surroundings:
    """What a benchmark needs from outside.

    Attributes:
        export: makes a bundle, see `lineup.Export`.
        notify, progress: tell people.
        start: starts a worker.
        look: reads the machine's record.
        sensors: opens what telemetry is read from.
        best_target, reference_target: rows of the capability table.
        watch: opens a GPU's driver.
        folder: where bundles are looked for.
    """

    export: Export
    notify: Notify
    progress: Progress
    start: Start = start_worker
    look: Callable[[], MachineRecord] = machine.collect
    sensors: Callable[[Sequence[SourceName] | None], Sensors] = find_sensors
    best_target: Callable[[str | None], Target] = capabilities.best_target
    reference_target: Callable[[], Target] = capabilities.reference_target
    watch: Watch = GpuWatch
    folder: Path = OUTPUT_FOLDER


def measure(options: Options, around: Surroundings) -> Record:
    """Measure bundles against each other, their PyTorch reference and the machine's roof.

    The record is written to `options.output` after each round. Ctrl-C ends the measurement early: what there is by then
    is saved and returned, with `complete` false.

    Raises:
        UsageError: options that cannot be followed, or an output that exists.
        DeviceUnavailableError: neither the CPU nor a CUDA device, or a GPU where there is none.
        EdgetrackError: a bundle or source that cannot be opened. A contestant that fails later only fails itself.
    """
    scenario = choose_scenario(options.scenario, options.fps, options.streams)
    _check(options, scenario)
    if is_gpu(options.device):
        require_gpu(options.device, around.look(), around.watch)
    with tempfile.TemporaryDirectory(prefix="edgetrack-bench-") as name:
        workshop = Path(name)
        contestants = on_device(
            _contestants(options, scenario, around, workshop),
            around.reference_target() if options.with_reference and scenario.compares else None,
            options.device,
            around.watch,
        )
        scene = workshop / "scene"
        scene.mkdir()
        footage = stage(options.source, options.box, scene)
        before = around.look()
        plan = _plan(options, scenario, before, len(contestants))
        entries = _entries(contestants, footage, plan)
        found = around.sensors(options.expected.sources)
        with Sampler(found.sources, missing=found.missing, power_mode=found.power_mode) as sampler:
            book = _Book(options, footage, before, plan, entries, sampler)
            with suppress(KeyboardInterrupt):
                Runner(entries, plan, around.start, around.progress, Watcher(sampler)).run(book.save)
        return book.save(book.done)


def exit_code(found: Record) -> int:
    """0 where all contestants finished; that of their error where all failed by the same one; else 1."""
    kinds = {failure.error for failure in found.failures}
    if not kinds:
        return 0
    if found.results or len(kinds) > 1:
        return 1
    return int(getattr(getattr(errors, kinds.pop(), errors.EdgetrackError), "exit_code", 1))


def _check(options: Options, scenario: Scenario) -> None:
    if not _DEVICES.fullmatch(options.device):
        raise DeviceUnavailableError(
            f"device {options.device!r} cannot be measured here; expected cpu, cuda:0, or gpu, ane or all for Core ML"
        )
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads {options.threads}: expected 1 or more")
    if options.rounds is not None and not 1 <= options.rounds <= _MAX_ROUNDS:
        raise UsageError(f"--rounds {options.rounds}: expected 1 to {_MAX_ROUNDS}")
    if options.iterations < 1:
        raise UsageError(f"--iterations {options.iterations}: expected 1 or more")
    for name, value in {"--warmup": options.warmup_s, "--duration": options.duration_s}.items():
        if not 0 <= value <= 86_400:
            raise UsageError(f"{name} {value}: expected seconds from 0 to 86400")
    if not 0 < options.timeout_s <= 86_400:
        raise UsageError(f"--timeout {options.timeout_s}: expected seconds above 0, up to 86400")
    if options.reference is not None and not options.with_reference:
        raise UsageError("--reference and --no-reference exclude each other; give one of them")
    if options.reference is not None and not scenario.compares:
        raise UsageError(f"--reference has no use in the scenario {scenario.name}; leave it out")
    check_output(options)


def check_output(options: Options) -> None:
    """See that nothing is overwritten unasked.

    Raises:
        UsageError: the output exists.
    """
    if options.output is not None and options.output.exists() and not options.overwrite:
        raise UsageError(f"{options.output} exists; give another --output, or --overwrite")


def _contestants(options: Options, scenario: Scenario, around: Surroundings, workshop: Path) -> list[Contestant]:
    contestants = choose(
        options.bundles,
        options.hint,
        export=around.export,
        best_target=partial(around.best_target, options.device),
        notify=around.notify,
        folder=around.folder,
        device=options.device,
    )
    if not scenario.compares and len(contestants) > 1:
        raise UsageError(
            f"{len(contestants)} bundles in the scenario {scenario.name}, where one would heat the device for the "
            "next: give one bundle"
        )
    if not options.with_reference or not scenario.compares:
        return contestants
    return add_references(
        contestants,
        around.reference_target(),
        given=options.reference,
        export=around.export,
        workshop=workshop,
        notify=around.notify,
        folder=around.folder,
    )


def _plan(options: Options, scenario: Scenario, before: MachineRecord, contestants: int) -> Plan:
    spare = before.memory_available_mib
    return Plan(
        device=options.device,
        threads=options.threads or usable_cores(),
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        iterations=options.iterations,
        rounds=options.rounds or scenario.rounds(options.duration_s),
        # All contestants stay loaded; half of the memory is for them, the rest for their frames.
        keep_mb=KEEP_MB if spare is None else min(KEEP_MB, spare / (2 * contestants)),
        keep_frames=KEEP_FRAMES,
        timeout_s=options.timeout_s,
        scenario=scenario,
    )


def _entries(contestants: Sequence[Contestant], footage: Footage, plan: Plan) -> list[Entry]:
    # The roof is that of the processor, and a long run is not about it.
    roofed = contestants if plan.device == "cpu" and plan.scenario.compares else []
    precisions = dict.fromkeys(contestant.arithmetic for contestant in roofed)
    return [
        *(TrackerEntry(contestant, footage, plan.scenario) for contestant in contestants),
        *(RooflineEntry(precision, plan.threads) for precision in precisions),
    ]


@dataclass
class _Book:
    """What is known so far, and where it is kept."""

    options: Options
    footage: Footage
    before: MachineRecord
    plan: Plan
    entries: list[Entry]
    sampler: Sampler
    done: int = 0

    def save(self, done: int) -> Record:
        """The record after `done` rounds, also on disk where an output was asked for."""
        self.done = done
        plan, footage = self.plan, self.footage
        timeline = self.sampler.timeline()
        found = Record(
            complete=done == plan.rounds,
            machine=self.before,
            settings=Settings(
                scenario=plan.scenario.name,
                device=plan.device,
                threads=plan.threads,
                warmup_s=plan.warmup_s,
                duration_s=plan.duration_s,
                iterations=plan.iterations,
                rounds=plan.rounds,
                fps=plan.scenario.fps,
                streams=plan.scenario.streams,
                profile=self.options.profile,
            ),
            source=SourceNote(spec=footage.given, size=footage.size, box=footage.box, camera=footage.about),
            results=assemble.results(self.entries, plan, self.before, timeline, self.options.expected),
            failures=assemble.failures(self.entries),
            telemetry=timeline,
        )
        if self.options.output is not None:
            try:
                record.save(found, self.options.output)
            except OSError as error:
                raise UsageError(f"{self.options.output} cannot be written: {error.strerror or error}") from error
        return found
