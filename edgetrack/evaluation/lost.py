"""How far `lost` can be trusted: what it flags against the annotation, and how soon.

A frame is *off target* where the target is absent, or where the box overlaps it by less than `OFF_TARGET`. Recall is
the share of such frames that are flagged, false alarms the share of all others; AUROC and curve ask how well the score
alone could tell them apart at any threshold (`edgetrack.stats.detection`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from edgetrack.arrays import Boxes, Floats
from edgetrack.box import Box, ious
from edgetrack.evaluation.datasets.clip import Clip, Flags
from edgetrack.presentation.table import Cell, Column, Table, number, span
from edgetrack.stats.detection import ScoredFrames, auroc, auroc_interval, ratio_interval, roc

OFF_TARGET = 0.1
"""IoU below which a box has lost its target: the bound under which VOT2020's toolkit counts a failure (Kristan et al.,
"The Eighth Visual Object Tracking VOT2020 Challenge Results", section 3)."""
SOON = 30
"""Frames within which a target that returns is to be found again: one second of most videos."""


class FlagScores(msgspec.Struct, frozen=True, kw_only=True):
    """What `lost` said against what was so; shares are 0..1, None where there are no frames to take them of.

    Attributes:
        bound: `OFF_TARGET`.
        frames, off_target: frames that count, and how many of them are off target.
        flagged: frames that count in which the tracker said that it is lost.
        recall: share of off-target frames that are flagged; `false_alarms`: share of the others.
        auroc: of the score; 0.5 is a coin's.
        losses, noticed: stretches of off-target frames, and in how many the flag came up.
        notice: median frames from a loss to the flag, of those that were noticed.
        returns, found: how often a target that was absent came back (and stayed for `SOON` frames, or was found), and
            how often the box was on it again and not flagged within `SOON` frames.
        find: median frames from a return to that, of all that came, however late.
        interval: 95 % over sequences of recall, false_alarms, auroc and found / returns; empty for one sequence.
        curve: (threshold, false alarms, recall) of the score, for all sequences together alone.
    """

    bound: float = OFF_TARGET
    frames: int
    off_target: int
    flagged: int
    recall: float | None
    false_alarms: float | None
    auroc: float | None
    losses: int
    noticed: int
    notice: float | None
    returns: int
    found: int
    find: float | None
    interval: dict[str, tuple[float, float] | None] = {}
    curve: list[tuple[float, float, float]] = []


class FlaggedRun(NamedTuple):
    """The frames of a run after the first, those that are annotated; all (frames,).

    Attributes:
        off: whether the box is off target; `absent`: whether the target is not there.
        lost: whether the tracker said so.
        score: what it was judged by.
        waits: `notice` of each loss, and `find` of each return; None where it never came.
    """

    off: Flags
    absent: Flags
    lost: Flags
    score: Floats
    notices: tuple[int | None, ...]
    finds: tuple[int | None, ...]

    @property
    def evidence(self) -> ScoredFrames:
        """As statistics take it."""
        return ScoredFrames(self.score, self.off)


def flagged_run(clip: Clip, boxes: Sequence[Box], scores: Sequence[float | None], lost: Sequence[bool]) -> FlaggedRun:
    """What a run flagged; the first frame, in which the box was given, does not count.

    Args:
        clip: the sequence, with annotation beyond its first frame.
        boxes, scores, lost: of each frame that was tracked, the first included.
    """
    counted = slice(clip.every, len(boxes), clip.every)
    absent = ~clip.visible[counted]
    off = off_target(np.array(boxes, np.float64)[counted], clip.truth[counted], absent)
    flags = np.array(lost, np.bool_)[counted]
    score = np.array([0.0, *scores[1:]], np.float64)[counted]
    return FlaggedRun(off, absent, flags, score, tuple(_notices(off, flags)), tuple(_finds(off, absent, flags)))


def off_target(boxes: Boxes, truth: Boxes, absent: Flags) -> Flags:
    """Whether each frame is off target."""
    off: Flags = absent | (ious(boxes, truth) < OFF_TARGET)
    return off


def _notices(off: Flags, lost: Flags) -> Iterator[int | None]:
    """Frames from each loss to the flag; None where it did not come before the box was on target again."""
    for start, end in _stretches(off):
        flags = np.flatnonzero(lost[start:end])
        yield int(flags[0]) if flags.size else None


def _finds(off: Flags, absent: Flags, lost: Flags) -> Iterator[int | None]:
    """Frames from each return to the box being on target, unflagged; None where it did not before the next absence.

    A return that is followed by fewer than `SOON` frames, and not found in them, says nothing and is left out.
    """
    for start, end in _stretches(~absent):
        if start == 0:
            continue
        good = np.flatnonzero(~(off | lost)[start:end])
        if good.size:
            yield int(good[0])
        elif end - start >= SOON:
            yield None


def _stretches(flags: Flags) -> list[tuple[int, int]]:
    """First and last but one index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def flag_scores(runs: Sequence[FlaggedRun], *, whole: bool = False) -> FlagScores | None:
    """The figures of runs together; None where no frame counts.

    Args:
        runs: one a sequence.
        whole: of a data set, with intervals and curve.
    """
    if not sum(len(run.off) for run in runs):
        return None
    off, hits = _sums(runs, lambda run: run.off), _sums(runs, lambda run: run.off & run.lost)
    on, alarms = _sums(runs, lambda run: ~run.off), _sums(runs, lambda run: ~run.off & run.lost)
    notices = [wait for run in runs for wait in run.notices]
    finds = [list(run.finds) for run in runs]
    soon = np.array([sum(wait is not None and wait <= SOON for wait in waits) for waits in finds], np.float64)
    evidence = [run.evidence for run in runs]
    area = auroc(evidence)
    came = [wait for waits in finds for wait in waits if wait is not None]
    noticed = [wait for wait in notices if wait is not None]
    return FlagScores(
        frames=int(off.sum() + on.sum()),
        off_target=int(off.sum()),
        flagged=int(hits.sum() + alarms.sum()),
        recall=float(hits.sum() / off.sum()) if off.any() else None,
        false_alarms=float(alarms.sum() / on.sum()) if on.any() else None,
        auroc=area,
        losses=len(notices),
        noticed=len(noticed),
        notice=median(noticed) if noticed else None,
        returns=sum(map(len, finds)),
        found=int(soon.sum()),
        find=median(came) if came else None,
        interval={
            "recall": ratio_interval(hits, off),
            "false_alarms": ratio_interval(alarms, on),
            "auroc": auroc_interval(evidence),
            "found": ratio_interval(soon, np.array(list(map(len, finds)), np.float64)),
        }
        if whole
        else {},
        curve=roc(evidence) if whole and area is not None else [],
    )


