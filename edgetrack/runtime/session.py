"""`load` and `Tracker`: the one way to run any bundle on any target."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from edgetrack import box as boxes
from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest, split_precision
from edgetrack.bundle.reader import Bundle, open_bundle
from edgetrack.capabilities import backend_of, find_target
from edgetrack.errors import UsageError
from edgetrack.media.frames import Frame, is_unicode
from edgetrack.resources import cache_folder, usable_cores
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.frames import as_input
from edgetrack.runtime.memory import Retention
from edgetrack.runtime.prompt import Text, missing_text, phrases_of
from edgetrack.runtime.recovery import Proposal, Recover, guard, uncalibrated
from edgetrack.runtime.threads import ThreadRace, race_threads
from edgetrack.runtime.trackers.base import AttentionMap, Decision, Diagnostics, Procedure, find_procedure
from edgetrack.runtime.tuned import TunedChoice, find_choice
from edgetrack.system.clock import Clock, MonotonicClock

log = logging.getLogger(__name__)
STAGES = ("crop", "graphs", "decode")


@dataclass(frozen=True)
class Timing:
    """Where one update's time went, in milliseconds: `total` = crop + graphs + decode."""

    crop: float
    graphs: float
    decode: float

    @property
    def total(self) -> float:
        """Milliseconds of `update`, from frame to box."""
        return self.crop + self.graphs + self.decode


class StageTimes:
    """Where an update's time goes: called with a stage when it ends, see `StageTimer`."""

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.now_ns
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._last = self._now_ns()

    def __call__(self, stage: str) -> None:
        before, self._last = self._last, self._now_ns()
        self._spent[stage] += self._last - before

    def resume(self) -> None:
        """Time goes on from now: what was between belongs to others."""
        self._last = self._now_ns()

    def add(self, stage: str, nanoseconds: float) -> None:
        """Time that others have taken for it."""
        self._spent[stage] += nanoseconds

    def timing(self) -> Timing:
        """All of it."""
        return Timing(*(self._spent[stage] / 1e6 for stage in STAGES))


@dataclass(frozen=True)
class Result:
    """What `update` found.

    Attributes:
        box: x, y, w, h in pixels, as the tracker's published procedure reports it: some trackers clip it to the frame,
            some only its centre.
        score: the tracker's confidence, 0..1.
        lost: whether the box should not be trusted; `reason` says why.
        timing: the waterfall of this update.
        diagnostics: what the tracker reports of its inside, see `edgetrack.runtime.diagnostics`; empty for most.
        attention: where in the search region the tracker looked; empty unless the bundle was exported with such maps.
    """

    box: Box
    score: float
    lost: bool
    reason: str | None
    timing: Timing
    diagnostics: Diagnostics = field(default_factory=dict)
    attention: tuple[AttentionMap, ...] = ()


