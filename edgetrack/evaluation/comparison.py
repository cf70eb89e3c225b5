"""Two bundles on one data set: in closed loop, each follows its own boxes; in open loop, both see the same crops.

The bundles never share a process, since two native runtimes in one process compete for OpenMP. First A tracks in a pool
of its own, then B; then A, and then B, are placed at A's boxes before every frame. In records B is compared with A;
overlaps are 0..1, and null means: not available.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from edgetrack.box import Box, center_distances, ious
from edgetrack.bundle.reader import BundleRef, bundle_label
from edgetrack.errors import UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.execution import collect
from edgetrack.evaluation.execution.ledger import RunLedger, SavedRun, key_of, plain_name, save
from edgetrack.evaluation.metrics import AGREEING, Divergence, divergence
from edgetrack.evaluation.protocols.anchored import Anchored, Difference, check_margin, paired_difference
from edgetrack.evaluation.protocols.one_pass import OnePass
from edgetrack.evaluation.protocols.open_loop import MapError, OpenLoop, OpenLoopRun, map_errors
from edgetrack.evaluation.results import EvalResult, SequenceFailure
from edgetrack.evaluation.run import summarize
from edgetrack.io import BAD_JSON, read_bytes
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.stats.bootstrap import two_level_interval

SUMMARY = "comparison.json"
MAPS = "open-loop"


class CompareSide(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle, and its AO over the compared sequences: one pass, and mean over short runs from anchors."""

    bundle: str
    hint: str | None
    tracker: str
    target: str
    precision: str
    weights: str
    ao: float | None
    anchored_ao: float | None

    @property
    def label(self) -> str:
        """Its name, with its hint where it has one."""
        return bundle_label(self.bundle, self.hint)


class OnePassDelta(msgspec.Struct, frozen=True, kw_only=True):
    """AO of B minus AO of A from one pass each; `low`, `high` bootstrapped over sequences, null with fewer than two."""

    value: float
    low: float | None
    high: float | None


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Each follows its own boxes; the first frame, in which both are given the same box, is left out.

    Attributes:
        mean_iou: of A's and B's boxes over all frames.
        iou_above_0_9: share of frames in which it is above 0.9 (`iou_above_0.9` in JSON).
        first_divergence: median, over the sequences that diverge, of the first frame with an IoU of 0.5 or less.
        diverged, recovered: how many sequences diverge, and how many of these come above 0.9 again and stay above 0.5.
        sequences: how many were compared.
    """

    mean_iou: float
    iou_above_0_9: float = msgspec.field(name="iou_above_0.9")
    first_divergence: float | None
    diverged: int
    recovered: int
    sequences: int


class OpenLoopErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Both placed at A's boxes before every frame.

    Attributes:
        box_error: mean of 1 - IoU of A's and B's boxes; center_px: mean distance of their centres in pixels.
        maps: errors of the maps that both have by name and shape; empty where they share none.
    """

    box_error: float
    center_px: float
    maps: list[MapError]


