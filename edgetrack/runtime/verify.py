"""`verify`: prove a bundle again, anywhere, with numpy and its backend alone; and what it compares and reports.

The comparison of two tensors is the one of every export's proof. A compiled bundle's layers lie in `layers.json`.

A bundle of a lower precision has its own outputs on record. The same arithmetic (backend, instructions, device) has to
give them again; another one rounds elsewhere, so there the boxes that the outputs stand for decide.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from edgetrack.arrays import Array, all_finite
from edgetrack.box import Box
from edgetrack.bundle import Bundle, read_json
from edgetrack.bundle.golden import GOLDEN_FILE, read_golden
from edgetrack.bundle.manifest import GraphInfo, Manifest, TensorInfo
from edgetrack.capabilities import backend_of, find_target, proof_target
from edgetrack.errors import BackendMissingError, BundleError
from edgetrack.io import encode_json
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, StructureFinding, allocate
from edgetrack.runtime.prompt import prepare_text
from edgetrack.runtime.trackers.base import find_procedure, operators_of
from edgetrack.system.machine import cpu_flags

PARITY_FILE, LAYERS_FILE = "parity.json", "layers.json"
SAME_ATOL = 1e-3
"""What the same arithmetic may differ by where an output is all but zero."""
SAME_BOX = 0.05
"""What other arithmetic may move an edge of a box by, as a share of the root of its area."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor against its reference. The test is |a - b| <= atol + rtol |b| everywhere, b the reference.

    `atol` is what was allowed in all, a share of the reference's largest magnitude included.

    Attributes:
        name: what was compared.
        ok: whether it passed; NaN and infinity never do.
        max_abs, mean_abs, q999_abs: largest, mean and 99.9 % quantile of |a - b|.
        reference_max: largest |b|.
        smallest_atol: the smallest atol that would have passed with this rtol.
    """

    name: str
    ok: bool
    atol: float
    rtol: float
    max_abs: float
    mean_abs: float
    q999_abs: float
    reference_max: float
    smallest_atol: float


def compare(name: str, found: Array, reference: Array, *, atol: float, rtol: float, peak: float = 0.0) -> Comparison:
    """Compare a tensor with its reference; both finite and of one shape, else it fails with infinite errors.

    Args:
        atol, rtol: absolute, and relative to each value of the reference.
        peak: relative to the largest magnitude in the reference.
    """
    a, b = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        worst = float("inf")
        return Comparison(
            name=name, ok=False, atol=atol, rtol=rtol, max_abs=worst, mean_abs=worst, q999_abs=worst,
            reference_max=worst, smallest_atol=worst,
        )  # fmt: skip
    error = np.abs(a - b)
    largest = float(np.abs(b).max(initial=0.0))
    atol += peak * largest
    excess = float((error - rtol * np.abs(b)).max(initial=0.0))
    return Comparison(
        name=name,
        ok=excess <= atol,
        atol=atol,
        rtol=rtol,
        max_abs=float(error.max(initial=0.0)),
        mean_abs=float(error.mean()) if error.size else 0.0,
        q999_abs=float(np.quantile(error, 0.999)) if error.size else 0.0,
        reference_max=largest,
        smallest_atol=max(0.0, excess),
    )


def run_graph(graph: CompiledGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph on given inputs; the outputs are copies."""
    for name, buffer in graph.inputs.items():
        np.copyto(buffer, inputs[name], casting="no")
    graph.run()
    return {name: buffer.copy() for name, buffer in graph.outputs.items()}


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found: every graph compared with the recorded outputs; damaged files raise before that.

    `verified` is `outputs`; where this system does not run the bundle, `interpreted` where what stands in for its
    target computed them, besides `findings` on its structure, and `structure` where those are all there is. `note` says
    what stood in, or what the outputs were recorded on where that is other arithmetic than here, and what decided;
    `placement` is where each graph ran, as its backend says.
    """

    schema: int = 1
    bundle: str
    weights: str
    files: int
    ok: bool
    checks: tuple[Comparison, ...]
    verified: str = "outputs"
    findings: tuple[StructureFinding, ...] = ()
    note: str = ""
    placement: dict[str, str] = {}


class _Limits(msgspec.Struct, frozen=True):
    atol: float
    rtol: float
    peak: float = 0.0


class _Proof(msgspec.Struct, frozen=True):
    comparisons: tuple[_Limits, ...]
    allowed: _Limits | None = None
    arithmetic: str = ""
    boxes: dict[str, bool] = {}

    def limits(self, here: str, same_peak: float) -> _Limits:
        """What may differ on the arithmetic `here`; `same_peak` where that is what recorded them."""
        found = self.allowed or self.comparisons[0]
        if self.arithmetic == here:
            # However wide the export's own bound was: --atol is about FP32, not about a second run.
            return _Limits(min(found.atol, SAME_ATOL), min(found.rtol, same_peak), min(found.peak, same_peak))
        return found


def arithmetic_of(target: str, device: str = "cpu") -> str:
    """What decides how a lower precision rounds here: the backend's own words, or its version, processor and device."""
    if stated := backend_of(target).arithmetic:
        return stated
    versions = " ".join(f"{name} {version}" for name, version in find_target(target).versions().items())
    return f"{versions or target} on {device}, {platform.machine()} {' '.join(cpu_flags())}".strip()


