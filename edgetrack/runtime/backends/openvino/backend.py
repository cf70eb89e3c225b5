"""OpenVINO on the CPU: IR files, buffers shared with the runtime, compiled models cached between runs."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.errors import BackendMissingError, BundleIntegrityError, DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, GraphSignature

HINTS = {None: "f32", "bf16": "bf16"}


def import_openvino() -> Any:
    """The package, without its usage reports (a DNS look-up and files under ~/intel at every import).

    OpenVINO and NNCF do without where the package `openvino_telemetry` cannot be imported; that one also wants a home.

    Raises:
        BackendMissingError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError(
            f"OpenVINO is not installed ({error}); install it with: pip install 'edgetrack[openvino]'"
        ) from error
    return openvino


@cache
def shared_core() -> Any:
    """The process's one `openvino.Core`, kept to the end.

    Loading its CPU plugin gives the thread an alternate signal stack; unloading it brings back the one before and
    unmaps its own. Two cores that are not unloaded in reverse order leave a stack that is gone, and the next signal
    that Python handles, Ctrl-C for one, kills the process without a word.
    """
    return import_openvino().Core()


class OpenVinoGraph(CompiledGraph):
    """A graph in OpenVINO."""

    engine = "openvino"
    probe = "edgetrack.runtime.backends.openvino.probe:OpenVinoProbe"

    @classmethod
    def import_package(cls) -> None:
        import_openvino()

    def _open(self, path: Path, options: BackendOptions) -> None:
        openvino = import_openvino()
        options.require_cpu("OpenVINO")
        core = shared_core()
        config = self._config(core, options)
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", config)
        except RuntimeError as error:
            raise BundleIntegrityError(
                f"OpenVINO cannot read {path.name}: {str(error).strip().splitlines()[-1]}"
            ) from None
        self._check_signature("inputs", self._signature(self._compiled.inputs))
        self._check_signature("outputs", self._signature(self._compiled.outputs))
        self._request = self._compiled.create_infer_request()
        for name, buffer in self.inputs.items():
            self._request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))
        for name, buffer in self.outputs.items():
            self._request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))

    @staticmethod
    def _config(core: Any, options: BackendOptions) -> dict[str, Any]:
        if options.precision_hint not in HINTS:
            raise UsageError(f"precision hint {options.precision_hint!r} is not one of OpenVINO's: bf16")
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if options.precision_hint == "bf16" and "BF16" not in able:
            raise DeviceUnavailableError(
                f"this CPU cannot compute in bfloat16 (OpenVINO lists {', '.join(able)}); drop the hint"
            )
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": options.threads,
            # Without it OpenVINO computes FP32 graphs in bfloat16 on CPUs that have it, unasked.
            "INFERENCE_PRECISION_HINT": HINTS[options.precision_hint],
        }
        if options.cache is not None:
            config["CACHE_DIR"] = str(options.cache / "openvino")
        return config

    @staticmethod
    def _signature(ports: Any) -> GraphSignature:
        return {p.any_name: (str(np.dtype(p.element_type.to_dtype())), tuple(p.shape)) for p in ports}

    def _infer(self) -> None:
        self._request.infer()

    def _close(self) -> None:
        # Both hold on to the buffers and to the compiled code.
        del self._request, self._compiled
