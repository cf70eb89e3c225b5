"""Verification of bundles, and the comparison of two tensors."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgetrack.bundle import Bundle, BundleWriter, open_bundle, read_npz, write_npz
from edgetrack.errors import BundleError, BundleIntegrityError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import Verification, arithmetic_of, compare, verify_bundle
from tests.builders import CONSTANT, FEATURES, MAPS, TARGETS, scripted_manifest


@pytest.fixture
def copied(exported: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """copied("onnx") -> a bundle to spoil."""
    return lambda target: Path(shutil.copytree(exported(target), tmp_path / f"smat-{target}-fp32"))


def rehash(folder: Path) -> Bundle:
    """Open a changed bundle after its manifest was made to say what is there."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_bundle(folder)


def change_onnx(folder: Path) -> None:
    model = onnx.load(str(folder / "step.onnx"))
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.reshape(-1)[::7] *= 1.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(folder / "step.onnx"))


def change_openvino(folder: Path) -> None:
    path = folder / "step.bin"
    data = path.read_bytes()
    whole = len(data) // 4 * 4
    values = np.frombuffer(data[:whole], np.float32).copy()
    middle = slice(len(values) // 2, len(values) // 2 + 20_000)
    values[middle] *= 1.5
    path.write_bytes(values.tobytes() + data[whole:])


def change_torch(folder: Path) -> None:
    path = folder / "weights.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["box_head.conv1_ctr.0.weight"] *= 1.5
    save_file(tensors, path, metadata)


CHANGES = {"onnx": change_onnx, "openvino": change_openvino, "torch": change_torch}


@pytest.mark.parametrize("target", TARGETS)
def test_sound_bundle_passes(exported: Callable[..., Path], target: str) -> None:
    with open_bundle(exported(target)) as bundle:
        found = verify_bundle(bundle, BackendOptions(threads=1))
        record = read_npz(bundle.path("golden.npz"))
    assert found.ok
    assert (found.bundle, found.weights) == (f"smat-{target}-fp32", "untrained")
    assert found.files == len(bundle.manifest.files)
    assert len(found.checks) == sum("/out/" in key for key in record) == 3 * 4


@pytest.mark.parametrize("target", TARGETS)
def test_changed_weights_fail_although_the_hashes_fit(copied: Callable[[str], Path], target: str) -> None:
    folder = copied(target)
    CHANGES[target](folder)
    with rehash(folder) as bundle:
        found = verify_bundle(bundle, BackendOptions(threads=1))
    assert not found.ok
    assert not all(check.ok for check in found.checks if check.name.startswith("step/score"))


@pytest.mark.parametrize("target", TARGETS)
def test_changed_file_is_not_even_opened_while_its_hash_stays(copied: Callable[[str], Path], target: str) -> None:
    folder = copied(target)
    CHANGES[target](folder)
    with pytest.raises(BundleIntegrityError, match="was changed"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (b"not json", r"parity\.json .* is not a parity report"),
        (b"[" * 100_000, r"parity\.json .* is not a parity report"),
        (b"{}", r"parity\.json .* is not a parity report"),
        (b'{"comparisons": [{"atol": "much", "rtol": 0}]}', r"parity\.json .* is not a parity report"),
        (b'{"comparisons": []}', "holds no comparison; export it again"),
    ],
)
def test_report_that_is_none_is_refused(copied: Callable[[str], Path], report: bytes, words: str) -> None:
    folder = copied("onnx")
    (folder / "parity.json").write_bytes(report)
    with rehash(folder) as bundle, pytest.raises(BundleError, match=words):
        verify_bundle(bundle, BackendOptions())


