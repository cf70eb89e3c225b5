"""`verify`: prove a bundle again, anywhere, with numpy and its backend alone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgetrack.bundle import Bundle, read_npz
from edgetrack.bundle.manifest import TensorInfo
from edgetrack.capabilities import backend_of
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.base import Array, BackendOptions
from edgetrack.runtime.parity import Comparison, compare, run_graph
from edgetrack.runtime.structure import Finding

GOLDEN_FILE, PARITY_FILE = "golden.npz", "parity.json"


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found: files are sound (else it raises), and every graph against the recorded outputs.

    `verified` is `outputs`, or `structure` where nothing here runs the bundle: `findings` are then all there is.
    """

    schema: int = 1
    bundle: str
    weights: str
    files: int
    ok: bool
    checks: tuple[Comparison, ...]
    verified: str = "outputs"
    findings: tuple[Finding, ...] = ()


class _Limits(msgspec.Struct, frozen=True):
    atol: float
    rtol: float
    peak: float = 0.0


class _Proof(msgspec.Struct, frozen=True):
    comparisons: tuple[_Limits, ...]
    allowed: _Limits | None = None


def _tolerance(bundle: Bundle) -> _Limits:
    try:
        proof = msgspec.json.decode(bundle.path(PARITY_FILE).read_bytes(), type=_Proof)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{PARITY_FILE} of bundle {bundle.manifest.name!r} is not a parity report: {error}") from None
    if not proof.comparisons:
        raise BundleError(f"{PARITY_FILE} of bundle {bundle.manifest.name!r} holds no comparison; export it again")
    return proof.allowed or proof.comparisons[0]


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
    """Run every graph on the recorded inputs and hold the outputs against the recorded ones of PyTorch.

    A bundle that nothing on this system runs, but whose structure its backend can read, is checked as far as that.

    Raises:
        BundleError: the record is missing or malformed, or does not cover every graph.
        BackendMissingError, DeviceUnavailableError: the bundle cannot be run here.
    """
    backend = backend_of(bundle.manifest.target)
    if not backend.runs_here():
        return _verify_structure(bundle, backend.check_structure(bundle))
    limits = _tolerance(bundle)
    golden = _golden(read_npz(bundle.path(GOLDEN_FILE)))
    checks: list[Comparison] = []
    for info in bundle.manifest.graphs:
        samples = golden.get(info.name, {})
        if not samples:
            raise BundleError(f"{GOLDEN_FILE} has no record of graph {info.name!r}; export the bundle again")
        graph = backend(info, bundle.path(info.file), options)
        try:
            for sample, sides in samples.items():
                _check_signature(info.name, sides["in"], info.inputs)
                _check_signature(info.name, sides["out"], info.outputs)
                found = run_graph(graph, sides["in"])
                checks.extend(
                    compare(f"{info.name}/{name} #{sample}", found[name], reference, **msgspec.structs.asdict(limits))
                    for name, reference in sides["out"].items()
                )
        finally:
            graph.close()
    return Verification(
        bundle=bundle.manifest.name,
        weights=bundle.manifest.weights.origin,
        files=len(bundle.manifest.files),
        ok=all(c.ok for c in checks),
        checks=tuple(checks),
    )


def _verify_structure(bundle: Bundle, findings: list[Finding]) -> Verification:
    return Verification(
        bundle=bundle.manifest.name,
        weights=bundle.manifest.weights.origin,
        files=len(bundle.manifest.files),
        ok=all(finding.ok for finding in findings),
        checks=(),
        verified="structure",
        findings=tuple(findings),
    )


def _check_signature(graph: str, found: Mapping[str, Array], expected: tuple[TensorInfo, ...]) -> None:
    recorded = {name: (str(array.dtype), array.shape) for name, array in found.items()}
    declared = {t.name: (t.dtype, t.shape) for t in expected}
    if recorded != declared:
        raise BundleError(f"{GOLDEN_FILE} records {recorded} for graph {graph!r}, the manifest says {declared}")
