"""ONNX files read by hand: where they lead, what they would run, and that damage is told from the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetrack.bundle import onnx_file
from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BundleError, BundleIntegrityError

VALUES = np.arange(300, dtype=np.float32)


def model_of(*nodes: Any, functions: tuple[Any, ...] = (), external: str | None = None) -> Any:
    """x -> y of 300 numbers with an initializer `w`, its data in the file `external` where one is named."""
    weights = numpy_helper.from_array(VALUES, "w")
    if external is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(VALUES.nbytes))):
            entry = weights.external_data.add()
            entry.key, entry.value = key, value
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [300]) for name in "xy"]
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Add", ["x", "w"], ["y"], "/add")], "g", ends[:1], ends[1:], [weights]
    )
    domains = ["", *sorted({node.domain for node in nodes} - {""}), *(f.domain for f in functions)]
    opsets = [helper.make_opsetid(domain, 17) for domain in dict.fromkeys(domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=9)


def written(folder: Path, model: Any) -> Path:
    path = folder / "step.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def body(*nodes: Any) -> Any:
    return helper.make_graph(list(nodes), "body", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [300])])


def test_a_plain_file_leads_nowhere(tmp_path: Path) -> None:
    assert check_onnx(written(tmp_path, model_of())) == ()


@pytest.mark.parametrize("name", ["w.bin", "parts/w.bin"])
def test_data_beside_the_file_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / name).write_bytes(VALUES.tobytes())
    path = written(tmp_path, model_of(external=name))
    assert check_onnx(path) == (tmp_path / name,)
    assert np.array_equal(numpy_helper.to_array(onnx.load(str(path)).graph.initializer[0]), VALUES)


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../w.bin", "a/../../w.bin", "", ".", "./w.bin", "w\0.bin", "*/_ORT_MEM_ADDR_/*", "~/w", "absent"],
)
def test_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    (tmp_path / "bundle" / "a").mkdir(parents=True)
    path = written(tmp_path / "bundle", model_of(external=location))
    with pytest.raises(BundleIntegrityError, match=r"graph step.onnx: tensor 'w' has its data in"):
        check_onnx(path)


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_data_behind_a_link_or_a_pipe_is_refused(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.bin").write_bytes(VALUES.tobytes())
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    name = "w.bin" if kind != "folder" else "parts/w.bin"
    if kind == "file":
        (bundle / "w.bin").symlink_to(outside / "w.bin")
    elif kind == "folder":
        (bundle / "parts").symlink_to(outside)
    else:
        os.mkfifo(bundle / "w.bin")
    with pytest.raises(BundleIntegrityError, match="tensor 'w' has its data in"):
        check_onnx(written(bundle, model_of(external=name)))


def test_data_elsewhere_is_found_wherever_a_tensor_lies(tmp_path: Path) -> None:
    stray = helper.make_tensor("c", TensorProto.FLOAT, [300], VALUES)
    stray.ClearField("float_data")
    stray.data_location = TensorProto.EXTERNAL
    entry = stray.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    constant = helper.make_node("Constant", [], ["c"], "/head/c", value=stray)
    with pytest.raises(BundleIntegrityError, match=r"tensor 'c' of node '/head/c' \(Constant\) has its data in '/etc"):
        check_onnx(written(tmp_path, model_of(constant, helper.make_node("Add", ["x", "c"], ["y"]))))
    sparse = model_of()
    sparse.graph.sparse_initializer.add().values.CopyFrom(stray)
    with pytest.raises(BundleIntegrityError, match="tensor 'c' has its data in '/etc/passwd'"):
        check_onnx(written(tmp_path, sparse))


CONTROL: dict[str, Callable[[], Any]] = {
    "If": lambda: helper.make_node("If", ["x"], ["y"], "/if", then_branch=body(), else_branch=body()),
    "Loop": lambda: helper.make_node("Loop", ["x", ""], ["y"], "/loop", body=body()),
    "Scan": lambda: helper.make_node("Scan", ["x"], ["y"], "/scan", body=body(), num_scan_inputs=1),
}


@pytest.mark.parametrize("operator", sorted(CONTROL))
def test_control_flow_is_refused_unless_the_family_needs_it(tmp_path: Path, operator: str) -> None:
    path = written(tmp_path, model_of(CONTROL[operator]()))
    with pytest.raises(BundleIntegrityError, match=rf"node '/{operator.lower()}' \({operator}\) is control flow"):
        check_onnx(path)
    assert check_onnx(path, {operator}) == ()


def test_control_flow_within_control_flow_is_found(tmp_path: Path) -> None:
    outer = helper.make_node("If", ["x"], ["y"], then_branch=body(CONTROL["Loop"]()), else_branch=body())
    with pytest.raises(BundleIntegrityError, match=r"node '/loop' \(Loop\) is control flow"):
        check_onnx(written(tmp_path, model_of(outer)), {"If"})


def test_operators_of_other_domains_are_refused_unless_declared(tmp_path: Path) -> None:
    path = written(tmp_path, model_of(helper.make_node("Shell", ["x"], ["y"], "/s", domain="evil")))
    with pytest.raises(BundleIntegrityError, match=r"node '/s' \(Shell\) is of domain 'evil'"):
        check_onnx(path)
    with pytest.raises(BundleIntegrityError):
        check_onnx(path, {"Shell"})
    assert check_onnx(path, {"evil::Shell"}) == ()
    contrib = helper.make_node("BeamSearch", ["x"], ["y"], "/b", domain="com.microsoft", decoder=body())
    with pytest.raises(BundleIntegrityError, match=r"node '/b' \(BeamSearch\) holds a graph of its own"):
        check_onnx(written(tmp_path, model_of(contrib)))
    gelu = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    assert check_onnx(written(tmp_path, model_of(gelu))) == ()


def test_functions_and_training_graphs_are_refused(tmp_path: Path) -> None:
    inner = helper.make_node("Add", ["a", "a"], ["b"])
    function = helper.make_function("mine", "Twice", ["a"], ["b"], [inner], [helper.make_opsetid("", 17)])
    with pytest.raises(BundleIntegrityError, match="holds a function of its own, 'Twice'; inline it"):
        check_onnx(written(tmp_path, model_of(functions=(function,))))
    training = model_of()
    training.training_info.add().algorithm.CopyFrom(body())
    with pytest.raises(BundleIntegrityError, match="holds a training graph"):
        check_onnx(written(tmp_path, training))


def test_absurd_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = body()
    for _ in range(onnx_file.MAX_DEPTH):
        deep = body(helper.make_node("If", ["x"], ["y"], then_branch=deep))
    with pytest.raises(BundleIntegrityError, match="levels"):
        check_onnx(written(tmp_path, model_of(*deep.node)), {"If"})
    path = written(tmp_path, model_of())
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 10)
    with pytest.raises(BundleIntegrityError, match="more than 10 fields"):
        check_onnx(path)
    monkeypatch.setattr(onnx_file, "MAX_ONNX_BYTES", 20)
    with pytest.raises(BundleIntegrityError, match="an ONNX file has 1 to 20"):
        check_onnx(path)


@pytest.mark.parametrize("data", [b"", b"{}", b"\x08", b"ORTM" * 9, b"\x3a\xff\xff\xff\xff\x0f", b"\x0f", b"\x80" * 40])
def test_what_is_no_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "step.onnx").write_bytes(data)
    with pytest.raises(BundleIntegrityError, match=r"step.onnx (is no ONNX file|has 0 bytes)"):
        check_onnx(tmp_path / "step.onnx")


def leads_outside(model: Any) -> bool:
    """What the onnx package itself finds in a model."""
    from onnx.external_data_helper import _get_all_tensors

    for tensor in _get_all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            return True
    return any(node.op_type in onnx_file.CONTROL_FLOW for node in model.graph.node)


@settings(max_examples=200)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255), location=st.sampled_from([None, "../w", "/w"]))
def test_what_the_onnx_package_finds_is_found_in_any_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int, location: str | None
) -> None:
    data = bytearray(model_of(external=location).SerializeToString())
    data[position % len(data)] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(data)
    try:
        model = onnx.load_model_from_string(bytes(data))
    except Exception:  # protobuf's own class
        model = None
    try:
        check_onnx(path)
    except BundleError:
        return
    assert model is None or not leads_outside(model)
