"""`edgetrack tune` from request to record: candidates, a race for time, accuracy for its winners, one advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from edgetrack.benchmark.config import DEFAULT_SOURCE
from edgetrack.benchmark.frames import memory_for_frames, prepare_frames
from edgetrack.benchmark.run import Environment
from edgetrack.box import Box
from edgetrack.capabilities import targets
from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.execution.ledger import plain_name
from edgetrack.evaluation.protocols.anchored import POINTS, Anchored
from edgetrack.io import ScratchFolder, check_output, read_bytes, write_whole
from edgetrack.media.sources import open_source
from edgetrack.resources import usable_cores
from edgetrack.runtime.found import FoundHere, find_here
from edgetrack.stats.quantile import quantile_bounds
from edgetrack.stats.race import Race
from edgetrack.system.machine import MachineRecord
from edgetrack.system.sampler import Expectation, Sampler
from edgetrack.system.timeline import energy_of
from edgetrack.tuning.accuracy import AccuracyCheck, AccuracyFinding
from edgetrack.tuning.advice import advice, undecided
from edgetrack.tuning.candidates import ExportAt, Machine, TuneCandidate, find_candidates, weights_of
from edgetrack.tuning.record import LeftOut, Standing, TimeRatio, TuneEntry, TuneRecord, TuneWishes
from edgetrack.tuning.workers import KEEP_FRAMES, KIND, RaceWorkers

WORK_FILE = "tuning.json"
MOST_ROUNDS = 1000
_ALPHA = 0.025


@dataclass(frozen=True)
class TuneRequest:
    """What to tune; see `edgetrack tune --help`.

    Attributes:
        given: trackers and bundles.
        dataset: what accuracy is measured on, where `wishes.max_drop` is set.
        max_time_s: of everything; a round, an export or the runs of a bundle that have begun are finished.
        places: where each target runs; None: wherever its package finds a device.
        profile: the device profile's name.
        exhaustive: measure every candidate in every round until the time is up, as a check on the race.
        restart: begin again instead of going on with the rounds of an unfinished tuning.
        folder: where unfinished tunings are kept.
    """

    given: tuple[str, ...]
    wishes: TuneWishes = field(default_factory=TuneWishes)
    dataset: Dataset | None = None
    max_time_s: float = 900.0
    source: str = DEFAULT_SOURCE
    box: Box | None = None
    places: Mapping[str, str] | None = None
    profile: str | None = None
    expected: Expectation = field(default_factory=Expectation)
    exhaustive: bool = False
    restart: bool = False
    output: Path | None = None
    overwrite: bool = False
    timeout_s: float = 120.0
    folder: Path = Path("out") / "tune"


def tune(
    request: TuneRequest,
    environment: Environment,
    export: ExportAt,
    found: Callable[[], Mapping[str, FoundHere]] = lambda: find_here(targets()),
) -> TuneRecord:
    """Find the fastest that meets the wishes.

    The record is saved after every round; after Ctrl-C, or where the time was up first, the same call goes on.

    Args:
        request: what to tune.
        environment: what is needed from outside; its `export` and targets are not used.
        export: makes a bundle that is missing.
        found: asks the installed packages what they find here.

    Raises:
        UsageError: nothing to race, bundles of several trackers or checkpoints, or an output that exists.
        EdgetrackError: a bundle or source that cannot be opened.
    """
    check_output(request.output, overwrite=request.overwrite)
    with open_source(request.source):  # before anything is exported
        pass
    before, begun = environment.look(), environment.clock.now_ns()

    def elapsed_s() -> float:
        return (environment.clock.now_ns() - begun) / 1e9

    environment.progress("asking the installed targets what they find here", 0, 0)
    machine = Machine(found(), before.nvidia_present or before.is_jetson, request.places, before.usable_cores or 0)
    left_out: list[LeftOut] = []
    candidates = find_candidates(
        request.given,
        machine,
        export=export,
        folder=environment.folder,
        left_out=left_out,
        time_left=lambda: elapsed_s() < request.max_time_s / 2,
    )
    with ScratchFolder() as scratch:
        scene = scratch / "scene"
        scene.mkdir()
        keep_mb = memory_for_frames(before.memory_available_mib, len(candidates))
        frames = prepare_frames(request.source, request.box, scene, keep_frames=KEEP_FRAMES, keep_mb=keep_mb)
        sensors = environment.sensors(request.expected.sources)
        with (
            Sampler(sensors.sources, missing=sensors.missing, power_mode=sensors.power_mode) as sampler,
            RaceWorkers(
                candidates, frames, request.timeout_s, environment.start, environment.progress, sampler
            ) as workers,
        ):
            workers.open()
            run = Tuning(request, environment, before, candidates, workers, sampler, left_out, elapsed_s)
            with suppress(KeyboardInterrupt):
                run.run()
            return run.save()


class Tuning:
    """A race with its accuracy checks; arguments as `tune` makes them.

    Attributes:
        race: who is how fast.
        refused: label -> which wish it does not meet.
        accuracy: what was found of each variant.
    """

    def __init__(
        self,
        request: TuneRequest,
        environment: Environment,
        machine: MachineRecord,
        candidates: list[TuneCandidate],
        workers: RaceWorkers,
        sampler: Sampler,
        left_out: list[LeftOut],
        elapsed_s: Callable[[], float],
    ) -> None:
        self.request, self.environment, self.machine = request, environment, machine
        self.candidates = {one.label: one for one in candidates}
        self.workers, self.sampler, self.left_out = workers, sampler, left_out
        self._elapsed_s = elapsed_s
        self._date = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        first = candidates[0].bundle
        self.system, self.weights = first.manifest.system, weights_of(first)
        at = "" if request.profile is None else f"@{request.profile}"
        self.work_file = request.folder / f"{plain_name(self.system)}{at}" / WORK_FILE
        self.refused: dict[str, str] = {}
        self.accuracy: dict[str, AccuracyFinding] = {}
        self._race_s, self.rounds_ms = self._resumed()
        medians: list[Mapping[str, float]] = [_medians(one) for one in self.rounds_ms]
        self.race = Race(list(self.candidates), self._rank, request.wishes.margin, rounds=medians)
        for label in self.candidates:
            self._check_process(label)
        self._check = self._accuracy_check()

    def run(self) -> None:
        """Race; whoever wins must meet the wishes, or the race goes on without it."""
        request, race = self.request, self.race
        while race.alive:
            to_measure = any(map(self._is_open, race.alive))
            left = self._seconds_left()
            self._run_rounds(left / 2 if to_measure else left)
            if not race.alive:
                return
            pick = race.pick
            if self._too_slow(pick, request.wishes.fps) or self._too_inaccurate(pick):
                continue
            enough = self._seconds_left() <= 0 or len(self.rounds_ms) >= MOST_ROUNDS
            if enough or (race.decided and not request.exhaustive):
                return

    def _run_rounds(self, seconds: float) -> None:
        """Rounds until the race is decided or the time is over; one at least where a candidate has none yet.

        A race that is resumed may have got a candidate since: nothing can be said of it before it ran.
        """
        race, begun, latest = self.race, self._elapsed_s(), 0.0
        while race.alive and not (race.decided and not self.request.exhaustive):
            spent = self._elapsed_s() - begun
            enough = len(self.rounds_ms) >= MOST_ROUNDS or spent + latest >= seconds
            if enough and (latest or all(any(label in one for one in self.rounds_ms) for label in race.alive)):
                break
            labels = list(self.workers.runners) if self.request.exhaustive else race.alive
            self.environment.progress(f"round {len(self.rounds_ms) + 1}, {len(labels)} in the race", 0, 0)
            start = self._elapsed_s()
            measured = self.workers.round(labels)
            latest = self._elapsed_s() - start
            self._race_s += latest
            for label in self.workers.failures:
                self._check_process(label)
            if measured:
                self.rounds_ms.append(measured)
                race.add(_medians(measured))
                self.save()
        race.analyse()

    def _check_process(self, label: str) -> None:
        """Refuse a candidate whose process failed, or takes more memory than is wished for."""
        failure, most = self.workers.failures.get(label), self.request.wishes.max_memory_mb
        if failure is not None:
            self._refuse([label], f"{type(failure).__name__}: {failure}")
        elif most is not None and (peak := self.workers.runners[label].measurement.peak.peak_rss_mb) > most:
            self._refuse([label], f"its process takes {peak:.0f} MiB, more than {most:g}")

    def _too_slow(self, label: str, fps: float | None) -> str | None:
        if fps is None:
            return None
        rounds = [np.array(one[label]) for one in self.rounds_ms if label in one]
        found = quantile_bounds(rounds, 0.5, _ALPHA)
        if found.high is not None and found.high <= 1000 / fps:
            return None
        least = "-" if found.high is None else f"{1000 / found.high:.1f}"
        return self._refuse([label], f"it does {1000 / found.value:.1f} fps, at least {least}, less than {fps:g}")

    def _too_inaccurate(self, label: str) -> str | None:
        """Measure the variant of a candidate where that was not done; why it does not meet the wish."""
        one = self.candidates[label]
        if self._check is None or one.precision == "fp32":
            return None
        if one.variant not in self.accuracy:
            alone = self.candidates.get(replace(one, threads=1).label, one)
            frame_s = self._median_ms(alone.label) or self._median_ms(label) or 0.0
            self.accuracy[one.variant] = self._check.judge(one.bundle, frame_s / 1000)
        found = self.accuracy[one.variant]
        if found.verdict == "kept":
            return None
        labels = [other.label for other in self.candidates.values() if other.variant == one.variant]
        return self._refuse(labels, found.describe())

    def _refuse(self, labels: list[str], reason: str) -> str:
        for label in labels:
            self.refused.setdefault(label, reason)
            self.race.refuse(label)
        return reason

    def _accuracy_check(self) -> AccuracyCheck | None:
        dataset, drop = self.request.dataset, self.request.wishes.max_drop
        if dataset is None or drop is None:
            return None
        exact = [one.bundle for one in self.candidates.values() if one.precision == "fp32"]
        if not exact:
            raise EdgetrackError("no FP32 bundle takes part that AO could be compared with; give one, too")
        config = EvalConfig(dataset=dataset, jobs=usable_cores(), threads=1, anchors=Anchored())
        return AccuracyCheck(
            exact[0], config, drop / POINTS, self._seconds_left, self._elapsed_s, self.environment.progress
        )

    def _rank(self, label: str) -> tuple[int, int, int, str]:
        """Of equals: fewer threads, then a higher precision, then less memory (in steps that are no noise)."""
        one, runner = self.candidates[label], self.workers.runners.get(label)
        peak = 0.0 if runner is None else runner.measurement.peak.peak_rss_mb
        return one.threads, one.precision_rank, round(peak / 10), label

    def _median_ms(self, label: str) -> float | None:
        values = [ms for one in self.rounds_ms for ms in one.get(label, ())]
        return median(values) if values else None

    def _seconds_left(self) -> float:
        return max(0.0, self.request.max_time_s - self._elapsed_s())

    def _resumed(self) -> tuple[float, list[dict[str, list[float]]]]:
        """The rounds of an unfinished tuning of the same bundles on the same machine and frames."""
        if self.request.restart or not self.work_file.is_file():
            return 0.0, []
        kept = TuneRecord.from_json(read_bytes(self.work_file), source=str(self.work_file))
        same = (kept.machine.kind, kept.source.spec, kept.exhaustive) == (
            self.machine.kind,
            self.request.source,
            self.request.exhaustive,
        )
        if kept.complete or not same:
            return 0.0, []
        digests = {one.label: one.digest for one in kept.entries}
        mine = {
            label
            for label, one in self.candidates.items()
            if digests.get(label) == one.bundle.manifest.digest and label in self.workers.runners
        }
        rounds = [{label: ms for label, ms in one.items() if label in mine} for one in kept.rounds_ms]
        self.environment.notify(f"going on with {len(rounds)} rounds of {kept.date}; --restart begins again")
        return kept.race_seconds, [one for one in rounds if one]

    def save(self) -> TuneRecord:
        """The record as it is now, also on disk."""
        record = self._record()
        self.work_file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.work_file, record.to_json())
        if self.request.output is not None:
            write_whole(self.request.output, record.to_json())
        return record

    def _record(self) -> TuneRecord:
        race, fastest = self.race, self.race.leader if self.race.alive and self.rounds_ms else None
        pick = race.pick if fastest is not None else None
        entries = [self._entry(one, fastest, pick) for one in self.candidates.values()]
        entries = sorted(_with_front(entries, self.candidates), key=lambda one: one.track_ms or float("inf"))
        unproven = pick is not None and self._is_open(pick)
        record = TuneRecord(
            complete=False,
            date=self._date,
            machine=self.machine,
            profile=self.request.profile,
            system=self.system,
            weights=self.weights,
            source=self.workers.frames.note,
            wishes=self.request.wishes,
            entries=entries,
            left_out=self.left_out,
            recommended=None if unproven else pick,
            advice=[],
            undecided=undecided(race, self.accuracy, self._round_s()) if fastest is not None else [],
            exhaustive=self.request.exhaustive,
            seconds=self._elapsed_s(),
            race_seconds=self._race_s,
            rounds_ms=self.rounds_ms,
        )
        open_ = any(one.more_s is not None for one in record.undecided)
        complete = bool(self.rounds_ms) and not unproven and not open_
        return msgspec.structs.replace(record, complete=complete, advice=advice(record, self.candidates))

    def _is_open(self, label: str) -> bool:
        """Whether accuracy is asked for and this one's was not measured yet."""
        one = self.candidates[label]
        return self._check is not None and one.precision != "fp32" and one.variant not in self.accuracy

    def _round_s(self) -> float:
        """About how long a round of those alive takes."""
        return self._race_s / max(1, len(self.rounds_ms))

    def _entry(self, one: TuneCandidate, fastest: str | None, pick: str | None) -> TuneEntry:
        race, runner = self.race, self.workers.runners.get(one.label)
        ratio = race.ratio(one.label, fastest) if fastest is not None else None
        standing: Standing = "undecided"
        reason = self.refused.get(one.label, "")
        if one.label in self.workers.failures:
            standing = "failed"
        elif one.label in race.refused:
            accuracy = self.accuracy.get(one.variant)
            open_ = accuracy is not None and accuracy.verdict == "undecided" and reason == accuracy.describe()
            standing = "unproven" if open_ else "refused"
        elif one.label == pick:
            standing = "recommended"
        elif one.label in race.beaten:
            standing, (by, ratio) = "slower", race.beaten[one.label]
            reason = f"than {by}"
        elif pick is not None and race.equals(one.label):
            standing = "equal"
        power = energy_of(self.sampler.timeline(), one.label, KIND, self.request.expected.rails)
        found, manifest = self.accuracy.get(one.variant), one.bundle.manifest
        measured = None if runner is None else runner.measurement
        return TuneEntry(
            label=one.label,
            bundle=one.bundle.name,
            path=str(one.bundle.path),
            digest=manifest.digest,
            target=manifest.target,
            precision=manifest.precision,
            hint=one.bundle.hint,
            device=one.bundle.device or "cpu",
            threads=one.threads,
            size_mb=one.bundle.size_mb,
            peak_rss_mb=measured.peak.peak_rss_mb if measured else None,
            gpu_mb=measured.peak.gpu_mb if measured else None,
            load_ms=measured.loaded.load_ms if measured else None,
            versions=measured.loaded.versions if measured else {},
            rounds=sum(one.label in times for times in self.rounds_ms),
            track_ms=self._median_ms(one.label),
            mj_per_frame=None if power is None else power.mj_per_frame,
            versus_fastest=None
            if ratio is None or not ratio.rounds
            else TimeRatio(value=ratio.value, low=ratio.low, high=ratio.high),
            standing=standing,
            reason=reason,
            ao=None if found is None else found.difference,
        )


def _medians(measured: Mapping[str, list[float]]) -> dict[str, float]:
    return {label: median(ms) for label, ms in measured.items()}


def _with_front(entries: list[TuneEntry], candidates: Mapping[str, TuneCandidate]) -> list[TuneEntry]:
    """Mark those that no other surpasses in time, memory and precision at once."""
    known = {
        one.label: (one.track_ms, one.peak_rss_mb, candidates[one.label].precision_rank)
        for one in entries
        if one.track_ms is not None and one.peak_rss_mb is not None
    }

    def behind(label: str) -> bool:
        own = known[label]
        return any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in known.values())

    return [msgspec.structs.replace(one, front=one.label in known and not behind(one.label)) for one in entries]
