"""The reference on a GPU: what can be known without one.

Arithmetic is PyTorch's own, on the processor; streams and the capture are scripted, since nothing else is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.errors import DeviceUnavailableError, EdgetrackError, UsageError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import GraphModule, find_model, make_network
from edgetrack.runtime.backends.torch.cuda import WARM_UP, CudaRun, find_device, to_half
from edgetrack.runtime.session import load


class ScriptedTorch:
    """PyTorch with a `cuda` that records who was called and computes on the processor."""

    def __init__(self, devices: int = 1, built: str | None = "13.0", fails: bool = False) -> None:
        self.calls: list[str] = []
        self.version = SimpleNamespace(cuda=built)
        scripted = self

        class Stream:
            def __init__(self, device: Any) -> None:
                scripted.calls.append("Stream")

            def synchronize(self) -> None:
                scripted.calls.append("wait")

        class Graph:
            def replay(self) -> None:
                scripted.calls.append("replay")

        @contextmanager
        def context(name: str) -> Iterator[None]:
            scripted.calls.append(name)
            if name == "capture" and fails:
                raise RuntimeError("operation not permitted when stream is capturing")
            yield

        self.cuda = SimpleNamespace(
            is_available=lambda: devices > 0,
            device_count=lambda: devices,
            Stream=Stream,
            CUDAGraph=Graph,
            stream=lambda stream: context("on stream"),
            graph=lambda graph, stream: context("capture"),
            synchronize=lambda device: scripted.calls.append("wait for all"),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


X, Y = (TensorInfo(name=name, dtype="float32", shape=(1, 8, 12, 12)) for name in ("x", "y"))


@pytest.fixture
def graph() -> GraphModule:
    """A convolution, a normalisation and a matrix product."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Linear(12, 12))
    return GraphModule("step", "step", layers.eval(), (X,), (Y,))


def filled(run: CudaRun) -> np.ndarray[Any, Any]:
    run.inputs["x"][:] = np.random.default_rng(0).normal(size=X.shape)
    run.run()
    return run.outputs["y"].copy()


def test_eager_computes_what_the_module_does(graph: GraphModule) -> None:
    scripted = ScriptedTorch()
    run = CudaRun(scripted, graph, torch.device("cpu"), half=False)
    found = filled(run)
    assert np.array_equal(found, graph(torch.from_numpy(run.inputs["x"]))["y"].numpy())
    assert scripted.calls == ["Stream", "wait for all", "on stream", "wait"]


def test_half_is_warmed_up_captured_once_and_replayed(graph: GraphModule) -> None:
    scripted = ScriptedTorch()
    to_half(torch, graph.module)
    run = CudaRun(scripted, graph, torch.device("cpu"), half=True)
    assert scripted.calls == ["Stream", "wait for all", "on stream", "wait", "capture"]
    del scripted.calls[:]
    filled(run)
    assert scripted.calls == ["on stream", "replay", "wait"]
    assert WARM_UP > 1


def test_half_computes_nearly_the_same_in_float_outputs(graph: GraphModule) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=X.shape).astype(np.float32))
    expected = graph(x)["y"].numpy()
    to_half(torch, graph.module)
    run = CudaRun(ScriptedTorch(), graph, torch.device("cpu"), half=True)
    run._there[0].copy_(x)
    found = run._compute()["y"]
    assert found.dtype == torch.float32
    assert 0 < np.abs(found.numpy() - expected).max() < 0.01


def test_only_products_and_convolutions_are_halved(graph: GraphModule) -> None:
    conv, norm, linear = to_half(torch, graph.module)
    assert {conv.weight.dtype, linear.weight.dtype} == {torch.float16}
    assert {norm.weight.dtype, norm.running_mean.dtype} == {torch.float32}
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_network_that_cannot_be_captured_says_what_to_do(graph: GraphModule) -> None:
    with pytest.raises(EdgetrackError, match=r"when stream is capturing.*leave out the hint fp16"):
        CudaRun(ScriptedTorch(fails=True), graph, torch.device("cpu"), half=True)


def test_device_is_found_or_refused_with_the_reason() -> None:
    assert find_device(ScriptedTorch(devices=2), "cuda:1") == torch.device("cuda", 1)
    assert find_device(ScriptedTorch(), "cuda") == torch.device("cuda", 0)
    for scripted, name, words in (
        (ScriptedTorch(), "gpu", "runs on cpu and cuda:0, not on 'gpu'"),
        (ScriptedTorch(devices=2), "cuda:2", "this machine has cuda:0 to cuda:1"),
        (ScriptedTorch(devices=0), "cuda:0", "no NVIDIA GPU that PyTorch can use"),
    ):
        with pytest.raises(DeviceUnavailableError, match=words) as caught:
            find_device(scripted, name)
        assert caught.value.exit_code == 4
    with pytest.raises(DeviceUnavailableError, match="built without CUDA") as missing:
        find_device(ScriptedTorch(built=None), "cuda:0")
    assert missing.value.exit_code == 4


def test_names_that_are_used_exist() -> None:
    for name in ("Stream", "CUDAGraph", "graph", "stream", "synchronize", "is_available", "device_count"):
        assert hasattr(torch.cuda, name)


def test_bundle_says_what_a_gpu_would_take(exported: Callable[..., Path]) -> None:
    bundle = exported("torch")
    with pytest.raises(UsageError, match="takes the precision hint fp16 on a GPU and no other"):
        load(bundle, precision_hint="fp16")
    if torch.cuda.is_available():
        pytest.skip("A GPU IS HERE: its absence cannot be tested")
    with pytest.raises(DeviceUnavailableError, match="'cuda:0'"):
        load(bundle, device="cuda:0")


@pytest.mark.parametrize("tracker", ["smat", "nanotrack_v2", "nanotrack_v3"])
def test_published_graphs_make_no_tensor_elsewhere(tracker: str) -> None:
    """A tensor that a graph made on the processor could not meet those of another device, as here of `meta`."""
    network = make_network(tracker, find_recipe(tracker).configuration).to("meta")
    known: dict[str, torch.Tensor] = {}
    for graph in find_model(tracker).reference(network):
        for info in graph.inputs:
            meta = torch.zeros(info.shape, dtype=getattr(torch, info.dtype), device="meta")
            known.setdefault(info.name, meta)
        found = graph(*(known[info.name] for info in graph.inputs))
        assert {name: (tensor.device.type, tuple(tensor.shape)) for name, tensor in found.items()} == {
            info.name: ("meta", info.shape) for info in graph.outputs
        }
        known |= found


def test_published_smat_under_half_stays_near_on_the_processor() -> None:
    network = make_network("smat", {})
    fill(network, find_recipe("smat"), "untrained")
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=generator) for side in (128, 256)]
    wide = _outputs(network, images, half=False)
    narrow = _outputs(to_half(torch, network), images, half=True)
    for name, expected in wide.items():
        assert np.abs(narrow[name] - expected).max() < 0.05 * max(1.0, float(np.abs(expected).max()))


def _outputs(network: Any, images: list[torch.Tensor], half: bool) -> dict[str, np.ndarray[Any, Any]]:
    template, step = find_model("smat").reference(network)
    first = CudaRun(ScriptedTorch(), template, torch.device("cpu"), half=half)
    first._there[0].copy_(images[0])
    features = first._compute()["template_features"]
    second = CudaRun(ScriptedTorch(), step, torch.device("cpu"), half=half)
    second._there[0].copy_(images[1])
    second._there[1].copy_(features)
    return {name: tensor.numpy() for name, tensor in second._compute().items()}
