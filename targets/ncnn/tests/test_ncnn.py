"""A graph by pnnx in ncnn's own runtime beside PyTorch, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from edgetrack_ncnn import exporter as exporters
from edgetrack_ncnn.backend import NcnnGraph
from edgetrack_ncnn.exporter import NcnnExporter, find_converter
from torch import Tensor, nn

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.capabilities import find_target
from edgetrack.errors import (
    BackendMissingError,
    BundleError,
    BundleIntegrityError,
    DeviceUnavailableError,
    EdgetrackError,
    UsageError,
)
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.targets.base import Lowering
from edgetrack.models.base import GraphModule
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import run_graph

pytestmark = pytest.mark.usefixtures("engine")


class Step(nn.Module):
    """Two inputs of different rank, a product of both, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, search: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.stem(search.unsqueeze(0).permute(0, 3, 1, 2).float() / 255))
        y = (kernel @ x.reshape(1, 8, 256)).reshape(1, 4, 16, 16)
        return self.head(y), torch.sigmoid(y)


def step() -> GraphModule:
    inputs = (
        TensorInfo(name="search", dtype="uint8", shape=(32, 32, 3)),
        TensorInfo(name="kernel", dtype="float32", shape=(1, 4, 8)),
    )
    outputs = (
        TensorInfo(name="maps", dtype="float32", shape=(1, 2, 16, 16)),
        TensorInfo(name="score", dtype="float32", shape=(1, 4, 16, 16)),
    )
    return GraphModule("step", "step", Step().eval(), inputs, outputs)


def fed() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "search": rng.integers(0, 256, (32, 32, 3), np.uint8),
        "kernel": rng.standard_normal((1, 4, 8)).astype(np.float32),
    }


def info_of(path: Path) -> GraphInfo:
    graph = step()
    return GraphInfo(name="step", role="step", file=path.name, inputs=graph.inputs, outputs=graph.outputs)


def opened(path: Path, options: BackendOptions | None = None) -> NcnnGraph:
    return NcnnGraph(info_of(path), path, options or BackendOptions())


@pytest.fixture(scope="module")
def exporter() -> NcnnExporter:
    one = NcnnExporter(find_recipe("nanotrack_v2"))
    one.prepare()
    return one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, exporter: NcnnExporter) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return folder / exporter.convert(step(), folder, opset=17, metadata={})


@pytest.fixture
def path(tmp_path: Path, made: Path) -> Path:
    """The converted graph, a copy for each test."""
    return Path(shutil.copytree(made.parent, tmp_path / "bundle")) / made.name


def test_fp32_is_pytorch_and_fp16_has_half_the_weights(path: Path, exporter: NcnnExporter) -> None:
    wanted = {name: value.numpy() for name, value in step()(*map(torch.from_numpy, fed().values())).items()}
    found = run_graph(opened(path), fed())
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    size = path.with_suffix(".bin").stat().st_size
    assert exporter.lower(path, Lowering("fp16")) == ()
    assert [one.name for one in exporter.files(path)] == ["step.ncnn.param", "step.ncnn.bin"]
    assert path.with_suffix(".bin").stat().st_size < size
    half = run_graph(opened(path), fed())
    assert 1e-5 < np.abs(half["maps"] - wanted["maps"]).max() < 5e-3


def test_layout_of_a_crop_costs_no_layer(path: Path) -> None:
    kinds = {line.split()[0] for line in path.read_text().splitlines()[2:]}
    assert "Permute" not in kinds


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (TensorInfo(name="tokens", dtype="int32", shape=(1, 77)), r"'tokens' of graph 'step' is int32 \(1, 77\)"),
        (TensorInfo(name="rows", dtype="float32", shape=(4, 8)), "export for another target"),
    ],
)
def test_tensor_that_ncnn_has_no_place_for_is_refused(
    tmp_path: Path, exporter: NcnnExporter, tensor: TensorInfo, words: str
) -> None:
    graph = GraphModule("step", "step", Step(), (tensor,), ())
    with pytest.raises(UsageError, match=words):
        exporter.convert(graph, tmp_path, opset=17, metadata={})


