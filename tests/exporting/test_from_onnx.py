"""Exports that start from ONNX files: what comes out, and every file that is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetrack.bundle import open_bundle, read_npz
from edgetrack.errors import CheckpointError, UsageError
from edgetrack.exporting.pipeline import ExportRequest, export, plan
from edgetrack.exporting.recipe import find_recipe
from edgetrack.media import open_source
from edgetrack.runtime.session import load

pytestmark = pytest.mark.usefixtures("short_proof")
TRACKER = "nanotrack_v2"
GRAPHS = ("template", "step")


@pytest.fixture(scope="session")
def given(exported: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The two graphs of the untrained tracker as files of their own."""
    folder = tmp_path_factory.mktemp("given")
    with open_bundle(exported("onnx", tracker=TRACKER)) as bundle:
        for name in GRAPHS:
            (folder / f"{name}.onnx").write_bytes(bundle.path(bundle.manifest.graph(name).file).read_bytes())
    return tuple(folder / f"{name}.onnx" for name in GRAPHS)


def request(paths: tuple[Path, ...], output: Path, target: str = "onnx", **changes: object) -> ExportRequest:
    return ExportRequest(TRACKER, target, onnx=paths, output=output, **changes)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_given_graphs_become_a_bundle_that_tracks_alike(
    given: tuple[Path, ...], exported: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    lines: list[str] = []
    report = export(request(given, tmp_path / "bundle", target), progress=lines.append)
    assert report.parity.reference == "the given ONNX"
    assert not [line for line in lines if "PyTorch" in line]
    with open_source("synthetic:drift?frames=6") as source:
        frames = list(source)
    boxes = []
    for path in (report.path, exported("onnx", tracker=TRACKER)):
        with load(path, threads=1) as tracker:
            tracker.init(frames[0], (100, 80, 60, 40))
            boxes.append([tracker.update(frame).box for frame in frames[1:]])
    np.testing.assert_allclose(*boxes, rtol=0, atol=0.01)


def test_bundle_says_where_the_graphs_come_from(given: tuple[Path, ...], tmp_path: Path) -> None:
    report = export(request(tuple(reversed(given)), tmp_path / "bundle"))
    weights = report.manifest.weights
    whole = b"".join(path.read_bytes() for path in given)
    assert (weights.origin, weights.file) == ("custom", "template.onnx, step.onnx")
    assert weights.sha256 == hashlib.sha256(whole).hexdigest()
    for path in given:
        assert f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in weights.note
    with open_bundle(report.path) as bundle:
        assert json.loads(bundle.path("parity.json").read_bytes())["reference"] == "the given ONNX"
        assert {key.split("/")[1] for key in read_npz(bundle.path("golden.npz"))} == set(GRAPHS)


def test_recorded_outputs_are_those_of_the_given_files(given: tuple[Path, ...], tmp_path: Path) -> None:
    import onnxruntime

    report = export(request(given, tmp_path / "bundle", "openvino"))
    with open_bundle(report.path) as bundle:
        record = read_npz(bundle.path("golden.npz"))
    session = onnxruntime.InferenceSession(str(given[0]), providers=["CPUExecutionProvider"])
    found = session.run(["k_cls"], {"template": record["0/template/in/template"]})[0]
    np.testing.assert_allclose(found, record["0/template/out/k_cls"], rtol=1e-5, atol=1e-5)


def test_parity_failure_names_the_reference(given: tuple[Path, ...], tmp_path: Path) -> None:
    from edgetrack.errors import ParityError

    with pytest.raises(ParityError, match="comparisons with the given ONNX fail; nothing was written"):
        export(request(given, tmp_path / "bundle", "openvino", atol=0.0, rtol=0.0))
    assert not (tmp_path / "bundle").exists()


def test_weights_and_onnx_are_not_taken_together(given: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--onnx brings its own weights, given --weights mine\.pth too"):
        plan(request(given, tmp_path / "bundle", weights="mine.pth"))


def test_reference_target_is_refused(given: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="target 'torch' is converted from PyTorch and reads no ONNX; give --weights"):
        plan(request(given, tmp_path / "bundle", "torch"))


@pytest.mark.parametrize("chosen", [(0,), (0, 0), (0, 1, 1)])
def test_missing_and_repeated_graphs_are_refused(
    given: tuple[Path, ...], tmp_path: Path, chosen: tuple[int, ...]
) -> None:
    with pytest.raises(
        UsageError, match=r"has the graphs template, step, given .*give --onnx template\.onnx --onnx step"
    ):
        export(request(tuple(given[i] for i in chosen), tmp_path / "bundle"))


def test_file_that_is_not_there_is_refused(given: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"step\.onnx: there is no such file"):
        export(request((given[0], tmp_path / "step.onnx"), tmp_path / "bundle"))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08\x12\x00", b"\xff" * 100])
def test_file_that_is_no_sound_model_is_refused(given: tuple[Path, ...], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "step.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step\.onnx: not a sound ONNX model"):
        export(request((given[0], tmp_path / "step.onnx"), tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def edited(given: tuple[Path, ...], folder: Path, edit: Callable[[onnx.ModelProto], None]) -> tuple[Path, ...]:
    """The files with the step changed."""
    model = onnx.load(str(given[1]))
    edit(model)
    del model.graph.value_info[:]
    onnx.save(model, str(folder / "step.onnx"))
    return given[0], folder / "step.onnx"


def rename_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["kernel" if name == "k_cls" else name for name in node.input]
    next(value for value in model.graph.input if value.name == "k_cls").name = "kernel"


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "cls" else name for name in node.output]
    model.graph.output[0].name = "scores"


def free_a_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "height"


def take_floats(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def give_halves(model: onnx.ModelProto) -> None:
    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["wide" if name == last else name for name in node.output]
    model.graph.node.append(helper.make_node("Cast", ["wide"], [last], to=TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (rename_input, r"step\.onnx: input 'kernel' is float32 \(1, 64, 48\), expected a uint8 \(H, W, 3\) image, or"),
        (rename_output, r"do not suit its procedure: .*scores"),
        (free_a_size, r"step\.onnx: input 'search' has shape \('\?', 255, 3\); every size must be a number"),
        (take_floats, r"step\.onnx: input 'search' is float32 \(255, 255, 3\), expected a uint8"),
        (give_halves, r"step\.onnx: output 'cls' is float16, expected float32"),
    ],
)
def test_graphs_that_are_not_the_trackers_are_refused(
    given: tuple[Path, ...], tmp_path: Path, edit: Callable[[onnx.ModelProto], None], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        export(request(edited(given, tmp_path, edit), tmp_path / "bundle"))
    assert f"the given graphs are not graphs of tracker {TRACKER!r}" in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "bundle").exists()


def test_everything_that_differs_is_listed_at_once(given: tuple[Path, ...], tmp_path: Path) -> None:
    def both(model: onnx.ModelProto) -> None:
        rename_input(model)
        take_floats(model)

    with pytest.raises(UsageError, match="'kernel'") as caught:
        export(request(edited(given, tmp_path, both), tmp_path / "bundle"))
    assert "'search' is float32" in str(caught.value)


def test_recipe_of_a_plugin_may_name_other_graphs() -> None:
    assert find_recipe(TRACKER).graphs == {"template": "init", "step": "step"}