class _RecordedGraph(CompiledGraph):
    """No file: whatever is written into its outputs is what it computes."""

    def __init__(self, info: GraphInfo) -> None:
        self.info, self.inputs, self.outputs = info, allocate(info.inputs), allocate(info.outputs)
        self._closed = False

    def _open(self, path: object, options: object) -> None:
        """There is no file."""

    def _infer(self) -> None:
        """The outputs stay."""

    def _close(self) -> None:
        """There is nothing to release."""


def decoded_box(manifest: Manifest, outputs: Mapping[str, Array], folder: Path) -> Box | None:
    """The box that outputs of `step` stand for where the target was 100 x 100 pixels in the middle of a large frame.

    Args:
        manifest: of the bundle.
        outputs: of `step`, by name.
        folder: of the bundle.

    Returns:
        x, y, w, h in pixels; None where the tracker's procedure decodes no single `step`, or what it needs besides is
        not installed.
    """
    graphs = {info.name: _RecordedGraph(info) for info in manifest.graphs}
    procedure = find_procedure(manifest)(manifest, graphs)
    procedure.take_files(folder)
    frame = np.zeros((2048, 2048, 3 * procedure.modalities), np.uint8)
    try:
        prepare_text(procedure)
        procedure.init(frame, Box(974.0, 974.0, 100.0, 100.0))
        scale = procedure.fill(frame)
        for name, value in outputs.items():
            np.copyto(graphs["step"].outputs[name], value)
        found = procedure.decode(frame, scale) if all_finite(*procedure.maps) else None
    except (NotImplementedError, KeyError, BackendMissingError):
        return None
    return None if found is None else found.box


def compare_boxes(name: str, found: Box, reference: Box) -> Comparison:
    """Compare two boxes, in pixels: each number within `SAME_BOX` of the root of the reference's area."""
    allowed = SAME_BOX * math.sqrt(max(0.0, reference.w * reference.h))
    return compare(name, np.array(found), np.array(reference), atol=allowed, rtol=0.0)


def _proof_of(bundle: Bundle) -> _Proof:
    try:
        proof = read_json(bundle.path(PARITY_FILE), _Proof)
    except BundleError as error:
        raise BundleError(f"{PARITY_FILE} of bundle {bundle.manifest.name!r} is not a parity report: {error}") from None
    if not proof.comparisons:
        raise BundleError(f"{PARITY_FILE} of bundle {bundle.manifest.name!r} holds no comparison; export it again")
    return proof


def _golden(arrays: Mapping[str, Array]) -> dict[str, dict[str, dict[str, dict[str, Array]]]]:
    golden: dict[str, dict[str, dict[str, dict[str, Array]]]] = {}
    for key, array in arrays.items():
        parts = key.split("/", 3)
        if len(parts) != 4 or parts[2] not in ("in", "out"):
            raise BundleError(f"{GOLDEN_FILE} holds an entry {key!r}; expected sample/graph/in|out/tensor")
        sample, graph, side, name = parts
        golden.setdefault(graph, {}).setdefault(sample, {"in": {}, "out": {}})[side][name] = array
    return golden