class SequencePair(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence.

    Attributes:
        frames: that both tracked; ao_a, ao_b: one pass, null where nothing is annotated.
        mean_iou, iou_above_0_9: as in `Agreement`, null for a single frame.
        first_divergence, recovery: see `Divergence`; frames counted from 0, null where there is no such frame.
        open_loop_error: mean of 1 - IoU on the same crops.
        iou: of A's and B's boxes in every frame.
    """

    name: str
    frames: int
    ao_a: float | None
    ao_b: float | None
    mean_iou: float | None
    iou_above_0_9: float | None = msgspec.field(name="iou_above_0.9")
    first_divergence: int | None
    recovery: int | None
    open_loop_error: float | None
    iou: list[float]


class CompareRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgetrack compare --json` prints.

    Attributes:
        a, b: the bundles.
        dataset, limit: its name, and frames of each sequence that were asked for.
        anchor_spacing, anchor_length: of the short runs.
        delta_ao: B minus A over paired short runs; null with fewer than two.
        one_pass: B minus A over whole sequences; null where nothing is annotated.
        agreement: null where no sequence has a second frame.
        open_loop: null where no sequence was tracked on the same crops.
        error_gain: mean of 1 - IoU in closed loop over that in open loop; null where the latter is 0.
        sequences: that both tracked; failures: `BUNDLE: SEQUENCE` and why.
    """

    schema: int = 1
    a: CompareSide
    b: CompareSide
    dataset: str
    limit: int | None
    threads: int
    anchor_spacing: int
    anchor_length: int
    delta_ao: Difference | None
    one_pass: OnePassDelta | None
    agreement: Agreement | None
    open_loop: OpenLoopErrors | None
    error_gain: float | None
    sequences: list[SequencePair]
    failures: list[SequenceFailure]


@dataclass(frozen=True)
class CompareConfig:
    """What to compare; see `edgetrack compare --help`.

    Attributes:
        a, b: the bundles.
        runs: how both are evaluated, with anchors; `output` None keeps runs where `eval` does.
        margin: difference of AO that counts as equal, 0..1.

    Raises:
        UsageError: a bundle is compared with itself, or the margin is below 0.
    """

    a: BundleRef
    b: BundleRef
    runs: EvalConfig
    margin: float

    def __post_init__(self) -> None:
        if (self.a.path, self.a.hint, self.a.device) == (self.b.path, self.b.hint, self.b.device):
            raise UsageError(
                f"{self.a.label} is compared with itself; give two bundles, or one with two hints or on two devices"
            )
        check_margin(self.margin)

    @property
    def folder(self) -> Path:
        """Where the comparison is kept."""
        names = f"{plain_name(self.a.label)}_vs_{plain_name(self.b.label)}"
        return self.runs.output or Path("out") / "compare" / names / plain_name(self.runs.dataset.name)


@dataclass(frozen=True)
class _Side:
    """A bundle, its runs from its own boxes and from anchors, and its runs on A's crops."""

    ref: BundleRef
    closed: RunLedger
    opened: RunLedger


def compare(config: CompareConfig, progress: Progress = no_progress) -> CompareRecord:
    """Compare; runs that are on disk already, also those of `edgetrack eval`, are taken from there.

    Raises:
        UsageError: the folder for maps cannot be made.
        BundleError, BackendMissingError, DeviceUnavailableError: a bundle cannot be opened or run here.
    """
    closed_a, closed_b = (_closed_loop(config, ref, progress) for ref in (config.a, config.b))
    boxes = {clip.name: run.boxes for clip, run in closed_a.of(OnePass)}
    # Maps take up to gigabytes: they stay for the next call after an interruption, and no longer.
    maps = config.folder / MAPS
    if config.runs.restart:
        shutil.rmtree(maps, ignore_errors=True)
    opened_a = _open_loop(config, config.a, boxes, maps / "a", progress)
    opened_b = _open_loop(config, config.b, boxes, maps / "b", progress)
    found = _summarize(_Side(config.a, closed_a, opened_a), _Side(config.b, closed_b, opened_b), config)
    save(found, config.folder / SUMMARY)
    shutil.rmtree(maps, ignore_errors=True)
    return found


def _closed_loop(config: CompareConfig, ref: BundleRef, progress: Progress) -> RunLedger:
    return collect(ref, runs_of(config, ref), _named(ref, progress))


def runs_of(config: CompareConfig, ref: BundleRef) -> EvalConfig:
    """How one of the two is evaluated: its runs have a folder of their own."""
    output = config.runs.output
    return replace(config.runs, output=None if output is None else output / plain_name(ref.label))


def _open_loop(
    config: CompareConfig, ref: BundleRef, boxes: Mapping[str, Sequence[Box]], folder: Path, progress: Progress
) -> RunLedger:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; give another folder with --output") from error
    _drop_incomplete(folder)
    loaded = (ref.manifest.digest, ref.hint, ref.device or config.runs.device, config.runs.threads)

    def tasks(sequence: str) -> list[OpenLoop]:
        given = tuple(boxes.get(sequence, ()))
        # Named after all that the maps depend on: what an earlier call left is then either the same or another file.
        key = key_of(sequence, *loaded, *OpenLoop(given, folder).key)
        return [OpenLoop(given, folder / f"{plain_name(sequence)}-{key[:16]}.maps")] if len(given) > 1 else []

    runs = replace(config.runs, output=folder, anchors=None, restart=False)
    return collect(ref, runs, _named(ref, progress), tasks)


def _named(ref: BundleRef, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{ref.label}: {what}", done, total)


def _drop_incomplete(folder: Path) -> None:
    """Remove the kept runs of a folder whose maps are not there in full, so that they are run again."""
    for kept in folder.glob("*.json"):
        try:
            saved = msgspec.json.decode(read_bytes(kept), type=SavedRun)
            run = msgspec.json.decode(saved.run, type=OpenLoopRun)
            file = Path(run.file)
            size = 4 * len(run.boxes) * sum(info.size for info in run.maps)
            whole = file.parent == folder and file.is_file() and file.stat().st_size == size
        except (OSError, ValueError, *BAD_JSON):
            whole = False
        if not whole:
            kept.unlink(missing_ok=True)


def _summarize(a: _Side, b: _Side, config: CompareConfig) -> CompareRecord:
    """The figures; the files of the maps of both must still be there."""
    figures = summarize(a.closed), summarize(b.closed)
    pairs = _pairs(a, b)
    closed = [value for pair in pairs for value in pair.apart.later]
    opened = _opened(pairs)
    rows = _rows(pairs, *figures)
    anchors = config.runs.anchors
    return CompareRecord(
        a=_side(a.ref, figures[0]),
        b=_side(b.ref, figures[1]),
        dataset=config.runs.dataset.name,
        limit=config.runs.frames,
        threads=config.runs.threads_each,
        anchor_spacing=anchors.spacing if anchors else 0,
        anchor_length=anchors.length if anchors else 0,
        delta_ao=_delta(a.closed, b.closed, config.margin),
        one_pass=_one_pass(rows),
        agreement=_agreement([pair.apart for pair in pairs if pair.apart.later]),
        open_loop=opened,
        error_gain=(1 - float(np.mean(closed))) / opened.box_error if opened and opened.box_error > 0 else None,
        sequences=rows,
        failures=[
            SequenceFailure(name=f"{side.ref.label}: {what}", error=error)
            for side in (a, b)
            for what, error in {**side.opened.errors, **side.closed.errors}.items()
        ],
    )


class _Pair(NamedTuple):
    name: str
    apart: Divergence
    open_a: OpenLoopRun | None
    open_b: OpenLoopRun | None

    @property
    def open_error(self) -> float | None:
        """Mean of 1 - IoU on the same crops."""
        if self.open_a is None or self.open_b is None:
            return None
        return 1 - float(ious(np.array(self.open_a.boxes), np.array(self.open_b.boxes)).mean())


def _pairs(a: _Side, b: _Side) -> list[_Pair]:
    runs = {clip.name: run for clip, run in b.closed.of(OnePass)}
    open_a, open_b = ({clip.name: run for clip, run in side.opened.of(OpenLoop)} for side in (a, b))
    return [
        _Pair(clip.name, divergence(run.boxes, runs[clip.name].boxes), open_a.get(clip.name), open_b.get(clip.name))
        for clip, run in a.closed.of(OnePass)
        if clip.name in runs
    ]


def _side(ref: BundleRef, figures: EvalResult) -> CompareSide:
    return CompareSide(
        bundle=ref.name,
        hint=ref.hint,
        tracker=ref.manifest.tracker,
        target=ref.manifest.target,
        precision=ref.manifest.precision,
        weights=ref.manifest.weights.origin,
        ao=figures.ao,
        anchored_ao=None if figures.anchored is None else figures.anchored.ao,
    )


def _rows(pairs: list[_Pair], a: EvalResult, b: EvalResult) -> list[SequencePair]:
    ao_a, ao_b = ({one.name: one.ao for one in figures.sequences} for figures in (a, b))
    return [
        SequencePair(
            name=pair.name,
            frames=len(pair.apart.iou),
            ao_a=ao_a[pair.name],
            ao_b=ao_b[pair.name],
            mean_iou=float(np.mean(pair.apart.later)) if pair.apart.later else None,
            iou_above_0_9=_above(pair.apart.later) if pair.apart.later else None,
            first_divergence=pair.apart.first,
            recovery=pair.apart.recovery,
            open_loop_error=pair.open_error,
            iou=pair.apart.iou,
        )
        for pair in pairs
    ]


def _delta(a: RunLedger, b: RunLedger, margin: float) -> Difference | None:
    sides = [{clip.name: run for clip, run in ledger.of(Anchored)} for ledger in (a, b)]
    names = [name for name in sides[0] if name in sides[1]]
    if sum(len(sides[0][name].runs) for name in names) < 2:
        return None
    return paired_difference([sides[0][n] for n in names], [sides[1][n] for n in names], margin)


def _one_pass(rows: list[SequencePair]) -> OnePassDelta | None:
    deltas = [row.ao_b - row.ao_a for row in rows if row.ao_a is not None and row.ao_b is not None]
    if not deltas:
        return None
    ends = two_level_interval([np.array([delta]) for delta in deltas]) if len(deltas) > 1 else (None, None)
    return OnePassDelta(value=float(np.mean(deltas)), low=ends[0], high=ends[1])


def _agreement(curves: list[Divergence]) -> Agreement | None:
    if not curves:
        return None
    values = [value for curve in curves for value in curve.later]
    firsts = [curve.first for curve in curves if curve.first is not None]
    return Agreement(
        mean_iou=float(np.mean(values)),
        iou_above_0_9=_above(values),
        first_divergence=float(median(firsts)) if firsts else None,
        diverged=len(firsts),
        recovered=sum(curve.recovery is not None for curve in curves),
        sequences=len(curves),
    )


def _opened(pairs: list[_Pair]) -> OpenLoopErrors | None:
    both = [(pair.open_a, pair.open_b) for pair in pairs if pair.open_a is not None and pair.open_b is not None]
    if not both:
        return None
    boxes_a = np.array([box for a, _ in both for box in a.boxes], np.float64)
    boxes_b = np.array([box for _, b in both for box in b.boxes], np.float64)
    return OpenLoopErrors(
        box_error=1 - float(ious(boxes_a, boxes_b).mean()),
        center_px=float(center_distances(boxes_a, boxes_b).mean()),
        maps=map_errors(both),
    )


def _above(values: list[float]) -> float:
    return float((np.array(values) > AGREEING).mean())