class Tracker:
    """A tracker on its graphs: `init` on the first frame, `update` on every later one, `close` at the end.

    Also a context manager. Not thread-safe: one tracker follows one target; `edgetrack.load_many` follows several.
    `tuned` is the choice that `load(tuned=True)` took, `thread_race` what `load(threads="auto")` found.
    """

    tuned: TunedChoice | None = None
    thread_race: ThreadRace | None = None

    def __init__(
        self,
        bundle: Bundle,
        options: BackendOptions,
        *,
        memory: str | None = None,
        text: Text | None = None,
        recover: Recover | None = None,
        clock: Clock | None = None,
        graphs: Mapping[str, CompiledGraph] | None = None,
    ) -> None:
        """Open the bundle's graphs, or take `graphs`, which whoever gave them closes."""
        self.manifest = bundle.manifest if memory is None else with_memory(bundle.manifest, memory)
        self.options = options
        self._clock = clock or MonotonicClock()
        self._started = False
        self._closed = False
        self._frame_size = (0, 0)
        family = find_procedure(self.manifest)
        with ExitStack() as stack:
            if graphs is None:
                stack.callback(bundle.close)
            self.graphs = dict(graphs) if graphs is not None else open_graphs(bundle, options, stack)
            self._procedure: Procedure = family(self.manifest, self.graphs)
            self._procedure.take_files(bundle.folder)
            self._guard = guard(self.manifest, self._procedure, recover)
            self._text: Text | None = None
            self._phrases: dict[str, str] = {}
            self.set_text(text)
            self._resources = stack.pop_all()

    @property
    def procedure(self) -> Procedure:
        """What takes frames to boxes; calibration records what it feeds the graphs."""
        return self._procedure

    @property
    def placement(self) -> dict[str, str]:
        """Where each graph runs, as its backend says: `{"step": "GPU.0 in f16"}`; without those that do not say."""
        return {name: graph.placement for name, graph in self.graphs.items() if graph.placement}

    @property
    def modalities(self) -> int:
        """Images a frame: 1, or 2 for a tracker that takes `aux`."""
        return self._procedure.modalities

    @property
    def attributes(self) -> tuple[str, ...]:
        """What a description of the target may speak of; empty for a tracker that takes no `text`."""
        return () if self._procedure.prompt is None else self._procedure.prompt.attributes

    def set_text(self, text: Text | None) -> None:
        """Describe the target of every later `init` that is given no text of its own; None takes the text away.

        Raises:
            InvalidTextError: the tracker takes no text, or not this one; the text before it holds.
        """
        self._text = None if text is None else phrases_of(text, self._procedure.prompt)

    @property
    def phrases(self) -> dict[str, str]:
        """The description in force, by attribute; empty before `init` and where none is taken."""
        return dict(self._phrases)

    def init(self, frame: Any, box: Iterable[float], aux: Any = None, text: Text | None = None) -> None:
        """Start to follow a target.

        Args:
            frame: uint8 (H, W, 3) BGR; see `edgetrack.runtime.frames.as_bgr` for what else is taken.
            box: x, y, w, h in pixels; it must touch the frame and have an area.
            aux: the second image of a tracker that takes two, see `edgetrack.runtime.frames.as_aux`; else None.
            text: a description of the target, for a tracker that reads it: a phrase by attribute, or a sentence, see
                `edgetrack.runtime.prompt`; None for that of `set_text`, or of `load`.

        Raises:
            InvalidFrameError, InvalidBoxError, InvalidTextError: what was given cannot be tracked; an earlier target
                is kept.
        """
        self._check_open()
        image = as_input(frame, aux, self._procedure.modalities)
        target = boxes.validate(box, (image.shape[0], image.shape[1]))
        self._prepare_text(text)
        self._procedure.init(image, target)
        if self._guard is not None:
            self._guard.restart()
        self._started = True
        self._frame_size = image.shape[0], image.shape[1]

    def update(self, frame: Any, aux: Any = None) -> Result:
        """Find the target in the next frame; `aux` as in `init`.

        Raises:
            InvalidFrameError: the frame cannot be tracked; the tracker's state is unchanged: continue with the next.
            UsageError: `init` was not called, or the tracker is closed.
        """
        image = self.take(frame, aux)
        times = StageTimes(self._clock)
        return result_of((self._guard or self._procedure).update(image, times), times)

    def finish(self, frame: Frame, scale: float, times: StageTimes) -> Result:
        """The rest of an update whose graphs somebody else has run; `scale` is what `Procedure.prepare` returned."""
        before = self._procedure.state
        found = self._procedure.finish(frame, scale, times)
        return result_of(found if self._guard is None else self._guard.judged(before, found), times)

    def take(self, frame: Any, aux: Any = None) -> Frame:
        """The next frame, checked, as the procedure reads it; arguments and errors as of `update`."""
        self._check_open()
        if not self._started:
            raise UsageError("update was called before init; call tracker.init(frame, box) on the first frame")
        image = as_input(frame, aux, self._procedure.modalities)
        self._frame_size = image.shape[0], image.shape[1]
        return image

    def reset_box(self, box: Iterable[float]) -> None:
        """Continue from another box than the one found: the next search starts there, the target stays the same.

        Args:
            box: x, y, w, h in pixels; it must touch the last frame and have an area.

        Raises:
            InvalidBoxError: it is no such box; the tracker continues from its own.
            UsageError: `init` was not called, or the tracker is closed.
        """
        self._check_open()
        if not self._started:
            raise UsageError("reset_box was called before init; call tracker.init(frame, box) on the first frame")
        self._procedure.reset_box(boxes.validate(box, self._frame_size))
        if self._guard is not None:
            self._guard.restart()

    def propose(self, candidates: Iterable[Iterable[float]], frame: Any, aux: Any = None) -> Proposal:
        """Score boxes of a detector, and continue from the best where the calibration trusts it; the target stays.

        Args:
            candidates: up to 256 boxes, x, y, w, h in pixels, each touching the frame.
            frame: that they were found in, as in `update`; commonly the one in which the target was lost.
            aux: as in `init`.

        Raises:
            InvalidFrameError, InvalidBoxError: what was given cannot be searched; the tracker continues from its own.
            UsageError: the bundle was not calibrated, `init` was not called, or the tracker is closed.
        """
        self._check_open()
        if not self._started:
            raise UsageError("propose was called before init; call tracker.init(frame, box) on the first frame")
        if self._guard is None:
            raise uncalibrated(self.manifest, "propose")
        image = as_input(frame, aux, self._procedure.modalities)
        self._frame_size = image.shape[0], image.shape[1]
        return self._guard.propose([boxes.validate(box, self._frame_size) for box in candidates], image)

    def _prepare_text(self, text: Text | None) -> None:
        prompt, given = self._procedure.prompt, self._text if text is None else text
        if given is None:
            if prompt is not None:
                raise missing_text(prompt)
            return
        phrases = phrases_of(given, prompt)
        # A description is read once, however often its target is started on.
        if phrases != self._phrases:
            self._procedure.set_text(phrases)
            self._phrases = phrases

    def close(self) -> None:
        """Release the graphs; safe to call twice."""
        self._closed = True
        self._resources.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the tracker is closed; load the bundle again with edgetrack.load")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def result_of(found: Decision, times: StageTimes) -> Result:
    """What a procedure decided as a result."""
    # What follows the last stage that ended is decoding.
    times(STAGES[-1])
    lost = found.reason is not None
    return Result(found.box, found.score, lost, found.reason, times.timing(), found.diagnostics, found.attention)


