"""ONNX Runtime, on one execution provider, with inputs and outputs bound once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, BundleIntegrityError, DeviceUnavailableError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, GraphSignature
from edgetrack.runtime.backends.onnxruntime.providers import (
    CPU,
    PROVIDERS,
    ProviderChoice,
    assigned,
    choose,
    not_all,
    require_chosen,
    require_first,
)

log = logging.getLogger(__name__)
_WARNING = 2
"""The severity from which ONNX Runtime prints unless it is told otherwise."""
_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


def import_onnxruntime() -> Any:
    """The package.

    Raises:
        BackendMissingError: it is not installed.
    """
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
    layer_timer = "edgetrack.runtime.backends.onnxruntime.layers:OnnxRuntimeLayers"

    @classmethod
    def import_package(cls) -> None:
        import_onnxruntime()

    @classmethod
    def devices_here(cls) -> tuple[str, ...]:
        available = import_onnxruntime().get_available_providers()
        return tuple(device for device, provider in PROVIDERS.items() if provider.name in available)

    @classmethod
    def require_device_here(cls, device: str) -> None:
        choose(import_onnxruntime(), BackendOptions(device=device))

    def _open(self, path: Path, options: BackendOptions) -> None:
        runtime = import_onnxruntime()
        choice = choose(runtime, options)
        options.refuse_hint("ONNX Runtime", "onnx")
        check_onnx(path, options.operators)
        self._session = self._choose_session(runtime, path, options, choice)
        self.placement = require_chosen(self._session, choice)
        self._check_signature("inputs", self._signature(self._session.get_inputs()))
        self._check_signature("outputs", self._signature(self._session.get_outputs()))
        self._binding = self._session.io_binding()
        for name, buffer in self.inputs.items():
            self._binding.bind_input(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        for name, buffer in self.outputs.items():
            self._binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    @classmethod
    def _choose_session(cls, runtime: Any, path: Path, options: BackendOptions, choice: ProviderChoice) -> Any:
        """A session of the chosen providers; ONNX Runtime's exceptions share no base class."""
        if choice.first == CPU:
            return cls._on_cpu(runtime, path, options, choice)
        try:
            return cls._session_of(runtime, path, options, choice)
        except Exception as error:
            reason = " ".join(str(error).split())
        if choice.strict:
            # Its error names no node: a session with the fallback tells which they are.
            lenient = replace(choice, strict=False)
            try:
                session = cls._session_of(runtime, path, options, lenient)
            except Exception as error:
                reason = " ".join(str(error).split())
            else:
                require_first(session, choice)
                if left := {name: kinds for name, kinds in assigned(session).items() if name != choice.first}:
                    raise not_all(choice, left)
        raise DeviceUnavailableError(f"ONNX Runtime cannot run {path.name} on {choice.first}: {reason}")

    @classmethod
    def _on_cpu(cls, runtime: Any, path: Path, options: BackendOptions, choice: ProviderChoice) -> Any:
        try:
            return cls._session_of(runtime, path, options, choice, exact=True)
        except Exception:  # 1.31 cannot do so where two nodes share a weight, as they do in bundles of earlier versions
            try:
                session = cls._session_of(runtime, path, options, choice)
            except Exception as error:
                raise BundleIntegrityError(f"ONNX Runtime cannot read {path.name}: {error}") from None
        log.warning(
            "%s: sums of INT8 may saturate, since this processor has no VNNI instructions: export the bundle again, "
            "and ONNX Runtime computes it exactly",
            path.name,
        )
        return session

    @staticmethod
    def _session_of(
        runtime: Any, path: Path, options: BackendOptions, choice: ProviderChoice, exact: bool = False
    ) -> Any:
        settings = runtime.SessionOptions()
        if exact:
            # Without VNNI, two products of bytes are added in 16 bits, which saturate (decision 0033). With it, this
            # changes nothing.
            settings.add_session_config_entry("session.x64quantprecision", "1")
        # Else a name or a first byte would have it read as another format, past the check.
        settings.add_session_config_entry("session.load_model_format", "ONNX")
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        # Its errors come as exceptions, too; printed by it (here, and by its fallback), they would steer the terminal.
        settings.log_severity_level = 4
        choice.configure(settings)
        if choice.first != CPU:
            runtime.set_default_logger_severity(4)  # who makes a provider knows no session's level
        try:
            return runtime.InferenceSession(str(path), settings, providers=list(choice.providers), enable_fallback=0)
        finally:
            if choice.first != CPU:
                runtime.set_default_logger_severity(_WARNING)

    @staticmethod
    def _signature(nodes: Any) -> GraphSignature:
        return {n.name: (str(np.dtype(_TYPES.get(n.type, "void"))), tuple(n.shape)) for n in nodes}

    def _infer(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def _close(self) -> None:
        del self._binding, self._session
