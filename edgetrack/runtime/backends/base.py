"""What a backend is: a class that opens one graph file and runs it on buffers that are made once.

A public method checks state and input and names the fix; a private one does the work. A new backend subclasses
`CompiledGraph`, implements `_open`, `_infer` and `_close`, and gets a row in
`edgetrack.capabilities`.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import BundleIntegrityError, UsageError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Options:
    """How a bundle is to be run.

    Attributes:
        device: `cpu`, `cuda:0`, ...; what a backend cannot serve it refuses (DeviceUnavailableError).
        threads: threads of one inference; at least 1.
        precision_hint: arithmetic asked of the backend at run time (`bf16`), None for the bundle's own precision.
        cache: folder for what a backend compiles, or None for no cache.
    """

    device: str = "cpu"
    threads: int = 1
    precision_hint: str | None = None
    cache: Path | None = None


def allocate(tensors: tuple[TensorInfo, ...]) -> dict[str, Array]:
    """Zeroed C-order arrays for a list of tensors, aligned to 64 bytes so that no backend copies them."""
    buffers: dict[str, Array] = {}
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        size = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
        raw = np.zeros(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        buffers[tensor.name] = raw[start : start + size].view(dtype).reshape(tensor.shape)
    return buffers


class CompiledGraph(abc.ABC):
    """One graph, opened on a device, with its input and output buffers.

    Write into `inputs[name]`, call `run()`, read `outputs[name]`: the arrays are the same ones on every call.
    """

    def __init__(self, info: GraphInfo, path: Path, options: Options) -> None:
        """Open a graph file.

        Raises:
            BackendMissingError: the backend's package is not installed.
            DeviceUnavailableError: the device is not on this machine.
            BundleIntegrityError: the file is not the graph that the manifest describes.
        """
        if options.threads < 1:
            raise UsageError(f"threads is {options.threads}; give 1 or more")
        self.info = info
        self.inputs = allocate(info.inputs)
        self.outputs = allocate(info.outputs)
        self._closed = False
        self._open(path, options)

    def run(self) -> None:
        """Compute `outputs` from `inputs`."""
        if self._closed:
            raise UsageError(f"graph {self.info.name!r} is closed; load the bundle again")
        self._infer()

    def close(self) -> None:
        """Release the backend's memory; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._close()

    def _check_signature(self, side: str, found: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        """Hold what a file declares (name -> dtype, shape) against the manifest."""
        expected = {t.name: (t.dtype, t.shape) for t in (self.info.inputs if side == "inputs" else self.info.outputs)}
        if found != expected:
            raise BundleIntegrityError(
                f"graph {self.info.name!r}: the file's {side} are {found}, the manifest says {expected}; "
                "export the bundle again"
            )

    @abc.abstractmethod
    def _open(self, path: Path, options: Options) -> None: ...

    @abc.abstractmethod
    def _infer(self) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...