def open_graphs(
    bundle: Bundle, options: BackendOptions, stack: ExitStack, *, several: bool = False
) -> dict[str, CompiledGraph]:
    """Open a bundle's graphs, by name; the stack closes them. `several`: that for several targets, too.

    Raises:
        UsageError, BundleError, BackendMissingError, DeviceUnavailableError: see `load`.
    """
    graph_class = backend_of(bundle.manifest.target)
    options = replace(options, operators=find_procedure(bundle.manifest).operators)
    if doubt := graph_class.doubt(bundle.manifest, options):
        log.warning("%s: %s", bundle.manifest.name, doubt)
    graphs: dict[str, CompiledGraph] = {}
    for info in bundle.manifest.graphs:
        if info.role == "batch" and not several:
            continue
        path = bundle.path(info.file)
        if not is_unicode(str(path.absolute())):
            raise UsageError(f"{path.parent} has a name that is not UTF-8, which backends cannot open; rename it")
        graph = graph_class(info, path, options)
        stack.callback(graph.close)
        graphs[info.name] = graph
    return graphs


def backend_options(
    bundle: Bundle, device: str = "cpu", threads: int | None = None, precision_hint: str | None = None
) -> BackendOptions:
    """What `load` asks of a backend; arguments as there."""
    return BackendOptions(
        device=device,
        threads=usable_cores() if threads is None else threads,
        precision_hint=hint_for(bundle.manifest, precision_hint),
        cache=cache_folder(),
    )


def load(
    bundle: str | Path | Bundle,
    *,
    device: str = "cpu",
    threads: int | Literal["auto"] | None = None,
    precision_hint: str | None = None,
    memory: str | None = None,
    text: Text | None = None,
    recover: Recover | None = None,
    tuned: bool = False,
) -> Tracker:
    """Open a bundle and make it ready to track.

    Args:
        bundle: a bundle's folder, its zip, its bare name (looked for here and in ./out), or an open `Bundle`; with
            `tuned` a tracker's name, too.
        device: `cpu`, or what the bundle's target offers (`cuda:0`).
        threads: threads of one inference; None takes the cores that this process may use, `auto` the number that a
            race of up to 4 s finds, which `Tracker.thread_race` then says; on another device than the CPU as None.
        precision_hint: `bf16` asks the backend to compute in bfloat16 where the processor can; None takes
            the bundle's precision, which for a `bf16` bundle is that hint. Nothing is ever changed silently: what
            cannot be done is an error.
        memory: how a tracker that remembers keeps past crops: `exact`, `exact:disk` or `bounded:M`; None takes the
            bundle's own way.
        text: a description of the target, for a tracker that reads one, as `Tracker.set_text` takes it.
        recover: `expand` looks for a lost target in wider regions and in a grid over the frame, see
            `edgetrack.runtime.recovery`; it needs a bundle that `edgetrack calibrate lost` wrote. None follows the
            published procedure, whatever it finds.
        tuned: take the bundle, device, hint and threads that `edgetrack tune` found for this machine, which
            `Tracker.tuned` then says; a choice that is stale is refused.

    Raises:
        UsageError, BundleError, BackendMissingError, DeviceUnavailableError: see their messages.
    """
    choice = None
    if tuned:
        if isinstance(bundle, Bundle) or (device, threads, precision_hint) != ("cpu", None, None):
            raise UsageError(
                "tuned=True takes a tracker's name or a bundle's path, and decides on device, threads and hint; leave "
                "those out"
            )
        choice = find_choice(bundle)
        log.info("tuned: %s", choice)
        bundle, device, threads, precision_hint = choice.bundle, choice.device, choice.threads, choice.hint
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    options = backend_options(opened, device, None if threads == "auto" else threads, precision_hint)
    race = None
    if threads == "auto" and device == "cpu":
        race = race_threads(
            opened, options.threads, lambda count, stack: open_graphs(opened, replace(options, threads=count), stack)
        )
        options = replace(options, threads=race.threads)
    tracker = Tracker(opened, options, memory=memory, text=text, recover=recover)
    tracker.tuned, tracker.thread_race = choice, race
    return tracker


def with_memory(manifest: Manifest, memory: str) -> Manifest:
    """A manifest whose tracker keeps past crops another way.

    Raises:
        UsageError: the tracker keeps none, or there is no such way.
    """
    if not find_procedure(manifest).remembers:
        raise UsageError(f"memory {memory!r} was asked for, but tracker {manifest.tracker!r} keeps no past frames")
    try:
        Retention.parse(memory, fades=find_procedure(manifest).fades)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return msgspec.structs.replace(manifest, procedure={**manifest.procedure, "memory": memory})


def hint_for(manifest: Manifest, asked: str | None) -> str | None:
    """The arithmetic to ask the backend for: what was asked, else what its precision ends in where that is a hint."""
    _, rest = split_precision(manifest.precision)
    return rest if asked is None and rest in find_target(manifest.target).hinted else asked
