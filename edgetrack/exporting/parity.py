"""Proof that an exported bundle computes what the model computes; a part of every export.

Two claims, each for every sample (real crops, taken by running the tracker, and noise):

* `graph`: each exported graph, fed what PyTorch's shipped module is fed, returns what it returns;
* `whole`: the exported graphs chained (state from the exported `init` graphs) return what the published network returns
  from the same images in one piece.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import Manifest, TensorInfo
from edgetrack.capabilities import Target, backend_of, proof_target
from edgetrack.errors import ParityError, SourceError
from edgetrack.exporting.recipe import Tolerance
from edgetrack.media.sources import open_source
from edgetrack.models.base import GraphModule
from edgetrack.runtime.backends.base import CompiledGraph, allocate
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import prepare_text
from edgetrack.runtime.trackers.base import find_procedure
from edgetrack.runtime.verify import Comparison, compare, run_graph

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


def real_samples(manifest: Manifest, modules: Sequence[GraphModule], source: str, folder: Path) -> Iterator[Sample]:
    """What the graphs are fed on a source by the tracker's own procedure, while PyTorch tracks.

    `folder` is the bundle's, where the files beside its graphs are.

    Raises:
        SourceError: the source cannot be read or has no box for its first frame.
    """
    graphs = {module.name: ModuleGraph(module) for module in modules}
    procedure = find_procedure(manifest)(manifest, graphs)
    procedure.take_files(folder)
    prepare_text(procedure)
    with open_source(source) as frames:
        start = frames.truth_at(0)
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


GraphRunner = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]


class ParityReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All comparisons of one export with its reference; kept in the bundle as `parity.json`.

    `proven` names what was compared, `not_run` what was not run: empty where it ran what the bundle is for.
    """

    schema: int = 1
    reference: str = "PyTorch"
    proven: str = ""
    not_run: str = ""
    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether all passed; a report without comparisons proves nothing."""
        return bool(self.comparisons) and all(c.ok for c in self.comparisons)

    @property
    def worst(self) -> Comparison:
        """The one nearest to, or furthest past, its tolerance; where the relative part covers all, the largest."""
        return max(self.comparisons, key=lambda c: (c.smallest_atol, c.max_abs))

    def require(self, option: str = "--atol") -> None:
        """Raise ParityError, with the failures and the value of `option` that would have passed, unless all passed."""
        failed = [c for c in self.comparisons if not c.ok]
        if not failed:
            return
        lines = [
            f"  {c.name}: max {c.max_abs:.3g}, 99.9 % {c.q999_abs:.3g}, mean {c.mean_abs:.3g}; allowed "
            f"{c.atol:g} + {c.rtol:g} x |reference|; atol {_rounded_up(c.smallest_atol)} would have passed"
            for c in sorted(failed, key=lambda c: -c.smallest_atol)[:12]
        ]
        raise ParityError(
            f"{len(failed)} of {len(self.comparisons)} comparisons with {self.reference} fail; nothing was written.\n"
            + "\n".join(lines)
            + self._remedy(option)
        )

    def _remedy(self, option: str) -> str:
        if math.isinf(self.worst.smallest_atol):
            return "\nno tolerance passes them: a tensor holds NaN or infinity, or has another shape"
        return (
            f"\nthe smallest {option} that passes them all is {_rounded_up(self.worst.smallest_atol)} (with --rtol "
            f"{self.worst.rtol:g}); raise it only if you know why the difference is harmless"
        )


def _rounded_up(value: float) -> str:
    """Three digits, never below the value: an --atol copied from the message must pass."""
    return f"{1.006 * value:.3g}"


def torch_runner(modules: Sequence[GraphModule]) -> GraphRunner:
    """Run a torch graph by name."""
    by_name = {module.name: module for module in modules}

    def run(name: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        module = by_name[name]
        found = module(*[torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in module.inputs])
        return {key: value.numpy() for key, value in found.items()}

    return run


def exported_runner(graphs: Mapping[str, CompiledGraph]) -> GraphRunner:
    """Run an exported graph by name."""
    return lambda name, inputs: run_graph(graphs[name], inputs)


def proof_of(target: Target) -> tuple[str, str]:
    """`proven` and `not_run` of a report on a target."""
    ran = proof_target(target.name)
    proven = backend_of(ran.name).engine
    if not target.proof and not target.device_needed:
        return proven, ""
    compared = f"the same files, in {ran.about}" if target.proof else "simulations of it"
    return (
        proven,
        f"{target.name} itself, which needs {target.device_needed}; compared were {compared}. "
        f"`edgetrack verify` on such a device runs it",
    )


def chained(modules: Sequence[GraphModule], run: GraphRunner, sample: Sample) -> dict[str, dict[str, dict[str, Array]]]:
    """Run all graphs in order, each fed with the sample's inputs and what earlier graphs returned.

    Returns:
        graph -> "in" or "out" -> tensor name -> array.
    """
    known: dict[str, Array] = dict(sample.inputs)
    record: dict[str, dict[str, dict[str, Array]]] = {}
    for module in modules:
        inputs = {t.name: known[t.name] for t in module.inputs}
        outputs = dict(run(module.name, inputs))
        known.update(outputs)
        record[module.name] = {"in": inputs, "out": outputs}
    return record


def prove(
    shipped: Sequence[GraphModule],
    published: Sequence[GraphModule],
    exported: GraphRunner,
    samples: Sequence[Sample],
    tolerance: Tolerance,
) -> tuple[ParityReport, list[dict[str, dict[str, dict[str, Array]]]]]:
    """Compare on all samples.

    Returns:
        The report, and for each sample what PyTorch's shipped modules took and gave: the golden record.
    """
    comparisons: list[Comparison] = []
    golden: list[dict[str, dict[str, dict[str, Array]]]] = []
    limits = msgspec.structs.asdict(tolerance)
    together = [module for module in shipped if module.role == "batch"]
    shipped = [module for module in shipped if module.role != "batch"]
    for sample in samples:
        own = chained(shipped, torch_runner(shipped), sample)
        golden.append(own)
        for module in shipped:
            found = exported(module.name, own[module.name]["in"])
            for name, reference in own[module.name]["out"].items():
                comparisons.append(
                    compare(f"graph {module.name}/{name} on {sample.name}", found[name], reference, **limits)
                )
        whole = chained(published, torch_runner(published), sample)
        pieces = chained(shipped, exported, sample)
        for module in shipped:
            if module.role != "init":
                for name, reference in whole[module.name]["out"].items():
                    value = pieces[module.name]["out"][name]
                    comparisons.append(
                        compare(f"whole {module.name}/{name} on {sample.name}", value, reference, **limits)
                    )
    for module in together:
        comparisons += _prove_batch(module, exported, samples, golden, limits)
    return ParityReport(comparisons=tuple(comparisons)), golden


def stacked(rows: Sequence[Mapping[str, Array]], tensors: Sequence[TensorInfo]) -> dict[str, Array]:
    """What one target each is fed as what a graph of several is fed; `tensors` are that graph's."""
    return {t.name: np.stack([row[t.name] for row in rows]).reshape(t.shape) for t in tensors}


