"""The PyTorch reference on an NVIDIA GPU: eager as published, or FP16, channels-last and captured as one CUDA graph.

The first is what the papers time, the second the best that PyTorch does without a compiler: a network that a user can
have with a dozen lines is the one to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import TensorInfo
from edgetrack.device_name import cuda_index
from edgetrack.errors import DeviceUnavailableError, EdgetrackError

WARM_UP = 3
"""Runs before the capture, as PyTorch asks for: cuDNN chooses kernels and memory is taken, which no capture may."""


def find_device(torch: Any, name: str) -> Any:
    """The `torch.device` of `cuda:N` (or `cuda`, the first).

    Raises:
        DeviceUnavailableError: it is no such name, not there, or this PyTorch was built without CUDA.
    """
    index = cuda_index(name)
    if index is None:
        raise DeviceUnavailableError(f"the PyTorch reference runs on cpu and cuda:0, not on {name!r}")
    if torch.version.cuda is None:
        raise DeviceUnavailableError(
            f"PyTorch {torch.__version__} was built without CUDA, which {name!r} needs; install another build: "
            "https://pytorch.org/get-started/locally"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        have = f"cuda:0 to cuda:{count - 1}" if count else "no NVIDIA GPU that PyTorch can use"
        raise DeviceUnavailableError(f"{name!r} is not there; this machine has {have}")
    return torch.device("cuda", index)


def to_half(torch: Any, network: Any) -> Any:
    """Weights of matrix products and convolutions to FP16, channels last, in place.

    Normalisations and loose parameters stay in FP32: autocast computes those in FP32, or promotes what meets them.
    """
    layers = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    for module in network.modules():
        if isinstance(module, layers):
            module.half()
    return network.to(memory_format=torch.channels_last)


class CudaRun:
    """One graph of the reference on a GPU, between page-locked host arrays: write `inputs`, `run`, read `outputs`.

    Args:
        torch: the package.
        graph: a `models.base.GraphModule`: takes tensors in the order of its inputs, returns them by name.
        device: as `find_device` gives it.
        half: FP16 under autocast and a captured graph, in place of eager FP32.

    Raises:
        EdgetrackError: the network cannot be captured.
    """

    def __init__(self, torch: Any, graph: Any, device: Any, half: bool) -> None:
        self._torch, self._graph, self._device, self._half = torch, graph, device, half
        self._host_in = {info.name: self._host(info) for info in graph.inputs}
        self._host_out = {info.name: self._host(info) for info in graph.outputs}
        self.inputs: dict[str, Array] = {name: tensor.numpy() for name, tensor in self._host_in.items()}
        self.outputs: dict[str, Array] = {name: tensor.numpy() for name, tensor in self._host_out.items()}
        self._there = [torch.zeros_like(host, device=device) for host in self._host_in.values()]
        self._stream = torch.cuda.Stream(device)
        # The network was moved here on another stream, which this one does not wait for.
        torch.cuda.synchronize(device)
        self._run: Callable[[], Mapping[str, Any]] = self._capture() if half else self._compute

    def run(self) -> None:
        """Upload, compute, download, and wait for it."""
        with self._torch.cuda.stream(self._stream):
            for there, here in zip(self._there, self._host_in.values(), strict=True):
                there.copy_(here, non_blocking=True)
            found = self._run()
            for name, host in self._host_out.items():
                host.copy_(found[name], non_blocking=True)
        self._stream.synchronize()

    def _host(self, info: TensorInfo) -> Any:
        dtype = getattr(self._torch, info.dtype)
        return self._torch.zeros(info.shape, dtype=dtype, pin_memory=self._device.type == "cuda")

    def _compute(self) -> Mapping[str, Any]:
        if not self._half:
            return cast("Mapping[str, Any]", self._graph(*self._there))
        # Autocast's cache of cast weights would be made inside of the capture and be gone after it.
        with self._torch.autocast(self._device.type, dtype=self._torch.float16, cache_enabled=False):
            return {name: value.float() for name, value in self._graph(*self._there).items()}

    def _capture(self) -> Callable[[], Mapping[str, Any]]:
        cuda = self._torch.cuda
        captured = cuda.CUDAGraph()
        try:
            # What cuDNN times in the warm-up is what the capture keeps.
            with self._torch.backends.cudnn.flags(enabled=True, benchmark=True):
                with cuda.stream(self._stream):
                    for _ in range(WARM_UP):
                        self._compute()
                self._stream.synchronize()
                with cuda.graph(captured, stream=self._stream):
                    found = self._compute()
        except RuntimeError as error:
            raise EdgetrackError(
                f"PyTorch cannot capture this network as a CUDA graph ({error}); leave out the hint fp16 for eager FP32"
            ) from None

        def replay() -> Mapping[str, Any]:
            captured.replay()
            return found

        return replay
