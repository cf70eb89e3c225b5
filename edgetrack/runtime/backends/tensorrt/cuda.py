"""CUDA as far as one graph needs it: a device, pinned buffers, a stream, events, a captured graph.

Through NVIDIA's own bindings (`cuda.bindings.runtime`), whose functions return an error code and values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import TensorInfo
from edgetrack.device_name import cuda_index
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError

PAGE = 4096


def import_runtime() -> Any:
    """NVIDIA's bindings of the CUDA runtime.

    Raises:
        BackendMissingError: they are not installed.
    """
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError) as error:
        raise BackendMissingError(
            f"cuda-bindings is not installed ({error}); install it with: pip install 'edgetrack[tensorrt]', on Jetson "
            "pip install 'edgetrack[tensorrt-jetson]'"
        ) from error
    return runtime


class Device:
    """A GPU and what was taken from it; `close` gives all back in reverse order."""

    def __init__(self, runtime: Any, name: str) -> None:
        """Choose the GPU `cuda:N` (or `cuda`, the first).

        Raises:
            DeviceUnavailableError: it is not there; the message says what to do.
        """
        self.runtime = runtime
        self._undo: list[Callable[[], None]] = []
        self.index = self._find(name)
        self._set()

    def _find(self, name: str) -> int:
        index = cuda_index(name)
        if index is None:
            raise DeviceUnavailableError(
                f"TensorRT bundles run on an NVIDIA GPU, not on {name!r}; add --device cuda:0 on a machine that has one"
            )
        error, count = self.runtime.cudaGetDeviceCount()
        if int(error) or not count:
            raise DeviceUnavailableError(
                f"no NVIDIA GPU can be used for {name!r} ({self._text(error) if int(error) else 'none is there'}); "
                "take the bundle to a machine with one and its driver, or export for another target: "
                "edgetrack list --targets"
            )
        if index >= count:
            raise DeviceUnavailableError(f"{name!r} is not there; this machine has cuda:0 to cuda:{count - 1}")
        return index

    def _text(self, error: Any) -> str:
        _, text = self.runtime.cudaGetErrorString(error)
        return text.decode() if isinstance(text, bytes) else str(text)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime; its value, if it returns one.

        Raises:
            EdgetrackError: it failed.
        """
        error, *values = getattr(self.runtime, name)(*arguments)
        if int(error):
            raise EdgetrackError(f"CUDA on cuda:{self.index}: {name} failed: {self._text(error)}")
        return values[0] if values else None

    def _set(self) -> None:
        self.call("cudaSetDevice", self.index)

    @property
    def capability(self) -> str:
        """The compute capability, such as `8.6`."""
        kinds = self.runtime.cudaDeviceAttr
        major = self.call("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMajor, self.index)
        minor = self.call("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMinor, self.index)
        return f"{major}.{minor}"

    def pinned(self, tensors: tuple[TensorInfo, ...]) -> dict[str, Array]:
        """Zeroed C-order arrays in page-locked host memory, so that copies need no staging.

        The memory is numpy's own and stays valid after `close`, which unlocks it.
        """
        offsets, total = {}, 0
        for tensor in tensors:
            offsets[tensor.name] = total
            total += -(-_size(tensor) // 256) * 256
        # Whole pages of its own: no two registered ranges may share one.
        locked = -(-max(total, 1) // PAGE) * PAGE
        raw = np.zeros(locked + PAGE, np.uint8)
        block = raw[-raw.ctypes.data % PAGE :][:locked]
        address = block.ctypes.data
        self.call("cudaHostRegister", address, locked, 0)
        self._undo.append(lambda: self.call("cudaHostUnregister", address))
        return {t.name: block[offsets[t.name] :][: _size(t)].view(np.dtype(t.dtype)).reshape(t.shape) for t in tensors}

    def memory(self, size: int) -> int:
        """The address of `size` bytes on the GPU."""
        address = int(self.call("cudaMalloc", max(size, 1)))
        self._undo.append(lambda: self.call("cudaFree", address))
        return address

    def stream(self) -> Any:
        """A stream of its own, which waits for no other."""
        stream = self.call("cudaStreamCreateWithFlags", self.runtime.cudaStreamNonBlocking)
        self._undo.append(lambda: self.call("cudaStreamDestroy", stream))
        return stream

    def event(self) -> Any:
        """An event that keeps time."""
        event = self.call("cudaEventCreate")
        self._undo.append(lambda: self.call("cudaEventDestroy", event))
        return event

    def upload(self, arrays: Mapping[str, Array], addresses: Mapping[str, int], stream: Any) -> None:
        """Start copies to the GPU."""
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        for name, array in arrays.items():
            self.call("cudaMemcpyAsync", addresses[name], array.ctypes.data, array.nbytes, kind, stream)

    def download(self, arrays: Mapping[str, Array], addresses: Mapping[str, int], stream: Any) -> None:
        """Start copies from the GPU."""
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, array in arrays.items():
            self.call("cudaMemcpyAsync", array.ctypes.data, addresses[name], array.nbytes, kind, stream)

    def capture(self, enqueue: Callable[[], bool], stream: Any) -> Any | None:
        """What `enqueue` puts on the stream as a graph that can be launched; None where it cannot be captured."""
        mode = self.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        enqueued = enqueue()
        error, graph = self.runtime.cudaStreamEndCapture(stream)
        if int(error) or not enqueued:
            self.runtime.cudaGetLastError()  # a failed capture leaves its error behind for the next call
            return None
        launchable = self.call("cudaGraphInstantiate", graph, 0)
        self.call("cudaGraphDestroy", graph)
        self._undo.append(lambda: self.call("cudaGraphExecDestroy", launchable))
        return launchable

    def close(self) -> None:
        """Give back what was taken; safe to call twice."""
        while self._undo:
            self._undo.pop()()


def capability_here() -> str | None:
    """The compute capability of the first GPU; None without one, or without the bindings."""
    try:
        return Device(import_runtime(), "cuda:0").capability
    except (BackendMissingError, DeviceUnavailableError):
        return None


def _size(tensor: TensorInfo) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
