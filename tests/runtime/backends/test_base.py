"""What every backend promises."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import BackendMissingError, BundleError, BundleIntegrityError, DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import BackendOptions, Chain, CompiledGraph, allocate
from edgetrack.runtime.verify import run_graph
from tests.builders import TARGETS

PACKAGES = {"torch": ("torch", "export"), "onnx": ("onnxruntime", "onnx"), "openvino": ("openvino", "openvino")}

each_target = pytest.mark.parametrize("target", TARGETS)


def test_buffers_are_zero_contiguous_and_aligned() -> None:
    infos = tuple(
        TensorInfo(name=f"{dtype}{shape}", dtype=dtype, shape=shape)
        for dtype in ("uint8", "float16", "float32", "int64")
        for shape in ((), (1,), (3, 5), (7, 1, 2))
    )
    for info, buffer in zip(infos, allocate(infos).values(), strict=True):
        assert (str(buffer.dtype), buffer.shape) == (info.dtype, info.shape)
        assert buffer.flags.c_contiguous
        assert buffer.flags.writeable
        assert buffer.ctypes.data % 64 == 0
        assert not buffer.any()


@each_target
def test_same_inputs_give_what_pytorch_gave_into_the_same_buffers(
    graph_file: Callable[..., Any], recorded: Callable[..., Any], target: str
) -> None:
    graph, record = graph_file(target).open(), recorded(target)
    buffers = {id(buffer) for buffer in (*graph.inputs.values(), *graph.outputs.values())}
    for _ in range(2):
        found = run_graph(graph, record["in"])
        np.testing.assert_allclose(found["template_features"], record["out"]["template_features"], rtol=1e-4, atol=2e-4)
    assert {id(buffer) for buffer in (*graph.inputs.values(), *graph.outputs.values())} == buffers
    graph.close()


@each_target
def test_outputs_follow_inputs(graph_file: Callable[..., Any], target: str) -> None:
    graph = graph_file(target).open()
    graph.run()
    black = graph.outputs["template_features"].copy()
    graph.inputs["template"].fill(255)
    graph.run()
    assert not np.allclose(graph.outputs["template_features"], black)
    graph.inputs["template"].fill(0)
    graph.run()
    assert np.array_equal(graph.outputs["template_features"], black)
    graph.close()


@each_target
def test_closed_graph_refuses_to_run_and_closes_again(graph_file: Callable[..., Any], target: str) -> None:
    graph = graph_file(target).open()
    graph.close()
    graph.close()
    with pytest.raises(UsageError, match="graph 'template' is closed; load the bundle again"):
        graph.run()


@each_target
@pytest.mark.parametrize("device", ["cuda:0", "gpu", "tpu", ""])
def test_device_that_is_not_there_is_refused(graph_file: Callable[..., Any], target: str, device: str) -> None:
    """As a device that is missing, a name that is none, or a provider that another wheel would bring."""
    with pytest.raises((DeviceUnavailableError, UsageError, BackendMissingError), match=repr(device)):
        graph_file(target).open(device=device)


@each_target
@pytest.mark.parametrize("threads", [0, -2])
def test_fewer_than_one_thread_is_refused(graph_file: Callable[..., Any], target: str, threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads is {threads}"):
        graph_file(target).open(threads=threads)


@each_target
def test_hint_that_is_not_offered_is_refused(graph_file: Callable[..., Any], target: str) -> None:
    with pytest.raises(UsageError, match="precision hint") as caught:
        graph_file(target).open(precision_hint="int4")
    if target == "onnx":
        assert str(caught.value).endswith("drop --precision-hint, or export with --precision fp32|fp16|int8")


class Failing(CompiledGraph):
    engine = "failing"

    def __init__(self, when: str) -> None:
        self.when = when
        info = GraphInfo(name="step", role="step", file="step.x", inputs=(), outputs=())
        super().__init__(info, Path("step.x"), BackendOptions())

    def _open(self, path: Path, options: BackendOptions) -> None:
        self._fail("open")

    def _infer(self) -> None:
        self._fail("run")

    def _close(self) -> None:
        pass

    def _fail(self, when: str) -> None:
        if when == self.when:
            raise RuntimeError("Gather node\nName:'/head/Gather' " + "x" * 5000)


def test_a_graph_that_fails_is_named_with_its_node() -> None:
    with pytest.raises(
        BundleIntegrityError, match=r"^graph 'step' cannot be opened in failing: Gather node Name:'/head"
    ):
        Failing("open")
    with pytest.raises(
        BundleError, match=r"^graph 'step' fails while it runs in failing: Gather node Name:'/head"
    ) as run:
        Failing("run").run()
    assert len(str(run.value)) < 800
    assert "\n" not in str(run.value)


@each_target
def test_missing_package_is_named_with_its_extra(
    graph_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    file = graph_file(target)
    package, extra = PACKAGES[target]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendMissingError) as caught:
        file.open()
    assert f"pip install 'edgetrack[{extra}]'" in str(caught.value)
    assert caught.value.exit_code == 3


def changed(info: GraphInfo, side: str, **change: Any) -> GraphInfo:
    """The description with its first tensor of a side changed."""
    first, *rest = getattr(info, side)
    return msgspec.structs.replace(info, **{side: (msgspec.structs.replace(first, **change), *rest)})


@each_target
@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("change", [{"name": "other"}, {"dtype": "float16"}, {"shape": (1, 128, 128, 3)}], ids=str)
def test_graph_that_is_not_what_the_manifest_says_is_refused(
    graph_file: Callable[..., Any], target: str, side: str, change: dict[str, Any]
) -> None:
    file = graph_file(target)
    with pytest.raises(BundleIntegrityError, match=f"the file's {side} are .* the manifest says .*again"):
        file.open(changed(file.info, side, **change))


@each_target
@pytest.mark.parametrize("missing", ["inputs", "outputs"])
def test_graph_with_more_than_the_manifest_says_is_refused(
    graph_file: Callable[..., Any], target: str, missing: str
) -> None:
    file = graph_file(target, "step")
    fewer = msgspec.structs.replace(file.info, **{missing: getattr(file.info, missing)[:-1]})
    with pytest.raises(BundleIntegrityError, match=f"the file's {missing} are"):
        file.open(fewer)


@each_target
@pytest.mark.parametrize("kind", ["empty", "noise", "cut", "text"])
def test_damaged_graph_file_is_refused(graph_file: Callable[..., Any], target: str, kind: str) -> None:
    file = graph_file(target)
    whole = file.path.read_bytes()
    noise = np.random.default_rng(0).bytes(5000)
    file.path.write_bytes({"empty": b"", "noise": noise, "cut": whole[: len(whole) // 2], "text": b"{}"}[kind])
    with pytest.raises(BundleIntegrityError) as caught:
        file.open()
    assert file.path.name in str(caught.value)
    assert caught.value.exit_code == 1


def test_chain_counts_two_flops_per_multiply_accumulate() -> None:
    assert Chain(32, (128, 256)).flops == 2 * 128 * 256 * 1024
    assert Chain(4, (8, 16, 8)).flops == 2 * 16 * (8 * 16 + 16 * 8)


def test_chain_shows_its_shape() -> None:
    assert Chain(32, (128, 512, 128)).shape == "1x128x32x32 -> 512 -> 128"
