"""Inputs on which an exported graph is held against PyTorch: real crops, taken by running the tracker, and noise."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import Manifest, TensorInfo
from edgetrack.errors import SourceError
from edgetrack.media.sources import open_source
from edgetrack.models.base import GraphModule
from edgetrack.runtime.backends.base import CompiledGraph, allocate
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import prepare_text
from edgetrack.runtime.trackers.base import find_procedure

# Two scenes, three moments each: the first frame, one soon after, one where the target has moved and changed.
DEFAULT_SOURCES = ("synthetic:drift?frames=25", "synthetic:scale?frames=25")
MOMENTS = (1, 8, 20)


@dataclass(frozen=True)
class Sample:
    """What the graphs are fed at one frame beside one another's outputs: images, masks, carried state; by input."""

    name: str
    inputs: Mapping[str, Array]


class ModuleGraph(CompiledGraph):
    """A torch graph behind the runtime's face, so that the tracker itself cuts the crops."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.inputs = allocate(module.inputs)
        self.outputs = allocate(module.outputs)
        self._closed = False

    def _open(self, path: object, options: object) -> None:
        """There is no file."""

    def _close(self) -> None:
        """There is nothing to release."""

    def _infer(self) -> None:
        import torch

        found = self.module(*[torch.from_numpy(self.inputs[t.name]) for t in self.module.inputs])
        for name, value in found.items():
            np.copyto(self.outputs[name], value.numpy())


def image_names(modules: Sequence[GraphModule]) -> list[tuple[str, tuple[int, ...]]]:
    """The inputs that are images of all graphs, with their shapes: uint8, or float32 with three channels last."""
    return [(t.name, t.shape) for graph in modules for t in graph.inputs if _is_image(t)]


def _is_image(info: TensorInfo) -> bool:
    return info.dtype == "uint8" or (len(info.shape) >= 3 and info.shape[-1] == 3)


def _given(modules: Sequence[GraphModule], graphs: Mapping[str, ModuleGraph]) -> dict[str, Array]:
    """Copies of what the procedure fed the graphs, without what a graph before gave."""
    made: set[str] = set()
    given = {}
    for module in modules:
        buffers = graphs[module.name].inputs
        given.update({t.name: buffers[t.name].copy() for t in module.inputs if t.name not in made})
        made.update(t.name for t in module.outputs)
    return given


def real_samples(manifest: Manifest, modules: Sequence[GraphModule], source: str) -> Iterator[Sample]:
    """What the graphs are fed on a source by the tracker's own procedure, while PyTorch tracks.

    Raises:
        SourceError: the source cannot be read or has no box for its first frame.
    """
    graphs = {module.name: ModuleGraph(module) for module in modules}
    procedure = find_procedure(manifest)(manifest, graphs)
    prepare_text(procedure)
    with open_source(source) as frames:
        start = frames.ground_truth[0] if frames.ground_truth else None
        if start is None:
            raise SourceError(
                f"{source!r} has no ground-truth box for its first frame, which parity needs to start from"
            )
        for index, plain in enumerate(itertools.islice(frames, max(MOMENTS) + 1)):
            frame = with_stand_in(plain, procedure.modalities)
            if index == 0:
                procedure.init(frame, start)
                continue
            procedure.update(frame, lambda stage: None)
            if index in MOMENTS:
                yield Sample(f"{frames.name}#{index}", _given(modules, graphs))


def noise_sample(modules: Sequence[GraphModule], like: Sample | None = None) -> Sample:
    """Images of normal noise around mid-grey, each drawn from its input's name: harder on a graph than any photo.

    What is no image, masks and carried state, is that of the sample `like`.
    """
    inputs: dict[str, Array] = {} if like is None else dict(like.inputs)
    for graph in modules:
        for info in graph.inputs:
            if _is_image(info):
                rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"input:{info.name}".encode())))
                values = np.clip(np.rint(128 + 48 * rng.standard_normal(info.shape)), 0, 255)
                inputs[info.name] = values.astype(info.dtype)
    return Sample("noise", inputs)
