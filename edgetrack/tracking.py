"""Following targets through a source: frames to tracker to files and window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from edgetrack.box import Box, iou
from edgetrack.bundle.reader import open_bundle
from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.media import (
    BoxRecord,
    BoxWriter,
    Frame,
    FrameSource,
    ReadOptions,
    VideoWriter,
    draw,
    draw_attention,
    open_source,
)
from edgetrack.media.ahead import ReadAhead, Taken
from edgetrack.media.writers import MAX_FPS
from edgetrack.presentation.sanitize import hide_passwords, printable
from edgetrack.presentation.table import counted
from edgetrack.runtime.diagnostics import DiagnosticLog, add_frame, sentences, summarize
from edgetrack.runtime.frames import PairedSource
from edgetrack.runtime.multi import MultiTracker
from edgetrack.runtime.prompt import parse_text
from edgetrack.runtime.recovery import Recover
from edgetrack.runtime.session import Result, Tracker, backend_options
from edgetrack.runtime.trackers.base import AttentionMap
from edgetrack.system.signals import StopSignals

FrameWrapper = Callable[[Iterable[Taken[Frame]], "int | None"], Iterable[Taken[Frame]]]
"""Shows how far the frames are, of which there will be so many (None: unknown)."""
WINDOW = "edgetrack"
ESCAPE = 27
_KEPT = 1_000_000
"""So many updates the median is of, the newest: a live run may go on for weeks."""


@dataclass(frozen=True)
class TrackRequest:
    """What to track and where the results go; see `edgetrack track --help`.

    `targets` are boxes in the first frame; none: one of the source's ground truth, or drawn where `select` is set.
    `aux` is the source of second images, `text` the description of the target, as it was typed, `reading` how frames
    are read; `attention` lays the tracker's maps of attention over the pictures. `latest` keeps the newest frame alone
    (None: of a live source), `show_age` writes a live frame's age on the pictures.
    """

    bundle: str
    source: str
    targets: tuple[Box, ...]
    select: bool
    boxes: Path | None
    video: Path | None
    show: bool
    frames: int | None
    overwrite: bool
    device: str
    threads: int | None
    precision_hint: str | None
    aux: str | None = None
    memory: str | None = None
    recover: Recover | None = None
    text: tuple[str, ...] = ()
    attention: bool = False
    reading: ReadOptions = field(default_factory=ReadOptions)
    latest: bool | None = None
    show_age: bool = False

    @property
    def several(self) -> bool:
        """Whether more than one target is followed."""
        return len(self.targets) > 1

    def check(self) -> None:
        """Raise UsageError where options exclude each other."""
        if self.attention and self.video is None and not self.show:
            raise UsageError("--attention draws on pictures and none are asked for; add --video FILE.mp4 or --show")
        for option, given in (("--attention", self.attention), ("--text", self.text)):
            if given and self.several:
                count = len(self.targets)
                raise UsageError(f"{option} is of one target, given {count}; give one --box, or leave it out")


@dataclass
class LiveFigures:
    """What became of a live source's frames.

    Attributes:
        latest: whether the newest frame alone was kept.
        dropped: frames from the first tracked one to the last that were not tracked, a newer one being there.
        breaks: how often the source broke and came back.
        age_ms: of each frame at its box, from when it was decoded.
    """

    latest: bool
    dropped: int = 0
    breaks: int = 0
    age_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ages = dict(zip(("p50", "p95", "max"), self._ages(), strict=False))
        return {"latest": self.latest, "dropped": self.dropped, "breaks": self.breaks, "age_ms": ages}

    def text(self) -> str:
        """One line."""
        ages = self._ages()
        old = f"; age at the box {ages[0]:.1f} ms median, p95 {ages[1]:.1f}, max {ages[2]:.1f}" if ages else ""
        kept = "the newest frame" if self.latest else "every frame"
        return f"live, {kept}: {counted(self.dropped, 'frame')} dropped, {counted(self.breaks, 'break')}{old}"

    def _ages(self) -> list[float]:
        return [float(value) for value in np.quantile(self.age_ms, (0.5, 0.95, 1.0))] if self.age_ms else []


@dataclass
class TrackSummary:
    """The result of a run.

    Attributes:
        targets: how many were followed.
        lost: results of all targets that were flagged.
        track_ms: time of each update, of all targets.
        overlaps: IoU of each frame after the first that has ground truth.
        diagnostics: see `edgetrack.runtime.diagnostics`.
        phrases: the description of the target, by attribute.
        skipped: numbers of the frames that could not be read; their box is that of the frame before.
        notes: what the user should know of source and video, a sentence each.
        live: of a live source.
        signal: number of the signal that ended it, or None.
    """

    bundle: str
    weights: str
    source: str
    targets: int = 1
    frames: int = 0
    lost: int = 0
    track_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    overlaps: list[float] = field(default_factory=list)
    diagnostics: DiagnosticLog = field(default_factory=dict)
    phrases: dict[str, str] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    live: LiveFigures | None = None
    signal: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: track_ms is the median time of an update."""
        diagnostics = {name: msgspec.to_builtins(found) for name, found in summarize(self.diagnostics).items()}
        return {
            "bundle": self.bundle,
            "weights": self.weights,
            "source": self.source,
            "frames": self.frames,
            **({"targets": self.targets} if self.targets > 1 else {}),
            "lost": self.lost,
            "track_ms": median(self.track_ms) if self.track_ms else None,
            "mean_iou": sum(self.overlaps) / len(self.overlaps) if self.overlaps else None,
            **({"live": self.live.as_dict()} if self.live else {}),
            **({"text": self.phrases} if self.phrases else {}),
            **({"diagnostics": diagnostics} if diagnostics else {}),
            **({"skipped": sorted(self.skipped)} if self.skipped else {}),
            **({"notes": self.notes} if self.notes else {}),
        }

    def text(self) -> str:
        """One line, and what the tracker reports of its gates."""
        frames = f"{counted(self.frames, 'frame')} of {printable(self.source)}"
        parts = [f"{frames} with {self.bundle} ({self.weights} weights)"]
        if self.targets > 1:
            parts.append(counted(self.targets, "target"))
        if self.track_ms:
            parts.append(f"track() {median(self.track_ms):.1f} ms median = {1000 / median(self.track_ms):.0f} fps")
        if self.overlaps:
            parts.append(f"AO {sum(self.overlaps) / len(self.overlaps):.3f}")
        if self.lost:
            parts.append(f"lost in {counted(self.lost, 'box' if self.targets > 1 else 'frame')}")
        if self.phrases:
            parts.append("text: " + ", ".join(f"{name} {phrase!r}" for name, phrase in self.phrases.items()))
        gates = sentences(summarize(self.diagnostics))
        notes = [f"note: {printable(note)}" for note in self.notes]
        if self.skipped:
            numbers = sorted(self.skipped)
            shown = ", ".join(map(str, numbers[:10])) + (" ..." if len(numbers) > 10 else "")
            first = printable(self.skipped[numbers[0]])
            notes.append(f"note: unreadable frames skipped: {shown} ({len(numbers)} in all; the first: {first})")
        live = [self.live.text()] if self.live else []
        return "\n".join(["; ".join(parts), *live, *gates, *notes])


