"""What the experts of a network's linear maps make of the same tokens: recorded while it tracks, and drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgetrack.arrays import Floats
from edgetrack.errors import SourceError, UsageError
from edgetrack.io import write_whole
from edgetrack.media import open_source
from edgetrack.models.base import find_model
from edgetrack.runtime.session import load

TOKENS = 32
"""Of a frame, evenly over all that a map is given."""
_COLUMNS = 3


@dataclass(frozen=True)
class ExpertOutputs:
    """Of one map.

    Attributes:
        outputs: float32 (tokens, experts, channels), what each expert adds where its weight is 1.
        weights: float32 (tokens, experts), the router's; a token's add up to 1.
    """

    outputs: Floats
    weights: Floats


def record_experts(bundle: str, layer: int | None, source: str, frames: int) -> dict[str, ExpertOutputs]:
    """Follow a target and keep what the experts of one layer make of some of the tokens.

    Args:
        bundle: of the published network, with experts.
        layer: from 1; None is the last.
        source: has a ground-truth box for its first frame.
        frames: that are tracked behind the first.

    Returns:
        By the name of the map, in the order in which the layer runs them.

    Raises:
        UsageError: another bundle, or no such layer.
        SourceError: the source has no box, or no second frame.
    """
    with ExitStack() as stack:
        tracker = stack.enter_context(load(bundle))
        manifest = tracker.manifest
        family = manifest.tracker if manifest.family is msgspec.UNSET else manifest.family
        maps = _maps(family, getattr(tracker.graphs["step"], "network", None), layer)
        images = stack.enter_context(open_source(source))
        start = images.truth_at(0)
        if start is None:
            raise SourceError(f"{source!r} has no ground-truth box for its first frame; give another --source")
        found: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in maps}
        for name, module in maps.items():
            stack.callback(module.register_forward_pre_hook(_keeper(found[name])).remove)
        for index, frame in enumerate(islice(images, frames + 1)):
            tracker.update(frame) if index else tracker.init(frame, start)
        if not all(found.values()):
            raise SourceError(f"{source!r} has no frame behind its first one; give another --source")
    return {
        name: ExpertOutputs(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
        for name, kept in found.items()
    }


def _maps(family: str, network: Any, layer: int | None) -> Mapping[str, Any]:
    find = getattr(find_model(family), "experts", None)
    if find is None:
        raise UsageError(f"tracker family {family!r} has no experts; --experts is for one whose linear maps have some")
    if network is None:
        raise UsageError(
            "--experts looks into the published network, which this bundle does not hold; export one that does with "
            "--target torch"
        )
    layers = find(network)
    if layer is not None and not 1 <= layer <= len(layers):
        raise UsageError(f"--layer {layer}: this network has layers 1 to {len(layers)}")
    number = len(layers) if layer is None else layer
    return {f"layer {number} {name}": module for name, module in layers[number - 1].items()}


def _keeper(kept: list[tuple[Floats, Floats]]) -> Callable[[Any, tuple[Any, ...]], None]:
    def keep(module: Any, given: tuple[Any, ...]) -> None:
        tokens = given[0][0]
        chosen = tokens[np.linspace(0, len(tokens) - 1, min(TOKENS, len(tokens))).round().astype(np.int64)]
        outputs, weights = module.each(chosen)
        kept.append((outputs.float().cpu().numpy(), weights.float().cpu().numpy()))

    return keep


def arrays(found: Mapping[str, ExpertOutputs]) -> dict[str, Floats]:
    """For a .npz file: `layer 12 q/outputs` and `layer 12 q/weights`."""
    named = {}
    for name, one in found.items():
        named[f"{name}/outputs"], named[f"{name}/weights"] = one.outputs, one.weights
    return named


def principal(values: Floats) -> tuple[Floats, tuple[float, float]]:
    """Rows (N, channels) in the plane of their two principal components, (N, 2), and the share of each in the variance.

    The sign of an axis is that of its largest coordinate. Fewer dimensions are filled with 0.
    """
    centred = np.asarray(values, np.float64) - np.mean(values, axis=0, dtype=np.float64)
    tall = centred.shape[0] > centred.shape[1]
    powers, vectors = np.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    largest, vectors = np.maximum(powers[::-1][:2], 0), vectors[:, ::-1][:, :2]
    plane = np.zeros((len(centred), 2))
    shown = centred @ vectors if tall else vectors * np.sqrt(largest)
    plane[:, : shown.shape[1]] = shown
    for axis in plane.T:
        axis *= 1.0 if axis[np.abs(axis).argmax()] >= 0 else -1.0
    total = float(np.maximum(powers, 0).sum())
    first, second = (*(float(value) / total if total > 0 else 0.0 for value in largest), 0.0)[:2]
    return plane, (first, second)


def draw_experts(found: Mapping[str, ExpertOutputs], path: Path) -> None:
    """A panel a map: a dot for what an expert makes of a token, a colour for each expert, by two principal components.

    Raises:
        EdgetrackError: the file cannot be written; what was there is kept.
    """
    from matplotlib.figure import Figure

    lines = -(-len(found) // _COLUMNS)
    figure = Figure(figsize=(12, 0.6 + 3.6 * lines), dpi=100, layout="constrained")
    axes = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
    for axis, (name, one) in zip(axes, found.items(), strict=False):
        tokens, experts, channels = one.outputs.shape
        plane, shares = principal(one.outputs.reshape(tokens * experts, channels))
        points = plane.reshape(tokens, experts, 2)
        for expert in range(experts):
            axis.scatter(*points[:, expert].T, s=9, alpha=0.6, linewidths=0, label=f"expert {expert + 1}")
        axis.set_title(f"{name}: {shares[0]:.0%} and {shares[1]:.0%} of the variance", fontsize=9, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize=8, markerscale=2)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    write_whole(path, drawn.getbuffer())