def without(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: {key: value for key, value in arrays.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: {}, "no record of graph 'template'"),
        (without("/step/"), "no record of graph 'step'"),
        (without("/out/score"), "records .* for graph 'step', the manifest says"),
        (without("/in/search"), "records .* for graph 'step', the manifest says"),
        (lambda arrays: arrays | {"0/step/in/more": np.zeros(1)}, "entry '0/step/in/more'; expected sample/graph"),
        (
            lambda arrays: arrays | {"0/step/out/score": np.zeros(1 << 20)},
            "holds 8388[0-9]+ bytes of '0/step/out/score'",
        ),
        (lambda arrays: arrays | {f"{i}/step/out/score": np.zeros(1) for i in range(70)}, "65 samples so far"),
        (lambda arrays: arrays | {"stray": np.zeros(1)}, "entry 'stray'; expected sample/graph/in|out/tensor"),
        (lambda arrays: arrays | {"0/step/out/score": np.zeros((1, 1, 8, 8))}, "records .* for graph 'step'"),
    ],
)
def test_record_that_does_not_cover_the_graphs_is_refused(
    copied: Callable[[str], Path], change: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    folder = copied("onnx")
    write_npz(folder / "golden.npz", change(read_npz(folder / "golden.npz")))
    with rehash(folder) as bundle, pytest.raises(BundleError, match=words):
        verify_bundle(bundle, BackendOptions())


def test_record_without_the_files_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("onnx")
    (folder / "golden.npz").unlink()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["files"]["golden.npz"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with open_bundle(folder) as bundle, pytest.raises(BundleError, match=r"has no file 'golden\.npz'"):
        verify_bundle(bundle, BackendOptions())


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_record_of_another_kind_of_number_is_refused(copied: Callable[[str], Path], dtype: type) -> None:
    folder = copied("onnx")
    arrays = read_npz(folder / "golden.npz")
    arrays["0/step/in/search"] = arrays["0/step/in/search"].astype(dtype)
    write_npz(folder / "golden.npz", arrays)
    with rehash(folder) as bundle, pytest.raises(BundleError, match="for graph 'step'"):
        verify_bundle(bundle, BackendOptions())


VALUES = hnp.arrays(np.float32, 12, elements=st.floats(-1e3, 1e3, width=32))
TOLERANCES = st.floats(0, 10)


def test_peak_allows_a_share_of_the_references_largest_magnitude() -> None:
    reference, found = np.array([0.0, -4.0]), np.array([0.9, -4.0])
    c = compare("t", found, reference, atol=0.1, rtol=0, peak=0.25)
    assert (c.ok, c.atol, c.smallest_atol) == (True, 1.1, 0.9)
    assert not compare("t", found, reference, atol=0.1, rtol=0, peak=0.19).ok
    assert not compare("t", np.zeros(2), reference, atol=0, rtol=0, peak=0.99).ok


def test_figures_are_the_closed_forms() -> None:
    reference = np.array([1.0, -2.0, 4.0, 0.0])
    c = compare("t", reference + np.array([0.1, 0, -0.3, 0]), reference, atol=0.2, rtol=0.05)
    assert c.max_abs == pytest.approx(0.3)
    assert c.mean_abs == pytest.approx(0.1)
    assert c.q999_abs == pytest.approx(0.3 - 0.2 * 0.003)
    assert c.reference_max == 4
    assert c.smallest_atol == pytest.approx(0.3 - 0.05 * 4)
    assert c.ok


def test_tolerance_grows_with_the_reference_not_with_what_was_found() -> None:
    assert compare("t", np.array([100.0]), np.array([110.0]), atol=0, rtol=0.095).ok
    assert not compare("t", np.array([110.0]), np.array([100.0]), atol=0, rtol=0.095).ok


@given(a=VALUES, b=VALUES, atol=TOLERANCES, rtol=TOLERANCES)
def test_verdict_is_the_written_rule(a: np.ndarray, b: np.ndarray, atol: float, rtol: float) -> None:
    x, y = a.astype(float), b.astype(float)
    excess = (np.abs(x - y) - rtol * np.abs(y)).max()
    assert compare("t", a, b, atol=atol, rtol=rtol).ok == (excess <= atol)


@given(a=VALUES, b=VALUES, rtol=st.floats(0, 1))
def test_smallest_atol_passes_and_one_percent_less_fails(a: np.ndarray, b: np.ndarray, rtol: float) -> None:
    smallest = compare("t", a, b, atol=0, rtol=rtol).smallest_atol
    assert compare("t", a, b, atol=smallest, rtol=rtol).ok
    assume(smallest > 1e-300)
    assert not compare("t", a, b, atol=smallest * 0.99, rtol=rtol).ok


@given(a=VALUES)
def test_equal_tensors_pass_without_tolerance(a: np.ndarray) -> None:
    c = compare("t", a, a, atol=0, rtol=0)
    assert (c.ok, c.max_abs, c.smallest_atol) == (True, 0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["found", "reference", "both"])
def test_what_is_not_finite_never_passes(bad: float, side: str) -> None:
    good, spoilt = np.zeros(3), np.array([0, bad, 0])
    found, reference = {"found": (spoilt, good), "reference": (good, spoilt), "both": (spoilt, spoilt)}[side]
    c = compare("t", found, reference, atol=1e300, rtol=1e300)
    assert (c.ok, c.max_abs, c.smallest_atol) == (False, math.inf, math.inf)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3, 2)), ((1,), (3,)), ((), (1,))])