def follow(
    job: TrackRequest,
    *,
    on_record: Callable[[BoxRecord], None] = lambda record: None,
    on_event: Callable[[str], None] = lambda event: None,
    progress: FrameWrapper = lambda frames, total: frames,
) -> TrackSummary:
    """Track; what was written before an error, a Ctrl-C or a SIGTERM stays.

    Args:
        job: what to do.
        on_record: called with every frame's result.
        on_event: called, from another thread, when a live source breaks and when it is back.
        progress: wraps the frames.

    Raises:
        EdgetrackError: the bundle, the source, the box or a file cannot be used; SourceInterruptedError when the source
            breaks in the middle.
    """
    job.check()
    signals = StopSignals()
    with ExitStack() as stack:
        frames = stack.enter_context(_open(job.source, job, on_event))
        if job.aux is not None:
            frames = stack.enter_context(PairedSource(frames, _open(job.aux, job, on_event)))
        for option, given in (("--latest", job.latest), ("--live", job.show_age)):
            if given and not frames.live:
                raise UsageError(f"{option} is for live sources, and the frames of {frames.name} wait; leave it out")
        # While the bundle is loaded a stream's frames are taken and dropped, or the first would be old ones.
        latest = frames.live if job.latest is None else job.latest
        reader = stack.enter_context(ReadAhead.of(frames, latest=latest))
        tracker = _tracker(job)
        stack.callback(tracker.close)
        source = hide_passwords(job.source)
        names = _looks(tracker) if job.attention else ()
        writer = None
        if job.boxes is not None:
            writer = BoxWriter(job.boxes, source=source, overwrite=job.overwrite, several=job.several)
            stack.enter_context(writer)
        rate = frames.fps if frames.fps and frames.fps <= MAX_FPS else None
        video = stack.enter_context(VideoWriter(job.video, fps=rate, overwrite=job.overwrite)) if job.video else None
        if job.show or job.select:
            stack.callback(_close_windows)
        weights = tracker.manifest.weights.origin
        summary = TrackSummary(tracker.manifest.name, weights, source, max(1, len(job.targets)))
        summary.live = LiveFigures(latest) if frames.live else None
        stack.enter_context(signals.watching(reader.stop))
        first, last = 0, -1
        for records, frame, truth, attention in _records(job, frames, reader, tracker, summary, progress):
            last = records[0].frame
            first = last if summary.frames == 1 else first
            for record in records:
                if writer is not None:
                    writer.write(record)
                on_record(record)
            if video is not None or job.show:
                found = {look.name: look for look in attention}
                panels = [_panel(frame, name, found.get(name)) for name in names] or [frame]
                if not _picture(job, video, records, panels, truth):
                    break
        # The thread may have met bad frames beyond the last that was wanted.
        summary.skipped = {number: why for number, why in frames.skipped.items() if number <= last}
        summary.notes, summary.signal = list(frames.notes), signals.number
        if summary.live is not None:
            summary.live.dropped = last + 1 - first - summary.frames
            summary.live.breaks = len(frames.breaks_s)
        if video is not None:
            summary.notes += video.notes
            if frames.fps and abs(video.fps - frames.fps) >= 0.0005:
                summary.notes.append(f"{job.video} plays at {video.fps:g} frames/s: it cannot state {frames.fps:g}")
    return summary


