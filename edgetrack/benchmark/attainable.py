"""What a step would take where every layer ran as fast as it does alone, beside which a measured time means something.

The roofline is the processor's best rate; small layers cannot reach it. Here each layer of the graph as its engine
runs it is timed alone, in its precision and with its threads, by the least of many runs with its inputs in cache. What
lies between the sum and a measured step is then the engine's: caches that other layers fill, changes of layout, threads
that wait for each other, the calls between layers.
"""

from __future__ import annotations

import pkgutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from edgetrack.benchmark.protocol import Attain, Attainable, LimitPart
from edgetrack.bundle.reader import open_bundle
from edgetrack.capabilities import backend_of, find_target
from edgetrack.errors import EdgetrackError
from edgetrack.io import BAD_JSON, encode_json, read_bytes, sha256, write_whole
from edgetrack.resources import cache_folder
from edgetrack.runtime.backends.layers import LayerTime, LayerTimer, TimedLayer
from edgetrack.runtime.session import backend_options
from edgetrack.runtime.trackers.base import find_procedure
from edgetrack.system.clock import Clock, MonotonicClock

_GRAPH_SHARE = 0.15
"""Of the time, for the layers in their graph."""
_LAYER_S = 0.06
_SMALLEST_MOVE = 1 << 12
_MAX_KEPT_BYTES = 4 << 20


def attainable_of(request: Attain, *, clock: Clock | None = None, cache: Path | None = None) -> Attainable:
    """The attainable limit of a bundle's step graphs.

    Args:
        request: which bundle, and how it is run.
        clock: ends the measurement.
        cache: where times of layers alone are kept, by graph, versions, processor, threads and hint, unless the machine
            is busy; None: `cache_folder`.

    Raises:
        BackendMissingError: a package is missing.
        EdgetrackError: the bundle cannot be opened.
    """
    clock, cache = clock or MonotonicClock(), cache or cache_folder()
    with open_bundle(request.bundle) as bundle:
        backend = backend_of(bundle.manifest.target)
        if not backend.layer_timer:
            return Attainable(engine=backend.engine, reason=f"{backend.engine} does not tell its layers' times")
        options = backend_options(bundle, request.device, request.threads, request.hint)
        options = replace(options, operators=find_procedure(bundle.manifest).operators)
        make: type[LayerTimer] = pkgutil.resolve_name(backend.layer_timer)
        steps = [graph for graph in bundle.manifest.graphs if graph.role == "step"]
        key = {
            **{graph.file: bundle.manifest.files[graph.file].sha256 for graph in steps},
            **find_target(bundle.manifest.target).versions(),
            "processor": request.processor,
            "threads": options.threads,
            "hint": options.precision_hint,
        }
        kept = None if cache is None else cache / "layers" / f"{sha256(encode_json(key))[:32]}.json"
        known = {} if kept is None else _read(kept)
        start = clock.now_ns()
        found = limit_of([make(bundle.path(graph.file), options) for graph in steps], request.seconds, clock, known)
        if kept is not None and not request.busy:
            with suppress(EdgetrackError, OSError):  # it is measured again then
                kept.parent.mkdir(exist_ok=True, mode=0o700)
                write_whole(kept, encode_json(known))
    now = datetime.now(timezone.utc)
    return msgspec.structs.replace(found, took_s=(clock.now_ns() - start) / 1e9, date=f"{now:%Y-%m-%d %H:%M} UTC")


def limit_of(timers: Sequence[LayerTimer], seconds: float, clock: Clock, known: dict[str, LayerTime]) -> Attainable:
    """The limit of graphs that run one after another.

    Layers that take longest in their graph are timed alone first; where the time is over, the others count as in the
    graph.

    Args:
        timers: one a graph.
        seconds: about how long it may take.
        clock: ends it.
        known: times of layers alone by shape, kept from before; what is measured is added.
    """
    start = clock.now_ns()
    layers = [(one, timer) for timer in timers for one in timer.layers(seconds * _GRAPH_SHARE / len(timers))]
    in_graph: dict[str, float] = {}
    total: Counter[str] = Counter()
    for one, _ in layers:
        in_graph[one.shape] = min(one.seconds, in_graph.get(one.shape, one.seconds))
        total[one.shape] += round(one.seconds * 1e9)
    first = {one.shape: (one, timer) for one, timer in reversed(layers)}
    asked = {_bytes_class(one.moved): timer for one, timer in layers if one.role == "move"}
    for moved, timer in asked.items():
        if _move(moved) not in known:
            known[_move(moved)] = LayerTime(timer.move(moved, _LAYER_S), "move")
    compute = [shape for shape, _ in total.most_common() if first[shape][0].role == "compute"]
    for shape in compute:
        if shape not in known and (clock.now_ns() - start) / 1e9 < seconds:
            one, timer = first[shape]
            measured = timer.alone(one, _LAYER_S)
            if measured is not None:
                known[shape] = measured
    return _sum([one for one, _ in layers], in_graph, known, timers[0]) if layers else Attainable(reason="no layers")


def _sum(
    layers: Sequence[TimedLayer], in_graph: Mapping[str, float], known: Mapping[str, LayerTime], timer: LayerTimer
) -> Attainable:
    parts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    primitives: dict[str, float] = defaultdict(float)
    for one in layers:
        least, primitive = in_graph[one.shape], one.primitive
        if one.role == "own":
            least = 0.0
        elif one.role == "move":
            size = _bytes_class(one.moved)
            least = min(least, known[_move(size)].seconds * one.moved / size)
        elif alone := known.get(one.shape):
            least, primitive = min(least, alone.seconds), alone.primitive
        kind = "changes of layout" if one.role == "own" else one.kind
        parts[kind] = [a + b for a, b in zip(parts[kind], (1, least * 1e3, one.seconds * 1e3), strict=True)]
        if one.role == "compute":
            primitives[primitive] += least * 1e3
    shapes = {one.shape for one in layers if one.role == "compute"}
    ordered = sorted(parts.items(), key=lambda item: -item[1][2])
    return Attainable(
        limit_ms=sum(limit for _, limit, _ in parts.values()),
        engine=timer.engine,
        instructions=timer.instructions,
        primitives=dict(sorted(primitives.items(), key=lambda item: -item[1])),
        parts=[LimitPart(kind=kind, layers=round(n), limit_ms=a, graph_ms=b) for kind, (n, a, b) in ordered],
        shapes=len(shapes),
        alone=len(shapes & known.keys()),
    )


def _bytes_class(moved: int) -> int:
    """The power of two that a traffic is measured for."""
    return max(_SMALLEST_MOVE, 1 << (moved - 1).bit_length())


def _move(moved: int) -> str:
    return f"move {moved}"


def _read(path: Path) -> dict[str, LayerTime]:
    """What was kept; nothing where that is damaged."""
    if not path.is_file():
        return {}
    try:
        found = msgspec.json.decode(read_bytes(path, _MAX_KEPT_BYTES), type=dict[str, LayerTime])
    except (EdgetrackError, OSError, *BAD_JSON):
        return {}
    return {shape: one for shape, one in found.items() if one.seconds > 0}
