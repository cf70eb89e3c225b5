"""ONNX Runtime on the CPU, with inputs and outputs bound once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, BundleIntegrityError, DeviceUnavailableError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, GraphSignature

PROVIDER = "CPUExecutionProvider"
_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError(
            f"ONNX Runtime is not installed ({error}); install it with: pip install 'edgetrack[onnx]'"
        ) from error
    return onnxruntime


class OnnxRuntimeGraph(CompiledGraph):
    """A graph in ONNX Runtime."""

    engine = "onnxruntime"

    @classmethod
    def import_package(cls) -> None:
        _import()

    def _open(self, path: Path, options: BackendOptions) -> None:
        runtime = _import()
        options.require_cpu("ONNX")
        options.refuse_hint("ONNX Runtime", "onnx")
        check_onnx(path, options.operators)
        settings = runtime.SessionOptions()
        # Else a name or a first byte would have it read as another format, past the check.
        settings.add_session_config_entry("session.load_model_format", "ONNX")
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        # Its errors come as exceptions, too; printed by it (here, and by its fallback), they would steer the terminal.
        settings.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(str(path), settings, providers=[PROVIDER], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BundleIntegrityError(f"ONNX Runtime cannot read {path.name}: {error}") from None
        # A provider that is missing is replaced without an error.
        if self._session.get_providers()[0] != PROVIDER:
            raise DeviceUnavailableError(f"ONNX Runtime chose {self._session.get_providers()[0]} instead of {PROVIDER}")
        self._check_signature("inputs", self._signature(self._session.get_inputs()))
        self._check_signature("outputs", self._signature(self._session.get_outputs()))
        self._binding = self._session.io_binding()
        for name, buffer in self.inputs.items():
            self._binding.bind_input(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        for name, buffer in self.outputs.items():
            self._binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    @staticmethod
    def _signature(nodes: Any) -> GraphSignature:
        return {n.name: (str(np.dtype(_TYPES.get(n.type, "void"))), tuple(n.shape)) for n in nodes}

    def _infer(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def _close(self) -> None:
        del self._binding, self._session
