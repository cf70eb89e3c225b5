"""Following one target through a source: frames to tracker to files and window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from edgetrack.box import Box, iou
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
from edgetrack.media.writers import MAX_FPS
from edgetrack.presentation.sanitize import printable
from edgetrack.presentation.table import counted
from edgetrack.runtime.diagnostics import DiagnosticLog, add_frame, sentences, summarize
from edgetrack.runtime.frames import PairedSource
from edgetrack.runtime.prompt import parse_text
from edgetrack.runtime.session import Tracker, load
from edgetrack.runtime.trackers.base import AttentionMap

FrameWrapper = Callable[[Iterable[Frame], "int | None"], Iterable[Frame]]
"""Shows how far the frames are, of which there will be so many (None: unknown)."""
WINDOW = "edgetrack"
ESCAPE = 27


@dataclass(frozen=True)
class TrackRequest:
    """What to track and where the results go; see `edgetrack track --help`.

    `aux` is the source of second images, `text` the description of the target, as it was typed, `reading` how frames
    are read; `attention` lays the tracker's maps of attention over the pictures.
    """

    bundle: str
    source: str
    box: Box | None
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
    text: tuple[str, ...] = ()
    attention: bool = False
    reading: ReadOptions = field(default_factory=ReadOptions)


@dataclass
class TrackSummary:
    """The result of a run.

    Attributes:
        track_ms: time of each update.
        overlaps: IoU of each frame after the first that has ground truth.
        diagnostics: see `edgetrack.runtime.diagnostics`.
        phrases: the description of the target, by attribute.
        skipped: numbers of the frames that could not be read; their box is that of the frame before.
        notes: what the user should know of source and video, a sentence each.
    """

    bundle: str
    weights: str
    source: str
    frames: int = 0
    lost: int = 0
    track_ms: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    diagnostics: DiagnosticLog = field(default_factory=dict)
    phrases: dict[str, str] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: track_ms is the median time of an update."""
        diagnostics = {name: msgspec.to_builtins(found) for name, found in summarize(self.diagnostics).items()}
        return {
            "bundle": self.bundle,
            "weights": self.weights,
            "source": self.source,
            "frames": self.frames,
            "lost": self.lost,
            "track_ms": median(self.track_ms) if self.track_ms else None,
            "mean_iou": sum(self.overlaps) / len(self.overlaps) if self.overlaps else None,
            **({"text": self.phrases} if self.phrases else {}),
            **({"diagnostics": diagnostics} if diagnostics else {}),
            **({"skipped": sorted(self.skipped)} if self.skipped else {}),
            **({"notes": self.notes} if self.notes else {}),
        }

    def text(self) -> str:
        """One line, and what the tracker reports of its gates."""
        frames = f"{counted(self.frames, 'frame')} of {printable(self.source)}"
        parts = [f"{frames} with {self.bundle} ({self.weights} weights)"]
        if self.track_ms:
            parts.append(f"track() {median(self.track_ms):.1f} ms median = {1000 / median(self.track_ms):.0f} fps")
        if self.overlaps:
            parts.append(f"AO {sum(self.overlaps) / len(self.overlaps):.3f}")
        if self.lost:
            parts.append(f"lost in {counted(self.lost, 'frame')}")
        if self.phrases:
            parts.append("text: " + ", ".join(f"{name} {phrase!r}" for name, phrase in self.phrases.items()))
        gates = sentences(summarize(self.diagnostics))
        notes = [f"note: {printable(note)}" for note in self.notes]
        if self.skipped:
            numbers = sorted(self.skipped)
            shown = ", ".join(map(str, numbers[:10])) + (" ..." if len(numbers) > 10 else "")
            first = printable(self.skipped[numbers[0]])
            notes.append(f"note: unreadable frames skipped: {shown} ({len(numbers)} in all; the first: {first})")
        return "\n".join(["; ".join(parts), *gates, *notes])


