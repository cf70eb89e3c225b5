"""OpenVINO's devices: which of them a name stands for, what each is asked, and where a compiled model then runs.

OpenVINO replaces a device that is missing from AUTO's list, and computes in a lower precision than the file's, without
a word; both are asked back here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import BackendOptions

log = logging.getLogger(__name__)

HINTS = {None: "f32", "bf16": "bf16", "fp16": "f16"}
_ABLE = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_COMPUTE = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "fully_connected", "gemm", "convolution")
"""Types of layers, in plug-ins' own names, that do the arithmetic."""
_TO_DO = {
    "GPU": "install Intel's OpenCL runtime (Debian and Ubuntu: apt-get install intel-opencl-icd) and add this user to "
    "the group render",
    "NPU": "install Intel's NPU driver with Level Zero (packages intel-level-zero-npu, intel-driver-compiler-npu and "
    "level-zero of github.com/intel/linux-npu-driver) and add this user to the group render",
}


def plugin_name(device: str) -> str:
    """OpenVINO's name of a device: `gpu:1` is `GPU.1`, `hetero:gpu.1,cpu` is `HETERO:GPU.1,CPU`."""
    kind, _, rest = device.upper().partition(":")
    return f"{kind}.{rest}" if rest.isdigit() else f"{kind}:{rest}" if rest else kind


def members(core: Any, name: str) -> tuple[str, ...]:
    """The devices that a name may end on: itself, or those that it lists; AUTO alone takes all there are."""
    kind, _, listed = name.partition(":")
    if kind == "AUTO" and not listed:
        return tuple(core.available_devices)
    return tuple(listed.split(",")) if listed else (name,)


def require_present(core: Any, device: str, names: Iterable[str]) -> None:
    """Check that every device is there: OpenVINO's own errors speak of contexts and plug-ins' lines.

    Raises:
        DeviceUnavailableError: one is not; the message says what there is and what to install.
    """
    missing = [name for name in names if not _is_present(core, name)]
    if missing:
        present, kind = tuple(core.available_devices), missing[0].partition(".")[0]
        more = _TO_DO.get(kind, f"name one of those, such as --device {present[0].lower()}" if present else "")
        raise DeviceUnavailableError(
            f"device {device!r}: OpenVINO finds no {missing[0]} here, only {', '.join(present) or 'nothing'}; {more}"
        )


def _is_present(core: Any, name: str) -> bool:
    """Ask the device's own plug-in.

    `available_devices` asks them all: the plug-ins of GPU and NPU then stay in the process, 25 MiB that a tracker on
    the processor has no use for. It also calls a GPU that is the only one `GPU` alone, never `GPU.0`.
    """
    kind, _, number = name.partition(".")
    try:
        numbers = tuple(core.get_property(kind, "AVAILABLE_DEVICES"))
    except RuntimeError:
        return False  # there is no such plug-in
    return number in numbers if number else bool(numbers)


def configuration(core: Any, name: str, options: BackendOptions) -> dict[str, Any]:
    """What to compile a model with on a device; `name` is OpenVINO's.

    Raises:
        UsageError: no such precision hint.
        DeviceUnavailableError: a device cannot compute in what was asked for.
    """
    if options.precision_hint not in HINTS:
        raise UsageError(f"precision hint {options.precision_hint!r} is not one of OpenVINO's: bf16, fp16")
    found: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    places = {one: _properties(core, one, options) for one in members(core, name)}
    if name in places:
        return {**found, **places[name]}
    if name.startswith("AUTO") and len(places) > 1:
        # Else the first frames run on the processor while another device compiles, and all do where it fails.
        found |= {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
    return {**found, "DEVICE_PROPERTIES": places}


def _properties(core: Any, name: str, options: BackendOptions) -> dict[str, Any]:
    able = tuple(core.get_property(name, "OPTIMIZATION_CAPABILITIES"))
    wanted = HINTS[options.precision_hint]
    if _ABLE[wanted] not in able:
        if options.precision_hint is not None:
            raise DeviceUnavailableError(
                f"this {name} cannot compute in {'bfloat16' if wanted == 'bf16' else 'half precision'} (OpenVINO "
                f"lists {', '.join(able)}); drop the hint, and in place of a bundle of bf16 or int8-bf16 export fp32 "
                "or int8"
            )
        wanted = "f16"
        log.warning("OpenVINO's %s computes FP32 graphs in FP16: it has no FP32 (%s)", name, ", ".join(able))
    if name != "CPU":
        return {"INFERENCE_PRECISION_HINT": wanted}
    # Without the hint OpenVINO computes FP32 graphs in bfloat16 on x86, and in FP16 on Arm, where it can, unasked.
    return {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": options.threads, "INFERENCE_PRECISION_HINT": wanted}


def placement_of(compiled: Any, name: str, allowed: Iterable[str]) -> str:
    """Where a compiled model runs and in which precision, such as `GPU.0 in f16`.

    Args:
        compiled: the model.
        name: of the device that was asked for.
        allowed: the devices that it may run on.

    Raises:
        DeviceUnavailableError: it runs elsewhere.
    """
    stated = compiled.get_property("EXECUTION_DEVICES")
    places = [stated] if isinstance(stated, str) else list(stated)
    fitting = {known for one in allowed for known in (one, f"{one}.0")}
    # AUTO puts what stands in for the device that is still compiling in brackets.
    if not places or not set(places) <= fitting:
        raise DeviceUnavailableError(
            f"OpenVINO runs this graph on {', '.join(places) or 'nothing'}, where {name} was asked for; "
            f"name the device itself, such as --device {name.rpartition(':')[2].partition(',')[0].lower()}"
        )
    return f"{', '.join(places)} in {_precision(compiled)}"


def _precision(compiled: Any) -> str:
    """Of the layers that do the arithmetic; virtual devices do not tell their hint."""
    kinds: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        layer = str(info["layerType"].astype(str)) if "layerType" in info else ""
        if layer in _COMPUTE and "runtimePrecision" in info:
            kinds.add(str(info["runtimePrecision"].astype(str)))
    return "+".join(sorted(kinds)) or "a precision that it does not tell"
