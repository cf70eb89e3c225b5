"""`load_many` and `MultiTracker`: several targets in one video, on graphs that are opened once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import GraphInfo, batch_shape
from edgetrack.bundle.reader import Bundle, open_bundle
from edgetrack.errors import BundleError, UsageError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, allocate
from edgetrack.runtime.prompt import Text
from edgetrack.runtime.recovery import Recover
from edgetrack.runtime.session import Result, StageTimes, Tracker, backend_options, open_graphs
from edgetrack.system.clock import Clock, MonotonicClock

MOST_TARGETS = 64


class SharedGraph(CompiledGraph):
    """One target's inputs and outputs of a graph that several targets share: copied in and out around each run."""

    def __init__(self, whole: CompiledGraph) -> None:
        self.info, self.whole, self._closed = whole.info, whole, False
        self.inputs, self.outputs = allocate(whole.info.inputs), allocate(whole.info.outputs)

    def _open(self, path: object, options: object) -> None:
        """The shared graph is open."""

    def _close(self) -> None:
        """The shared graph is closed by whoever opened it."""

    def _infer(self) -> None:
        for name, array in self.inputs.items():
            np.copyto(self.whole.inputs[name], array)
        self.whole.run()
        for name, array in self.whole.outputs.items():
            np.copyto(self.outputs[name], array)


class StepBatch:
    """The graph that runs `step` for several targets: a row for each; rows without a target are computed for nothing.

    Args:
        graph: open.
        step: of one target.

    Raises:
        BundleError: the two do not belong together.
    """

    def __init__(self, graph: CompiledGraph, step: GraphInfo) -> None:
        self.graph = graph
        self.size = graph.info.inputs[0].shape[0]
        for side, of_many, of_one in (
            ("inputs", graph.info.inputs, step.inputs),
            ("outputs", graph.info.outputs, step.outputs),
        ):
            found = {t.name: (t.dtype, t.shape) for t in of_many}
            wanted = {t.name: (t.dtype, batch_shape(t.shape, self.size)) for t in of_one}
            if found != wanted:
                raise BundleError(
                    f"graph {graph.info.name!r} has the {side} {found}, which are not those of {self.size} times "
                    f"'step', {wanted}; export the bundle again"
                )
        shapes = {t.name: t.shape for t in (*step.inputs, *step.outputs)}
        self._inputs, self._outputs = (
            [{name: array[row].reshape(shapes[name]) for name, array in arrays.items()} for row in range(self.size)]
            for arrays in (graph.inputs, graph.outputs)
        )

    def run(self, targets: Sequence[CompiledGraph]) -> None:
        """Run the `step` of some targets, as many as there are rows at most."""
        for target, row in zip(targets, self._inputs, strict=False):
            _copy(target.inputs, row)
        self.graph.run()
        for target, row in zip(targets, self._outputs, strict=False):
            _copy(row, target.outputs)


def _copy(source: Mapping[str, Array], to: Mapping[str, Array]) -> None:
    for name, array in source.items():
        np.copyto(to[name], array)


