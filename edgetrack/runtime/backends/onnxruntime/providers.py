"""ONNX Runtime's execution providers: which one a device's name stands for, and which nodes it then computes.

ONNX Runtime replaces a provider that is missing or fails by another one, and gives nodes that a provider cannot compute
to the processor, without an error. Here one provider is asked for, and `hetero:xnnpack,cpu` allows what it lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import BackendOptions

CPU = "CPUExecutionProvider"
NO_FALLBACK, RECORD = "session.disable_cpu_ep_fallback", "session.record_ep_graph_assignment_info"
_SHOWN = 6


def _numbered(index: str, options: BackendOptions) -> dict[str, str]:
    return {"device_id": index or "0"}


def _plain(index: str, options: BackendOptions) -> dict[str, str]:
    return {}


def _threads(index: str, options: BackendOptions) -> dict[str, str]:
    return {"intra_op_num_threads": str(options.threads)}


def _plugin(index: str, options: BackendOptions) -> dict[str, str]:
    return {"device_type": (index or "cpu").upper(), "num_of_threads": str(options.threads)}


def _program(index: str, options: BackendOptions) -> dict[str, str]:
    return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}


def _htp(index: str, options: BackendOptions) -> dict[str, str]:
    return {"backend_type": "htp"}


@dataclass(frozen=True)
class Provider:
    """An execution provider: ONNX Runtime's name, where it comes from, and its options for a device and its number."""

    name: str
    source: str
    options: Callable[[str, BackendOptions], dict[str, str]]


_REPLACES = "pip uninstall onnxruntime, then pip install 'edgetrack[{}]': these packages overwrite each other's files"
PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider(CPU, "pip install 'edgetrack[onnx]'", _plain),
    "cuda": Provider("CUDAExecutionProvider", _REPLACES.format("onnx-cuda"), _numbered),
    "tensorrt": Provider("TensorrtExecutionProvider", _REPLACES.format("onnx-cuda"), _numbered),
    "openvino": Provider("OpenVINOExecutionProvider", _REPLACES.format("onnx-openvino"), _plugin),
    "directml": Provider("DmlExecutionProvider", _REPLACES.format("onnx-directml") + "; Windows only", _numbered),
    "qnn": Provider("QNNExecutionProvider", _REPLACES.format("onnx-qnn") + "; Qualcomm's NPU", _htp),
    "coreml": Provider("CoreMLExecutionProvider", "it is in onnxruntime's package for macOS", _program),
    "xnnpack": Provider(
        "XnnpackExecutionProvider", "build onnxruntime with --use_xnnpack: no package has it", _threads
    ),
}


@dataclass(frozen=True)
class ProviderChoice:
    """The providers of a session, in the order in which nodes are offered to them, with their options.

    Attributes:
        device: as it was asked for.
        providers: ONNX Runtime's names and options.
        strict: whether one provider has to compute every node.
    """

    device: str
    providers: tuple[tuple[str, dict[str, str]], ...]
    strict: bool

    @property
    def first(self) -> str:
        """The provider that was asked for."""
        return self.providers[0][0]

    def configure(self, settings: Any) -> None:
        """Set what the choice asks of a session."""
        # Versions before 1.24 pass over an entry that they do not know.
        settings.add_session_config_entry(RECORD, "1")
        if self.first == CPU:
            return
        if self.strict:
            settings.add_session_config_entry(NO_FALLBACK, "1")
        if self.first == PROVIDERS["directml"].name:
            settings.enable_mem_pattern = False  # it refuses a session with it
        if self.first == PROVIDERS["xnnpack"].name:
            # It has threads of its own; those of the session would spin beside them.
            settings.intra_op_num_threads = 1
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")


def choose(runtime: Any, options: BackendOptions) -> ProviderChoice:
    """The providers of a device.

    Raises:
        UsageError: the device's name lists what is no provider, or nothing behind `hetero:`.
        BackendMissingError: the installed ONNX Runtime was built without a provider.
    """
    kind, _, rest = options.device.partition(":")
    listed = [name.partition(".") for name in rest.split(",")] if kind == "hetero" else [(kind, "", rest)]
    available = runtime.get_available_providers()
    chosen = []
    for name, _, index in listed:
        if name not in PROVIDERS:
            raise UsageError(
                f"device {options.device!r} names {name or 'nothing'!r}; expected some of {', '.join(PROVIDERS)}, the "
                "preferred one first, such as --device hetero:xnnpack,cpu"
            )
        provider = PROVIDERS[name]
        if provider.name not in available:
            raise BackendMissingError(
                f"device {options.device!r}: the installed ONNX Runtime {runtime.__version__} has no {provider.name}, "
                f"only {', '.join(available)}; {provider.source}"
            )
        chosen.append((provider.name, provider.options(index, options)))
    return ProviderChoice(options.device, tuple(chosen), strict=kind != "hetero")


def require_chosen(session: Any, choice: ProviderChoice) -> str:
    """Check who computes what, and say it: `XnnpackExecutionProvider 210, CPUExecutionProvider 3`, in nodes.

    Raises:
        DeviceUnavailableError: the session has another first provider, or nodes went to one that was not asked for.
    """
    require_first(session, choice)
    nodes = assigned(session)
    allowed = {name for name, _ in choice.providers}
    strangers = {name: kinds for name, kinds in nodes.items() if name not in allowed}
    if strangers:
        raise not_all(choice, strangers)
    counts = {name: sum(nodes[name].values()) for name, _ in choice.providers if name in nodes}
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or choice.first


def require_first(session: Any, choice: ProviderChoice) -> None:
    """Check that the provider that was asked for could be made: a session goes on without one that could not.

    Raises:
        DeviceUnavailableError: it could not.
    """
    found = session.get_providers()[0]
    if found != choice.first:
        raise DeviceUnavailableError(
            f"device {choice.device!r}: ONNX Runtime chose {found} instead of {choice.first}, whose libraries or "
            "device are missing here, or of another version; use --device cpu"
        )


def assigned(session: Any) -> dict[str, Counter[str]]:
    """How many nodes of each operator every provider computes; empty where ONNX Runtime (before 1.24) does not tell."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    found: dict[str, Counter[str]] = {}
    for part in ask() if ask is not None else ():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def not_all(choice: ProviderChoice, left: Mapping[str, Counter[str]]) -> DeviceUnavailableError:
    """The error for a graph of which a provider computes a part only; `left` as of `assigned`, the others' part."""
    operators: Counter[str] = Counter()
    for kinds in left.values():
        operators.update(kinds)
    most = ", ".join(f"{count} {name}" for name, count in operators.most_common(_SHOWN))
    named = f" ({most}{', ...' if len(operators) > _SHOWN else ''})" if most else ""
    return DeviceUnavailableError(
        f"device {choice.device!r}: {choice.first} cannot compute {sum(operators.values()) or 'some'} nodes of this "
        f"graph{named}, which would run on the processor; --device hetero:{choice.device.replace(':', '.')},cpu allows "
        "that"
    )