def _open(spec: str, job: TrackRequest, on_event: Callable[[str], None]) -> FrameSource:
    source = open_source(spec, job.reading, live=True)
    source.on_event = on_event
    return source


def _tracker(job: TrackRequest) -> Tracker | MultiTracker:
    bundle = open_bundle(job.bundle)
    options = backend_options(bundle, job.device, job.threads, job.precision_hint)
    if job.several:
        return MultiTracker(bundle, options, len(job.targets), memory=job.memory, recover=job.recover)
    return Tracker(bundle, options, memory=job.memory, recover=job.recover, text=parse_text(job.text))


def _looks(tracker: Tracker | MultiTracker) -> tuple[str, ...]:
    """Names of the maps of attention."""
    names = tuple(tracker.procedure.looks) if isinstance(tracker, Tracker) else ()
    if not names:
        raise UsageError(
            f"bundle {tracker.manifest.name} was exported without maps of attention; export it with --set "
            "attention_maps=true, where its tracker has them"
        )
    return names


def _started(
    job: TrackRequest, frames: FrameSource, frame: Frame, tracker: Tracker | MultiTracker, summary: TrackSummary
) -> dict[int | None, Box]:
    """The targets' boxes in the first frame, by their numbers; None is that of the only one."""
    if isinstance(tracker, MultiTracker):
        return {tracker.start(frame, box): box for box in job.targets}
    start = _start_box(job, frames, frame[..., :3])
    tracker.init(frame, start)
    summary.phrases = tracker.phrases
    return {None: start}


def _found(tracker: Tracker | MultiTracker, frame: Frame) -> list[tuple[int | None, Result]]:
    return list(tracker.update(frame).items()) if isinstance(tracker, MultiTracker) else [(None, tracker.update(frame))]