def _sums(runs: Sequence[FlaggedRun], flags: Callable[[FlaggedRun], Flags]) -> Floats:
    return np.array([flags(run).sum() for run in runs], np.float64)


def flag_table(rows: Sequence[tuple[str, FlagScores]], whole: FlagScores) -> Table:
    """A row for each sequence with a frame off target or flagged, one for all, one for their intervals."""
    columns = [
        Column("lost", align="left"),
        Column("frames", drop=5),
        Column("off target", drop=4),
        Column("recall", 3),
        Column("false alarms", 4),
        Column("AUROC", 3),
        Column("noticed", drop=2),
        Column("after", 1, drop=3),
        Column("found again", drop=1),
        Column("after", 1, drop=3),
    ]

    def row(name: str, one: FlagScores) -> list[Cell]:
        return [
            name,
            one.frames,
            one.off_target,
            one.recall,
            one.false_alarms,
            one.auroc,
            f"{one.noticed}/{one.losses}" if one.losses else None,
            one.notice,
            f"{one.found}/{one.returns}" if one.returns else None,
            one.find,
        ]

    ends = whole.interval
    shown = [row(name, one) for name, one in rows if one.off_target or one.flagged]
    last: list[Cell] = ["95 %", "", "", *(span(ends.get(n)) for n in ("recall",)), span(ends.get("false_alarms"), 4)]
    last += [span(ends.get("auroc"), 3), "", "", span(ends.get("found")), ""]
    notes = [
        f"off target: the target is absent, or the box overlaps it by less than {number(whole.bound, 1)}; sequences "
        "without such a frame or a flag have no row",
        "noticed: losses in which the flag came up, and the median of frames until then; found again: targets that "
        f"returned and were on box and unflagged within {SOON} frames, and the median of frames until then",
    ]
    return Table(columns, [*shown, row("all", whole), last], notes)