def follow(
    job: TrackRequest,
    *,
    on_record: Callable[[BoxRecord], None] = lambda record: None,
    progress: FrameWrapper = lambda frames, total: frames,
) -> TrackSummary:
    """Track; what was written before an error stays.

    Args:
        job: what to do.
        on_record: called with every frame's result.
        progress: wraps the frames.

    Raises:
        EdgetrackError: the bundle, the source, the box or a file cannot be used; SourceInterruptedError when the source
            breaks in the middle.
    """
    if job.attention and job.video is None and not job.show:
        raise UsageError("--attention draws on pictures and none are asked for; add --video FILE.mp4 or --show")
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(job.source, job.reading))
        if job.aux is not None:
            frames = stack.enter_context(PairedSource(frames, open_source(job.aux, job.reading)))
        tracker = stack.enter_context(
            load(
                job.bundle,
                device=job.device,
                threads=job.threads,
                precision_hint=job.precision_hint,
                memory=job.memory,
                text=parse_text(job.text),
            )
        )
        if job.attention and not tracker.procedure.looks:
            raise UsageError(
                f"bundle {tracker.manifest.name} was exported without maps of attention; export it with --set "
                "attention_maps=true, where its tracker has them"
            )
        names = tuple(tracker.procedure.looks) if job.attention else ()
        writer = (
            stack.enter_context(BoxWriter(job.boxes, source=job.source, overwrite=job.overwrite)) if job.boxes else None
        )
        rate = frames.fps if frames.fps and frames.fps <= MAX_FPS else None
        video = stack.enter_context(VideoWriter(job.video, fps=rate, overwrite=job.overwrite)) if job.video else None
        if job.show or job.select:
            stack.callback(_close_windows)
        summary = TrackSummary(tracker.manifest.name, tracker.manifest.weights.origin, job.source)
        for record, frame, truth, attention in _records(job, frames, tracker, summary, progress):
            if writer is not None:
                writer.write(record)
            on_record(record)
            if video is not None or job.show:
                found = {look.name: look for look in attention}
                panels = [_panel(frame, name, found.get(name)) for name in names] or [frame]
                if not _picture(job, video, record, panels, truth):
                    break
        summary.skipped, summary.notes = frames.skipped, list(frames.notes)
        if video is not None:
            summary.notes += video.notes
            if frames.fps and abs(video.fps - frames.fps) >= 0.0005:
                summary.notes.append(f"{job.video} plays at {video.fps:g} frames/s: it cannot state {frames.fps:g}")
    return summary


def _records(
    job: TrackRequest, frames: FrameSource, tracker: Tracker, summary: TrackSummary, progress: FrameWrapper
) -> Iterator[tuple[BoxRecord, Frame, Box | None, tuple[AttentionMap, ...]]]:
    truths = frames.ground_truth or []
    total = frames.length if job.frames is None else min(job.frames, frames.length or job.frames)
    for index, frame in enumerate(progress(frames, total)):
        truth = truths[index] if index < len(truths) else None
        attention: tuple[AttentionMap, ...] = ()
        if index == 0:
            start = _start_box(job, frames, frame[..., :3])
            tracker.init(frame, start)
            summary.phrases = tracker.phrases
            record = BoxRecord(0, start, None, False, None)
        elif index in frames.skipped:
            record = BoxRecord(index, record.box, None, True, None)
        else:
            result = tracker.update(frame)
            record = BoxRecord(index, result.box, result.score, result.lost, result.timing.total, result.diagnostics)
            attention = result.attention
            add_frame(summary.diagnostics, result.diagnostics)
            summary.track_ms.append(result.timing.total)
            summary.lost += result.lost
            if truth is not None:
                summary.overlaps.append(iou(result.box, truth))
        summary.frames += 1
        # Pictures show the first image.
        yield record, frame[..., :3], truth, attention
        if job.frames is not None and index + 1 >= job.frames:
            return


def _start_box(job: TrackRequest, frames: FrameSource, frame: Frame) -> Box:
    if job.box is not None:
        return job.box
    if job.select:
        return _select(frame)
    start = frames.ground_truth[0] if frames.ground_truth else None
    if start is None:
        raise UsageError(f"{job.source} comes without ground truth; give the target with --box x,y,w,h or --select")
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
    job: TrackRequest, video: VideoWriter | None, record: BoxRecord, panels: Sequence[Frame], truth: Box | None
) -> bool:
    """Draw on each panel, put them side by side, write, show; False when the window's user wants to stop."""
    fps = 1000 / record.track_ms if record.track_ms else None
    drawn = [draw(p, record.box, score=record.score, lost=record.lost, fps=fps, ground_truth=truth) for p in panels]
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
