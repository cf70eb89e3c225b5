"""TensorRT on an NVIDIA GPU: pinned buffers, one stream, a captured CUDA graph, every part timed by events.

The bundle holds typed ONNX. An engine comes from the bundle, from the cache, or is built here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, EdgetrackError
from edgetrack.io import sha256
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.backends.tensorrt.builder import build
from edgetrack.runtime.backends.tensorrt.cuda import Device, import_runtime
from edgetrack.runtime.backends.tensorrt.engines import Key, find_engine
from edgetrack.runtime.backends.tensorrt.installation import Installation, find_installation

log = logging.getLogger(__name__)
WARM_UP = 2
"""Runs before the capture: the first ones compile kernels and allocate, which no captured graph may."""
_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}


@dataclass(frozen=True)
class Times:
    """Where one run's time went, in milliseconds on the GPU's clock."""

    upload: float
    compute: float
    download: float


class TensorRtGraph(CompiledGraph):
    """A graph in TensorRT."""

    engine = "tensorrt"

    @classmethod
    def import_package(cls) -> None:
        find_installation()
        import_runtime()

    def _open(self, path: Path, options: BackendOptions) -> None:
        installation = find_installation()
        runtime = import_runtime()
        options.refuse_hint("TensorRT", "tensorrt")
        self._device = Device(runtime, options.device)
        try:
            self._engine = self._load(installation, path, options.cache, options.operators)
            self._prepare(installation)
        except BaseException:
            self._device.close()
            raise

    def _load(self, installation: Installation, path: Path, cache: Path | None, operators: frozenset[str]) -> Any:
        capability = self._device.capability
        able = installation.capabilities()
        if able and capability not in able:
            raise DeviceUnavailableError(
                f"{installation.name} {installation.version} does not know compute capability {capability} of "
                f"cuda:{self._device.index}; it knows {', '.join(able)}. Install the package tensorrt in its place"
            )
        try:
            beside = check_onnx(path, operators)
            onnx = path.read_bytes()
        except OSError as error:
            raise BundleIntegrityError(f"{path.name} cannot be read: {error.strerror or error}") from None
        if beside:
            raise BundleIntegrityError(f"{path.name} has data in {beside[0].name}; TensorRT reads one file: save it so")
        key = Key(
            onnx_sha256=sha256(onnx),
            package=installation.name,
            version=installation.version,
            capability=capability,
        )
        target = capability if installation.builds_for_others else None
        data = find_engine(self.info, path, key, cache, lambda source: build(installation, source, path.name, target))
        loader = installation.module.Runtime(installation.logger())
        engine = loader.deserialize_cuda_engine(data)
        if engine is None:
            said = "; ".join(installation.logger().take()) or "no reason was given"
            raise EdgetrackError(f"TensorRT does not load the engine of graph {self.info.name!r}: {said}")
        self._loader = loader
        return engine

    def _prepare(self, installation: Installation) -> None:
        device, engine = self._device, self._engine
        modes = installation.module.TensorIOMode
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        for side, mode in (("inputs", modes.INPUT), ("outputs", modes.OUTPUT)):
            found = {name: self._signature(name) for name in names if engine.get_tensor_mode(name) == mode}
            self._check_signature(side, found)
        self.inputs, self.outputs = device.pinned(self.info.inputs), device.pinned(self.info.outputs)
        self._stream = device.stream()
        self._events = [device.event() for _ in range(4)]
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EdgetrackError(f"TensorRT has no memory to run graph {self.info.name!r} on cuda:{device.index}")
        self._addresses = {name: device.memory(array.nbytes) for name, array in (*self.inputs.items(),
                           *self.outputs.items())}  # fmt: skip
        for name, address in self._addresses.items():
            self._context.set_tensor_address(name, address)
        self._launchable: Any = None
        self.times: Times | None = None
        for _ in range(WARM_UP):
            self._infer()
        self._launchable = device.capture(self._enqueue, self._stream)
        if self._launchable is None:
            log.warning("graph %s cannot be captured as a CUDA graph; it is enqueued for every run", self.info.name)

    def _signature(self, name: str) -> tuple[str, tuple[int, ...]]:
        dtype = str(self._engine.get_tensor_dtype(name)).rsplit(".", 1)[-1]
        return _TYPES.get(dtype, dtype.lower()), tuple(self._engine.get_tensor_shape(name))

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(int(self._stream)))

    def _launch(self) -> None:
        if self._launchable is not None:
            self._device.call("cudaGraphLaunch", self._launchable, self._stream)
        elif not self._enqueue():
            raise EdgetrackError(f"TensorRT could not run graph {self.info.name!r} on cuda:{self._device.index}")

    def _infer(self) -> None:
        device, stream, events = self._device, self._stream, self._events
        device.call("cudaEventRecord", events[0], stream)
        device.upload(self.inputs, self._addresses, stream)
        device.call("cudaEventRecord", events[1], stream)
        self._launch()
        device.call("cudaEventRecord", events[2], stream)
        device.download(self.outputs, self._addresses, stream)
        device.call("cudaEventRecord", events[3], stream)
        device.call("cudaStreamSynchronize", stream)
        spans = [device.call("cudaEventElapsedTime", *events[index : index + 2]) for index in range(3)]
        self.times = Times(*spans)

    def _close(self) -> None:
        # The context holds on to the engine, both to memory of the device.
        del self._context, self._engine, self._loader
        self._device.close()