def verify_bundle(bundle: Bundle, options: BackendOptions) -> Verification:
    """Run every graph on the recorded inputs and compare the outputs with the recorded ones of PyTorch.

    Where this system does not run the bundle, its structure is read, and if that is sound, what proves its target's
    exports stands in for the target, named as what it is.

    Raises:
        BundleError: the record is missing or malformed, or does not cover every graph.
        BackendMissingError, DeviceUnavailableError: the bundle cannot be run here.
    """
    target, findings = find_target(bundle.manifest.target), tuple[StructureFinding, ...]()
    backend, stand_in = backend_of(target.name), ""
    if not backend.runs_here():
        findings = tuple(backend.check_structure(bundle))
        if not target.proof or not all(finding.ok for finding in findings):
            return _verify_structure(bundle, findings)
        row = proof_target(target.name)
        stand_in = f"{target.name} needs {target.device_needed}; computed here in {row.about}"
        target, backend, options = row, backend_of(row.name), replace(options, device="cpu")
    options = replace(options, operators=operators_of(bundle.manifest))
    proof, here = _proof_of(bundle), arithmetic_of(target.name, options.device)
    limits = proof.limits(here, backend.same_peak)
    elsewhere = bool(proof.arithmetic) and proof.arithmetic != here
    golden = _golden(read_golden(bundle))
    checks: list[Comparison] = []
    decided: list[Comparison] = []
    placement: dict[str, str] = {}
    for info in bundle.manifest.graphs:
        samples = golden.get(info.name, {})
        if not samples:
            raise BundleError(f"{GOLDEN_FILE} has no record of graph {info.name!r}; export the bundle again")
        graph = backend(info, bundle.path(info.file), options)
        placement[info.name] = graph.placement
        try:
            for sample, sides in samples.items():
                _check_signature(info.name, sides["in"], info.inputs)
                _check_signature(info.name, sides["out"], info.outputs)
                found = run_graph(graph, sides["in"])
                checks.extend(
                    compare(f"{info.name}/{name} #{sample}", found[name], reference, **msgspec.structs.asdict(limits))
                    for name, reference in sides["out"].items()
                )
                if elsewhere and info.name == "step" and proof.boxes.get(sample):
                    boxes = [decoded_box(bundle.manifest, outputs, bundle.folder) for outputs in (found, sides["out"])]
                    if boxes[0] is not None and boxes[1] is not None:
                        decided.append(compare_boxes(f"box of {info.name} #{sample}, px", boxes[0], boxes[1]))
        finally:
            graph.close()
    note = _note(proof.arithmetic, here, checks, decided) if elsewhere else ""
    checks += decided
    return Verification(
        bundle=bundle.manifest.name,
        weights=bundle.manifest.weights.origin,
        files=len(bundle.manifest.files),
        ok=all(c.ok for c in checks),
        checks=tuple(checks),
        verified="interpreted" if stand_in else "outputs",
        findings=findings,
        note="; ".join(filter(None, (stand_in, note))),
        placement={name: place for name, place in placement.items() if place},
    )


def _note(recorded: str, here: str, checks: list[Comparison], boxes: list[Comparison]) -> str:
    """What differs, and what decided."""
    share = max((one.max_abs / one.reference_max for one in checks if one.reference_max), default=0.0)
    decides = (
        f"{len(boxes)} decoded boxes decide, which moved by at most {max(one.max_abs for one in boxes):.2g} px"
        if boxes
        else "no decoded box can decide: this precision alone moves them all; `compare` on sequences does"
    )
    return (
        f"recorded with {recorded}; run with {here}: other arithmetic rounds elsewhere, outputs differ by up to "
        f"{share:.2%} of their largest magnitude; {decides}"
    )


def _verify_structure(bundle: Bundle, findings: tuple[StructureFinding, ...]) -> Verification:
    return Verification(
        bundle=bundle.manifest.name,
        weights=bundle.manifest.weights.origin,
        files=len(bundle.manifest.files),
        ok=all(finding.ok for finding in findings),
        checks=(),
        verified="structure",
        findings=findings,
    )


def _check_signature(graph: str, found: Mapping[str, Array], expected: tuple[TensorInfo, ...]) -> None:
    recorded = {name: (str(array.dtype), array.shape) for name, array in found.items()}
    declared = {t.name: (t.dtype, t.shape) for t in expected}
    if recorded != declared:
        raise BundleError(f"{GOLDEN_FILE} records {recorded} for graph {graph!r}, the manifest says {declared}")


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer: its type, the type of what it returns, and the layers of the file that were fused into it."""

    name: str
    type: str
    precision: str
    fused: tuple[str, ...] = ()


class GraphLayers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The layers of one graph.

    Attributes:
        source: who was asked: `parsed network` (before any fusion), `engine inspector` or `model specification`.
        tool: package and version.
        layers: in their order.
    """

    source: str
    tool: str
    layers: tuple[Layer, ...]

    def types(self) -> dict[str, int]:
        """How many layers there are of each type, the most frequent first."""
        return dict(Counter(layer.type for layer in self.layers).most_common())

    def precisions(self) -> dict[str, int]:
        """How many layers return each type of number, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())


class LayerReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Layers of every graph of a bundle, by the graph's name."""

    schema: int = 1
    graphs: dict[str, GraphLayers]

    def to_json(self) -> bytes:
        """The same report gives the same bytes."""
        return encode_json(self, indent=1, order="deterministic") + b"\n"