def test_converter_that_fails_leaves_its_words_and_no_file(
    tmp_path: Path, exporter: NcnnExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["graph.onnx", "inputshape=[1,3,32,32],[1,4,8]", "fp16=0"]
        return subprocess.CompletedProcess(command, 3, "", "out of luck")

    monkeypatch.setattr(NcnnExporter, "run_converter", staticmethod(fails))
    with pytest.raises(EdgetrackError, match=r"pnnx cannot convert step\.ncnn\.param \(exit code 3\): out of luck"):
        exporter.convert(step(), tmp_path, opset=17, metadata={})
    assert list(tmp_path.iterdir()) == []


def test_missing_converter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(BackendMissingError, match="pip install pnnx"):
        find_converter()


def test_network_has_the_tensors_names_and_its_inputs_sizes(path: Path, exporter: NcnnExporter) -> None:
    lines = [line.split() for line in path.read_text().splitlines()]
    assert lines[2:4] == [
        ["Input", "search", "0", "1", "search", "0=32", "1=32", "2=3"],
        ["Input", "kernel", "0", "1", "kernel", "0=8", "1=4"],
    ]
    names = {name for line in lines[2:] for name in line[4:] if "=" not in name}
    assert {"search", "kernel", "maps", "score"} <= names
    assert not {"in0", "in1", "out0", "out1"} & names
    exporter.lower(path, Lowering("fp16"))
    assert opened(path).inputs.keys() == {"search", "kernel"}


@pytest.mark.parametrize(
    ("side", "changed", "words"),
    [
        ("inputs", {"name": "crop"}, "the manifest says .*'crop'"),
        ("inputs", {"shape": (32, 40, 3)}, "'0=40', '1=32', '2=3'"),
        ("inputs", {"dtype": "int32"}, r"'search' of graph 'step' is int32 \(32, 32, 3\)"),
        ("outputs", {"name": "other"}, r"gives \['maps', 'score'\], the manifest says \['other', 'score'\]"),
        ("outputs", {"dtype": "int32"}, "gives float32"),
    ],
)
def test_manifest_of_another_graph_is_refused(path: Path, side: str, changed: dict[str, Any], words: str) -> None:
    """ncnn would run it: a longer crop was read to its end, and names were taken by their order."""
    info = info_of(path)
    first, *rest = getattr(info, side)
    stated = msgspec.structs.replace(info, **{side: (msgspec.structs.replace(first, **changed), *rest)})
    with pytest.raises(BundleIntegrityError, match=words):
        NcnnGraph(stated, path, BackendOptions())


def test_name_that_ncnn_cannot_tell_from_its_own_is_refused(tmp_path: Path, exporter: NcnnExporter) -> None:
    for name in ("12", "two words", ""):
        graph = msgspec.structs.replace(step().inputs[0], name=name)
        with pytest.raises(UsageError, match="begin with a letter"):
            exporter.convert(GraphModule("step", "step", Step(), (graph,), ()), tmp_path, opset=17, metadata={})


@pytest.mark.parametrize(
    "damage", [lambda data: data.replace(b" search 0 1 search 0=32 1=32 2=3", b""), lambda data: data[:8] + b"\n\n\xff"]
)
def test_text_that_is_none_of_a_network_is_refused(path: Path, damage: Callable[[bytes], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleIntegrityError, match="no network of ncnn"):
        opened(path)


def test_missing_weights_are_named(path: Path) -> None:
    path.with_suffix(".bin").unlink()
    with pytest.raises(BundleIntegrityError, match=r"has no step\.ncnn\.bin"):
        opened(path)


def test_other_files_are_refused(path: Path) -> None:
    text = path.read_text()
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    with pytest.raises(BundleIntegrityError):
        opened(path)
    path.write_text("7767518\n")
    with pytest.raises(BundleIntegrityError, match="no network of ncnn"):
        opened(path)


def test_output_of_another_shape_is_an_error_of_the_bundle(path: Path) -> None:
    text = path.read_text()
    assert " 1=16 2=4" in text
    path.write_text(text.replace(" 1=16 2=4", " 1=8 2=4"))
    with pytest.raises(BundleError, match=r"ncnn gave \(1, 2, 8, 16\), the manifest says \(1, 2, 16, 16\)"):
        run_graph(opened(path), fed())


def test_what_ncnn_cannot_compute_is_an_error_of_the_bundle(path: Path) -> None:
    graph, cleared = opened(path), []

    class Fails:
        """ncnn on a graph that pnnx understood wrongly: SMAT's step, too large for this test, is one."""

        def input(self, name: str, value: Any) -> int:
            return 0

        def extract(self, name: str) -> tuple[int, Any]:
            return -1, graph._ncnn.Mat()

        def clear(self) -> None:
            cleared.append(True)

    graph._net = types.SimpleNamespace(create_extractor=Fails, clear=graph._net.clear)
    with pytest.raises(BundleError, match=r"ncnn cannot compute output 'maps' of graph 'step' \(code -1\)"):
        run_graph(graph, fed())
    graph.close()
    assert cleared == [True]


def test_other_devices_and_hints_are_refused(path: Path, installed: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match="use --device cpu"):
        opened(path, BackendOptions(device="cuda:0"))
    with pytest.raises(UsageError, match="takes no precision hint"):
        opened(path, BackendOptions(precision_hint="bf16"))
    assert find_target("ncnn").installed