class MultiTracker:
    """Follows up to `room` targets with one bundle, each as a `Tracker` of its own would; boxes are the same.

    The graphs, and so weights and compiled code, are there once; a target costs its buffers, its state and its share
    of the time. A bundle that was exported with `--batch N` runs N targets in one go, and fewer too where more than
    half of the rows are theirs; the others follow one by one. Not thread-safe. Also a context manager.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: BackendOptions,
        room: int,
        *,
        memory: str | None = None,
        recover: Recover | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 1 <= room <= MOST_TARGETS:
            raise UsageError(f"{room} targets were asked for; give 1 to {MOST_TARGETS}")
        self.manifest, self.room, self.options = bundle.manifest, room, options
        self._next = 1
        self._clock = clock or MonotonicClock()
        self._targets: dict[int, Tracker] = {}
        with ExitStack() as stack:
            stack.callback(bundle.close)
            graphs = open_graphs(bundle, options, stack, several=room > 1 and recover is None)
            batch = bundle.manifest.batch
            several = None if batch is None else graphs.pop(batch.name, None)
            self._batch = None if several is None else StepBatch(several, bundle.manifest.graph("step"))
            self._idle = [
                Tracker(
                    bundle,
                    options,
                    memory=memory,
                    recover=recover,
                    clock=clock,
                    graphs={name: SharedGraph(graph) for name, graph in graphs.items()},
                )
                for _ in range(room)
            ]
            self._resources = stack.pop_all()
        if self._batch is not None and not self._idle[0].procedure.batches():
            self.close()
            raise BundleError(
                f"bundle {bundle.manifest.name!r} has a graph for several targets, which the procedure of its tracker "
                "does not take; export it again without --batch"
            )

    @property
    def targets(self) -> tuple[int, ...]:
        """Numbers of the targets that are followed, oldest first."""
        return tuple(self._targets)

    @property
    def batch(self) -> int:
        """Targets that one run finds; 1 where the bundle has no graph for several."""
        return 1 if self._batch is None else self._batch.size

    def start(self, frame: Any, box: Iterable[float], aux: Any = None, text: Text | None = None) -> int:
        """Follow one more target; its number, which no later one gets again. Arguments as of `Tracker.init`.

        Raises:
            UsageError: there is no room for it.
            InvalidFrameError, InvalidBoxError, InvalidTextError: what was given cannot be tracked.
        """
        if not self._idle:
            raise UsageError(f"all {self.room} targets are followed; stop one, or load the bundle for more")
        self._idle[-1].init(frame, box, aux, text)
        number, self._next = self._next, self._next + 1
        self._targets[number] = self._idle.pop()
        return number

    def stop(self, number: int) -> None:
        """Follow a target no longer.

        Raises:
            UsageError: there is no target of that number.
        """
        self._idle.append(self._target(number))
        del self._targets[number]

    def update(self, frame: Any, aux: Any = None) -> dict[int, Result]:
        """Find every target in the next frame; results by number. Arguments and errors as of `Tracker.update`.

        A target's `timing.graphs` is its share of the run where several are found in one.
        """
        found: dict[int, Result] = {}
        targets = list(self._targets.items())
        while targets:
            together, targets = targets[: self.batch], targets[self.batch :]
            if self._batch is not None and 2 * len(together) > self.batch:
                found |= self._update_at_once(self._batch, together, frame, aux)
            else:
                found |= {number: tracker.update(frame, aux) for number, tracker in together}
        return found

    def _update_at_once(
        self, batch: StepBatch, targets: Sequence[tuple[int, Tracker]], frame: Any, aux: Any
    ) -> dict[int, Result]:
        taken = []
        for _, tracker in targets:
            image, times = tracker.take(frame, aux), StageTimes(self._clock)
            taken.append((image, tracker.procedure.prepare(image, times), times))
        start = self._clock.now_ns()
        batch.run([tracker.procedure.step for _, tracker in targets])
        share = (self._clock.now_ns() - start) / len(targets)
        found = {}
        for (number, tracker), (image, scale, times) in zip(targets, taken, strict=True):
            times.add("graphs", share)
            times.resume()
            found[number] = tracker.finish(image, scale, times)
        return found

    def reset_box(self, number: int, box: Iterable[float]) -> None:
        """See `Tracker.reset_box`.

        Raises:
            UsageError: there is no target of that number.
        """
        self._target(number).reset_box(box)

    def _target(self, number: int) -> Tracker:
        if number not in self._targets:
            followed = ", ".join(map(str, self._targets)) or "none"
            raise UsageError(f"there is no target {number}; followed are: {followed}")
        return self._targets[number]

    def close(self) -> None:
        """Release the graphs; safe to call twice."""
        for tracker in (*self._targets.values(), *self._idle):
            tracker.close()
        self._resources.close()

    def __enter__(self) -> MultiTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def load_many(
    bundle: str | Path | Bundle,
    room: int,
    *,
    device: str = "cpu",
    threads: int | None = None,
    precision_hint: str | None = None,
    memory: str | None = None,
    recover: Recover | None = None,
) -> MultiTracker:
    """Open a bundle for several targets at once.

    Args:
        bundle: as for `edgetrack.load`, and so the other arguments.
        room: the most targets at a time, 1 to 64.

    Raises:
        UsageError, BundleError, BackendMissingError, DeviceUnavailableError: see their messages.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    options = backend_options(opened, device, threads, precision_hint)
    return MultiTracker(opened, options, room, memory=memory, recover=recover)