def test_shapes_are_never_stretched(a: Any, b: Any) -> None:
    assert not compare("t", np.zeros(a), np.zeros(b), atol=1, rtol=1).ok


def test_bytes_do_not_wrap_around() -> None:
    assert compare("t", np.array([1], np.uint8), np.array([255], np.uint8), atol=1, rtol=0).max_abs == 254


def test_empty_tensors_agree() -> None:
    c = compare("t", np.zeros((0, 3)), np.zeros((0, 3)), atol=0, rtol=0)
    assert (c.ok, c.mean_abs, c.q999_abs) == (True, 0, 0)


HERE = arithmetic_of("fake")


@pytest.fixture
def lowered(tmp_path: Path) -> Callable[..., Verification]:
    """lowered(HERE, score=0.3) -> the verification of an INT8 bundle that gave a score of 0.3 when it was recorded."""

    def verified(arithmetic: str, stable: bool = True, atol: float = 1e-3, **recorded: float) -> Verification:
        manifest = scripted_manifest(precision="int8")
        golden = {"0/template/out/template_features": np.ones(FEATURES.shape, np.float32)}
        for graph in manifest.graphs:
            for info in graph.inputs:
                golden[f"0/{graph.name}/in/{info.name}"] = np.zeros(info.shape, info.dtype)
        for info in MAPS:
            value = recorded.get(info.name, CONSTANT[info.name])
            golden[f"0/step/out/{info.name}"] = np.full(info.shape, value, np.float32)
        proof = {"comparisons": [], "allowed": {"atol": atol, "rtol": 0.0, "peak": 0.6}, "arithmetic": arithmetic}
        with BundleWriter(tmp_path / "lowered") as writer:
            for graph in manifest.graphs:
                rules = {info.name: CONSTANT[info.name] for info in graph.outputs}
                (writer.folder / graph.file).write_text(json.dumps(rules))
            write_npz(writer.folder / "golden.npz", golden)
            filler = {"atol": 0.0, "rtol": 0.0}
            text = json.dumps({**proof, "comparisons": [filler], "boxes": {"0": stable}})
            (writer.folder / "parity.json").write_text(text)
            writer.commit(manifest)
        with open_bundle(tmp_path / "lowered") as bundle:
            return verify_bundle(bundle, BackendOptions())

    return verified


def test_the_same_arithmetic_has_to_give_a_lowered_bundles_outputs_again(lowered: Callable[..., Verification]) -> None:
    found = lowered(HERE, score=0.3)
    assert (found.ok, found.note) == (False, "")
    assert [check.name for check in found.checks if not check.ok] == ["step/score #0"]


def test_a_wide_bound_of_the_export_is_none_for_the_same_arithmetic(lowered: Callable[..., Verification]) -> None:
    """`--atol 2` allowed a difference from FP32, not one between two runs."""
    assert not lowered(HERE, atol=2.0, score=0.3).ok


def test_elsewhere_the_box_decides_not_the_width_of_the_bound(lowered: Callable[..., Verification]) -> None:
    found = lowered("another", score=0.4)
    assert (found.ok, found.checks[-1].name, found.checks[-1].max_abs) == (True, "box of step #0, px", 0.0)
    assert "recorded with another; run with fake" in found.note
    assert "differ by up to 25.00% of their largest magnitude; 1 decoded boxes decide" in found.note


def test_elsewhere_a_box_that_moved_fails_within_the_widest_bound(lowered: Callable[..., Verification]) -> None:
    found = lowered("another", size=0.35)
    assert [check.name for check in found.checks if not check.ok] == ["box of step #0, px"]
    # The map moves by 0.1 of a crop of 400 px: half of that on each side of the centre, all of it in width.
    assert found.checks[-1].max_abs == pytest.approx(40.0)


def test_a_box_that_the_precision_alone_moves_decides_nothing(lowered: Callable[..., Verification]) -> None:
    found = lowered("another", stable=False, size=0.35)
    assert (found.ok, len(found.checks)) == (True, 4)
    assert "no decoded box can decide" in found.note