def _records(
    job: TrackRequest,
    frames: FrameSource,
    reader: ReadAhead[Frame],
    tracker: Tracker | MultiTracker,
    summary: TrackSummary,
    progress: FrameWrapper,
) -> Iterator[tuple[list[BoxRecord], Frame, Box | None, tuple[AttentionMap, ...]]]:
    total = frames.length if job.frames is None else min(job.frames, frames.length or job.frames)
    for count, taken in enumerate(progress(reader, total)):
        index, frame = taken.number, taken.frame
        truth = frames.truth_at(index)
        attention: tuple[AttentionMap, ...] = ()
        if count == 0:
            started = _started(job, frames, frame, tracker, summary)
            records = [BoxRecord(index, box, None, False, None, target=target) for target, box in started.items()]
        elif index in frames.skipped:
            records = [BoxRecord(index, last.box, None, True, None, target=last.target) for last in records]
        else:
            found = _found(tracker, frame)
            age = reader.age_ms(taken) if summary.live is not None else None
            records = [
                BoxRecord(index, one.box, one.score, one.lost, one.timing.total, one.diagnostics, age, target)
                for target, one in found
            ]
            if summary.live is not None and age is not None:
                summary.live.age_ms.append(age)
            summary.track_ms.append(sum(one.timing.total for _, one in found))
            for _, one in found:
                add_frame(summary.diagnostics, one.diagnostics)
                summary.lost += one.lost
                attention = one.attention
                if truth is not None and not job.several:
                    summary.overlaps.append(iou(one.box, truth))
        summary.frames += 1
        # Pictures show the first image.
        yield records, frame[..., :3], truth, attention
        if job.frames is not None and count + 1 >= job.frames:
            return


def _start_box(job: TrackRequest, frames: FrameSource, frame: Frame) -> Box:
    if job.targets:
        return job.targets[0]
    if job.select:
        return _select(frame)
    start = frames.truth_at(0)
    if start is None:
        raise UsageError(f"{frames.name} comes without ground truth; give the target with --box x,y,w,h or --select")
    return start


def _select(frame: Frame) -> Box:
    import cv2

    try:
        x, y, w, h = cv2.selectROI(WINDOW, frame, showCrosshair=False)
    except cv2.error:
        raise _no_window("--select", "--box x,y,w,h") from None
    if w <= 0 or h <= 0:
        raise UsageError("no box was drawn; draw one and press Enter, or give it with --box x,y,w,h")
    return Box(float(x), float(y), float(w), float(h))


def _panel(frame: Frame, name: str, look: AttentionMap | None) -> Frame:
    """The frame with one of the tracker's maps; the first frame, and one that was skipped, have none."""
    return draw_attention(frame, name, None if look is None else look.weights, None if look is None else look.region)


def _picture(
    job: TrackRequest,
    video: VideoWriter | None,
    records: Sequence[BoxRecord],
    panels: Sequence[Frame],
    truth: Box | None,
) -> bool:
    """Draw on each panel, put them side by side, write, show; False when the window's user wants to stop."""
    spent, drawn = sum(record.track_ms or 0.0 for record in records), list(panels)
    for place, record in enumerate(records):
        fps = 1000 / spent if spent and place == 0 else None
        age = record.age_ms if job.show_age and place == 0 else None
        drawn = [
            draw(
                panel,
                record.box,
                score=record.score,
                lost=record.lost,
                fps=fps,
                age_ms=age,
                ground_truth=truth,
                target=record.target,
            )
            for panel in drawn
        ]
    image = np.hstack(drawn)
    if video is not None:
        video.write(image)
    if not job.show:
        return True
    import cv2

    try:
        cv2.imshow(WINDOW, image)
        return cv2.waitKey(1) & 0xFF not in (ESCAPE, ord("q"))
    except cv2.error:
        raise _no_window("--show", "--video FILE.mp4") from None


def _no_window(option: str, instead: str) -> DeviceUnavailableError:
    return DeviceUnavailableError(
        f"{option} needs a window and this machine or this OpenCV has none; use {instead}, or the build with "
        "windows on a machine with a screen: pip uninstall opencv-python-headless && pip install 'edgetrack[opencv]'"
    )


def _close_windows() -> None:
    import cv2

    try:
        cv2.destroyAllWindows()
    except cv2.error:
        # No window was ever open: the error that says so is already on its way.
        return