def _prove_batch(
    module: GraphModule,
    exported: GraphRunner,
    samples: Sequence[Sample],
    golden: Sequence[dict[str, dict[str, dict[str, Array]]]],
    limits: Mapping[str, float],
) -> list[Comparison]:
    """Each sample and those behind it as the rows of one run, against PyTorch's `step` on one after the other."""
    comparisons = []
    count = module.inputs[0].shape[0]
    for index, sample in enumerate(samples):
        rows = [golden[(index + row) % len(golden)]["step"] for row in range(count)]
        record = {
            "in": stacked([row["in"] for row in rows], module.inputs),
            "out": stacked([row["out"] for row in rows], module.outputs),
        }
        golden[index][module.name] = record
        found = exported(module.name, record["in"])
        comparisons += [
            compare(f"graph {module.name}/{name} from {sample.name}", found[name], reference, **limits)
            for name, reference in record["out"].items()
        ]
    return comparisons


def count_flops(graph: GraphModule) -> int:
    """Counted by PyTorch while the graph runs on zeros, or by the module itself; elementwise work is not counted."""
    if (own := getattr(graph.module, "flops", None)) is not None:
        return int(own())
    with FlopCounterMode(display=False) as counter:
        graph(*graph.example())
    return int(counter.get_total_flops())
