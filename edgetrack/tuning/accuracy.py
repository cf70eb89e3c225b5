"""What a variant loses of AO against FP32: paired short runs from anchors, until it is decided or the time is up.

Sequences are taken in the data set's order, half of them first. Both analyses share the error (Bonferroni): 1 % at half
of the sequences, where there are enough for an interval, 4 % at all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from edgetrack.bundle.reader import BundleRef
from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.execution import anchored_runs
from edgetrack.evaluation.protocols.anchored import POINTS, Anchored, AnchoredRuns, Difference, legs, paired_difference
from edgetrack.presentation.progress import Progress
from edgetrack.stats.bootstrap import FEW_SEQUENCES

EARLY, FINAL = 0.99, 0.96
"""Confidence of the two analyses."""
AccuracyVerdict = Literal["kept", "worse", "undecided"]


@dataclass(frozen=True)
class AccuracyFinding:
    """Whether a variant keeps its AO, the difference (None: not measured) and, where that is open, what is missing.

    `more_s` is how many seconds more are needed, None where time alone would not decide it.
    """

    verdict: AccuracyVerdict
    difference: Difference | None
    missing: str = ""
    more_s: float | None = None

    def describe(self) -> str:
        """Such as `loses 0.3 to 0.9 points of AO`."""
        if self.difference is None:
            return f"its AO was not measured: {self.missing}"
        low, high = -POINTS * self.difference.high, -POINTS * self.difference.low
        lost = (
            f"loses {low:.1f} to {high:.1f} points of AO" if low > 0 else f"AO changes by {-high:+.1f} to {-low:+.1f}"
        )
        return f"{lost}{' points' if low <= 0 else ''}{f'; {self.missing}' if self.missing else ''}"


@dataclass
class AccuracyCheck:
    """Compares variants with one reference on a data set.

    Attributes:
        reference: FP32, whose runs are made once.
        config: of the runs; kept where `edgetrack eval` keeps its own, so that each is made once.
        max_drop: what may be lost, 0..1.
        seconds_left: of the time limit.
        clock_s: now.
        progress: is told of every run.
    """

    reference: BundleRef
    config: EvalConfig
    max_drop: float
    seconds_left: Callable[[], float]
    clock_s: Callable[[], float]
    progress: Progress
    _rate: dict[str, float] = field(default_factory=dict)
    """Seconds a frame, by the label of a bundle."""
    _frames: dict[str, int] = field(default_factory=dict)
    """Frames of the short runs, by sequence."""
    _made: set[tuple[str, str]] = field(default_factory=set)
    """Label and sequence of the runs that were made."""

    def judge(self, ref: BundleRef, frame_s: float) -> AccuracyFinding:
        """Whether a variant loses no more than what it may.

        Args:
            ref: the variant.
            frame_s: about how long one of its frames takes on one thread.
        """
        names = self.config.dataset.names
        half = len(names) // 2
        found: Difference | None = None
        for count, confidence in ((half, EARLY), (len(names), FINAL)):
            if count < len(names) and count < FEW_SEQUENCES / 2:
                continue
            needed = self._needed_s(ref, names[:count], frame_s)
            if needed > self.seconds_left():
                missing = f"no time was left for {count} sequences, about {needed:.0f} s"
                return AccuracyFinding("undecided", found, missing, needed)
            try:
                a, b = (self._runs(one, names[:count]) for one in (self.reference, ref))
                found = paired_difference(a, b, self.max_drop, confidence=confidence)
            except EdgetrackError as error:
                return AccuracyFinding("undecided", found, str(error))
            if found.not_worse:
                return AccuracyFinding("kept", found)
            if found.high < -self.max_drop:
                return AccuracyFinding("worse", found)
        assert found is not None
        more = f"about {found.more_runs} more short runs on other sequences" if found.more_runs else "more sequences"
        return AccuracyFinding(
            "undecided",
            found,
            f"whether that is more than {POINTS * self.max_drop:g} is not decided by the {found.runs} short runs of "
            f"{found.sequences} sequences; {more} would probably decide it",
        )

    def _runs(self, ref: BundleRef, names: list[str]) -> list[AnchoredRuns]:
        start, new = self.clock_s(), self._open(ref, names)
        config = replace(self.config, dataset=self.config.dataset.select(names))
        found = anchored_runs(ref, config, lambda what, *step: self.progress(f"{ref.label}: {what}", *step))
        if new:
            self._rate[ref.label] = (self.clock_s() - start) / new
        self._made |= {(ref.label, name) for name in names}
        return found

    def _open(self, ref: BundleRef, names: list[str]) -> int:
        """Frames of the short runs that are not made yet."""
        return sum(self._length(name) for name in names if (ref.label, name) not in self._made)

    def _length(self, name: str) -> int:
        if name not in self._frames:
            dataset, plan = self.config.dataset, self.config.anchors or Anchored()
            clip = dataset.read(next(entry for entry in dataset.entries if entry.name == name))
            made = legs(clip.truth, clip.visible, plan) if clip.scored else []
            self._frames[name] = sum(leg.frames + 1 for leg in made)
        return self._frames[name]

    def _needed_s(self, ref: BundleRef, names: list[str], frame_s: float) -> float:
        guess = frame_s / self.config.jobs
        return sum(self._open(one, names) * self._rate.get(one.label, guess) for one in (self.reference, ref))
