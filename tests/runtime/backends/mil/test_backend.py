"""The reference interpreter on exported packages: PyTorch's outputs in every precision, and what was changed shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle import open_bundle
from edgetrack.bundle.golden import read_golden
from edgetrack.bundle.reader import Bundle
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, UsageError
from edgetrack.quantization.lower import recorded
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.coreml.backend import CoreMlGraph
from edgetrack.runtime.backends.mil.backend import MilGraph
from edgetrack.runtime.backends.mil.package import main_block, read_spec, specification_file
from edgetrack.runtime.verify import run_graph, verify_bundle
from tests.builders import TINY, rehashed

pytest.importorskip("coremltools", reason="COREMLTOOLS ABSENT: pip install 'edgetrack[coreml]'")
pytestmark = pytest.mark.skipif(CoreMlGraph.runs_here(), reason="MACOS: verify runs the graphs there")
Lowered = Callable[[str, str, str], Path]
# Of an output's largest magnitude. FP16 has 11 bits; INT8 keeps 8 of each weight, and OSTrack's elimination of
# candidates takes other tokens then.
ALLOWED = {"fp32": 2e-4, "fp16": 0.01, "int8": 0.4}


def furthest(full: Path, bundle: Bundle) -> float:
    """The largest difference from PyTorch's outputs, on record in the FP32 bundle, as a share of their magnitude."""
    with open_bundle(full) as source:
        golden = read_golden(source)
    worst = 0.0
    for info in bundle.manifest.graphs:
        graph = MilGraph(info, bundle.path(info.file), BackendOptions())
        samples = sorted({key.split("/")[0] for key in golden})
        for sample, given in zip(samples, recorded(golden, info), strict=True):
            for name, value in run_graph(graph, given).items():
                reference = golden[f"{sample}/{info.name}/out/{name}"]
                worst = max(worst, float(np.abs(value - reference).max() / np.abs(reference).max()))
        graph.close()
    return worst


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "tracker", [name if name == "dastm" else pytest.param(name, marks=pytest.mark.full) for name in TINY]
)
def test_outputs_are_pytorchs(lowered_tiny: Lowered, tracker: str, precision: str) -> None:
    full = lowered_tiny(tracker, "coreml", "fp32")
    with open_bundle(lowered_tiny(tracker, "coreml", precision)) as bundle:
        assert furthest(full, bundle) <= ALLOWED[precision]


@pytest.fixture
def copied(lowered_tiny: Lowered, tmp_path: Path) -> Path:
    """DASTM in FP16, to spoil."""
    return Path(shutil.copytree(lowered_tiny("dastm", "coreml", "fp16"), tmp_path / "copy"))


def named(spec: Any, kind: str, nth: int = 0) -> Any:
    return [one for one in main_block(spec).operations if one.type == kind][nth]


def constant(spec: Any, one: Any, key: str) -> Any:
    """The value of an operation's attribute, which other operations may share: as its own."""
    argument = one.inputs[key].arguments[0]
    for other in main_block(spec).operations:
        if other.type == "const" and other.outputs[0].name == argument.name:
            argument.value.CopyFrom(other.attributes["val"])
    return argument.value


def other_axis(spec: Any) -> None:
    value = constant(spec, named(spec, "softmax"), "axis")
    value.immediateValue.tensor.ints.values[:] = [-2]


def swapped_operands(spec: Any) -> None:
    one = named(spec, "sub")
    names = [one.inputs[key].arguments[0].name for key in "xy"]
    for key, name in zip("xy", reversed(names), strict=True):
        one.inputs[key].arguments[0].name = name


def swapped_attributes(spec: Any) -> None:
    one = named(spec, "sigmoid_hard")
    values = [bytes(constant(spec, one, key).SerializeToString()) for key in ("alpha", "beta")]
    for key, value in zip(("alpha", "beta"), reversed(values), strict=True):
        one.inputs[key].arguments[0].value.ParseFromString(value)


def spoil(folder: Path, graph: str, change: Callable[[Any], None]) -> Bundle:
    package = folder / f"{graph}.mlpackage"
    spec = read_spec(package)
    change(spec)
    specification_file(package).write_bytes(spec.SerializeToString())
    return rehashed(folder)


CHANGED = {
    "fp32": [("memory", swapped_attributes), ("memory", other_axis), ("step", other_axis)],
    "fp16": [("memory", other_axis), ("step", swapped_operands)],
    "int8": [("memory", other_axis), ("step", swapped_operands)],
}


@pytest.mark.parametrize("precision", CHANGED)
def test_a_changed_program_of_sound_structure_is_found(lowered_tiny: Lowered, tmp_path: Path, precision: str) -> None:
    for index, (graph, change) in enumerate(CHANGED[precision]):
        copy = Path(shutil.copytree(lowered_tiny("dastm", "coreml", precision), tmp_path / str(index)))
        with spoil(copy, graph, change) as bundle:
            assert all(finding.ok for finding in CoreMlGraph.check_structure(bundle))
            found = verify_bundle(bundle, BackendOptions())
        assert found.verified == "interpreted"
        assert {check.name.partition("/")[0] for check in found.checks if not check.ok} == {graph}, change


def test_an_axis_that_fits_no_shape_is_named(copied: Path) -> None:
    def change(spec: Any) -> None:
        value = constant(spec, named(spec, "concat"), "axis")
        value.immediateValue.tensor.ints.values[:] = [0 if value.immediateValue.tensor.ints.values[0] else 1]

    with (
        spoil(copied, "step", change) as bundle,
        pytest.raises(BundleIntegrityError, match=r"\(concat\) of the ML program"),
    ):
        verify_bundle(bundle, BackendOptions())


def test_a_changed_weight_between_the_recorded_ones_is_found(copied: Path) -> None:
    """Structure compares 256 values of each weight; the largest weight is changed where it does not look."""
    path = copied / "step.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    with open_bundle(copied) as bundle:
        from edgetrack.runtime.backends.coreml.package import SAMPLES, weights

        found = weights(bundle.path("step.mlpackage"))
    name = max(found, key=lambda key: found[key].size)
    size = found[name].size
    seen = np.linspace(0, size - 1, SAMPLES).round().astype(np.int64)
    changed = found[name].reshape(-1).copy()
    changed[np.setdiff1d(np.arange(size), seen)] *= -1
    data = path.read_bytes()
    before = found[name].reshape(-1).tobytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, changed.astype(found[name].dtype).tobytes()))
    with rehashed(copied) as bundle:
        assert all(finding.ok for finding in CoreMlGraph.check_structure(bundle))
        assert not verify_bundle(bundle, BackendOptions()).ok


def test_it_neither_tracks_nor_takes_a_device_or_hint(lowered_tiny: Lowered) -> None:
    import edgetrack

    path = lowered_tiny("dastm", "coreml", "fp32")
    with pytest.raises(DeviceUnavailableError, match="in the reference interpreter, with: edgetrack verify"):
        edgetrack.load(path)
    with open_bundle(path) as bundle:
        info = bundle.manifest.graphs[0]
        with pytest.raises(DeviceUnavailableError):
            MilGraph(info, bundle.path(info.file), BackendOptions(device="cuda:0"))
        with pytest.raises(UsageError):
            MilGraph(info, bundle.path(info.file), BackendOptions(precision_hint="fp16"))
