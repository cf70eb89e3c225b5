"""One table: which target runs where, at which precision, with which package. Nothing else knows a target's name."""

from __future__ import annotations

import contextlib
import importlib.util
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from edgetrack import plugins
from edgetrack.environments import PythonEnvironment
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UnknownNameError, UsageError
from edgetrack.plugins import load_plugin, plugin_names
from edgetrack.resources import require_extra

if TYPE_CHECKING:
    from edgetrack.bundle.manifest import Manifest
    from edgetrack.bundle.reader import BundleRef
    from edgetrack.environments.setup import EnvironmentState
    from edgetrack.runtime.backends.base import CompiledGraph


EXPORT_PACKAGES = ("torch", "onnx", "safetensors")
"""What every export needs, and no device that runs a bundle."""
_MODULES = {
    **dict.fromkeys(
        ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn"), "onnxruntime"
    ),
    "tensorrt-rtx-cu13": "tensorrt_rtx",
    "tensorrt-rtx-cu12": "tensorrt_rtx",
    "cuda-bindings": "cuda",
}
"""Packages that are imported under another name than they are installed by."""


@dataclass(frozen=True)
class Target:
    """A row of the table.

    Attributes:
        name: as `--target` takes it, with `aliases`.
        about: one line for lists.
        backend: `module:class` of the `CompiledGraph` that opens its graphs.
        exporter: `module:class` of its `Exporter`, None where nothing is exported to it.
        packages: what must be installed to run a bundle, by the names of distributions; `a | b` takes either.
        extra: the extra of edgetrack that installs them.
        precisions: what `export` offers.
        hints: what `load(precision_hint=...)` offers.
        hinted: of its precisions those whose bundles are FP32 files that are loaded with the hint of that name.
        quantizer: the package that quantizes for it, here or in its environment.
        devices: what `load(device=...)` offers: a kind, `cuda:N` for `cuda` and every `cuda:0`, `hetero:LIST` for a
            kind with names behind it, such as `hetero:gpu,cpu`.
        device_needed: what a bundle runs on, for messages, where that is not any machine with the packages.
        proof: the target whose backend proves an export, itself where it is empty. Another one computes the same files
            where the target's device need not be.
        made_from: the target whose FP32 bundle its own are lowered from, where it has none of its own.
        channels_last: whether its engine keeps the channels of a map last, so that a map read as rows moves no memory.
        reference: whether it is the published computation, which others are compared with.
        tested: versions that the test-suite ran with.
        setup: what to know before installing, for `doctor`.
        modules: by package those that are imported under another name than they are installed by.
        environment: a Python environment of its own, where its packages cannot live with edgetrack's; see
            `edgetrack.environments`. A bundle runs where it is ready; or, as on a device, where `packages` are found.
    """

    name: str
    backend: str
    exporter: str | None
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...]
    about: str
    aliases: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    hinted: tuple[str, ...] = ()
    quantizer: str = "nncf"
    devices: tuple[str, ...] = ("cpu",)
    device_needed: str = ""
    proof: str = ""
    made_from: str = ""
    channels_last: bool = False
    reference: bool = False
    tested: str = ""
    setup: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)
    environment: PythonEnvironment | None = None

    @property
    def installed(self) -> bool:
        """Whether what runs a bundle can be found; nothing is imported."""
        if self.environment is not None and (not self.packages or self._state.ready):
            return self._state.ready
        return all(any(map(self._importable, group.split(" | "))) for group in self.packages)

    def module_of(self, package: str) -> str:
        """The name by which one of its packages is imported."""
        return self.modules.get(package, _MODULES.get(package, package))

    def _importable(self, package: str) -> bool:
        return importlib.util.find_spec(self.module_of(package)) is not None

    @property
    def _state(self) -> EnvironmentState:
        from edgetrack.environments.setup import state_of  # only for a target that has one

        if self.environment is None:
            raise UsageError(f"target {self.name!r} needs no environment of its own: {self.install_command}")
        return state_of(self.environment)

    def environment_state(self) -> str | None:
        """How far its own environment is: `ready`, `not set up`, `2 of 4 steps done`; None where it needs none."""
        return None if self.environment is None else str(self._state)

    def versions(self) -> dict[str, str]:
        """Versions of the packages that run a bundle, by the name each is installed under."""
        from importlib import metadata  # 50 ms that `edgetrack --help` need not wait for

        found = dict(self._state.versions) if self.environment is not None else {}
        for group in self.packages:
            for name in group.split(" | "):
                with contextlib.suppress(metadata.PackageNotFoundError):
                    distribution = metadata.distribution(name)
                    found[distribution.metadata["Name"]] = distribution.version
                    break
        return dict(sorted(found.items()))

    def quantizer_version(self) -> str:
        """The version of what quantizes for it.

        Raises:
            BackendMissingError: it is not installed.
        """
        from importlib import metadata

        if self.environment is None or self.quantizer not in self.environment.distributions:
            require_extra("INT8", "int8", self.quantizer)
            return metadata.version(self.quantizer)
        if (found := self._state.versions.get(self.quantizer)) is None:
            raise BackendMissingError(f"INT8 needs {self.quantizer}; type: {self.install_command}")
        return found

    def runs_on(self, device: str) -> bool:
        """Whether a bundle can be opened for a device such as `cuda:0`, where the machine has it."""
        kind, given, rest = device.partition(":")
        for offered in self.devices:
            name, _, form = offered.partition(":")
            if name == kind:
                return not given or bool(form and re.fullmatch(_FORMS[form], rest))
        return False

    @property
    def places(self) -> str:
        """Its devices, for messages."""
        return ", ".join(_EXAMPLES.get(offered, offered.partition(":")[0]) for offered in self.devices)

    @property
    def install_command(self) -> str:
        """What to type to install the packages."""
        if self.environment is not None:
            return f"edgetrack target setup {self.name}"
        if self.extra:
            return f"pip install 'edgetrack[{self.extra}]'"
        return "pip install " + " ".join(group.split(" | ")[0] for group in self.packages) if self.packages else ""


_FORMS = {"N": r"[0-9]{1,2}", "LIST": r"[a-z]{2,8}(\.[0-9]{1,2})?(,[a-z]{2,8}(\.[0-9]{1,2})?){0,7}"}
"""What may stand behind a device's kind: which one of it, or the devices that it chooses from."""
_EXAMPLES = {"cuda:N": "cuda:0", "tensorrt:N": "tensorrt:0", "hetero:LIST": "hetero:gpu,cpu"}


TARGETS = (
    Target(
        name="openvino",
        aliases=("ov",),
        backend="edgetrack.runtime.backends.openvino.backend:OpenVinoGraph",
        exporter="edgetrack.exporting.targets.openvino:OpenVinoExporter",
        packages=("openvino",),
        extra="openvino",
        precisions=("fp32", "fp16", "bf16", "int8", "int8-bf16"),
        hints=("bf16", "fp16"),
        hinted=("bf16",),
        channels_last=True,
        devices=("cpu", "gpu:N", "npu", "auto:LIST", "hetero:LIST"),
        tested="openvino 2026.4 (CPU, AUTO and HETERO:CPU; no GPU or NPU was at hand)",
        about="OpenVINO on x86 and Arm CPUs, Intel GPUs and NPUs",
    ),
    Target(
        name="onnx",
        aliases=("onnxruntime", "ort"),
        backend="edgetrack.runtime.backends.onnxruntime.backend:OnnxRuntimeGraph",
        exporter="edgetrack.exporting.targets.onnx:OnnxExporter",
        packages=("onnxruntime | onnxruntime-gpu | onnxruntime-openvino | onnxruntime-directml | onnxruntime-qnn",),
        extra="onnx",
        precisions=("fp32", "fp16", "int8"),
        devices=(
            "cpu",
            "cuda:N",
            "tensorrt:N",
            "openvino:LIST",
            "directml:N",
            "qnn",
            "coreml",
            "xnnpack",
            "hetero:LIST",
        ),
        tested="onnxruntime 1.31 (CPU), onnxruntime-openvino 1.24 (OpenVINO on the CPU); no other provider was at hand",
        about="ONNX Runtime on the CPU, or on one of its execution providers",
    ),
    Target(
        name="tensorrt",
        aliases=("trt", "engine"),
        backend="edgetrack.runtime.backends.tensorrt.backend:TensorRtGraph",
        exporter="edgetrack.exporting.targets.tensorrt:TensorRtExporter",
        packages=("tensorrt-rtx-cu13 | tensorrt-rtx-cu12 | tensorrt", "cuda-bindings"),
        extra="tensorrt",
        precisions=("fp32", "fp16", "int8"),
        proof="onnx",
        device_needed="an NVIDIA GPU",
        devices=("cuda:N",),
        tested="TensorRT-RTX 1.7 (engines are built; none was run)",
        about="TensorRT on NVIDIA GPUs: RTX cards and Jetson",
        setup="on Jetson the system's TensorRT is used: never pip-install it there; make the environment with "
        "--system-site-packages and type: pip install 'edgetrack[jetpack6]' (or jetpack7)",
    ),
    Target(
        name="coreml",
        aliases=("mlpackage",),
        backend="edgetrack.runtime.backends.coreml.backend:CoreMlGraph",
        exporter="edgetrack.exporting.targets.coreml:CoreMlExporter",
        packages=("coremltools",),
        extra="coreml",
        precisions=("fp32", "fp16", "int8"),
        proof="mil",
        device_needed="macOS",
        devices=("cpu", "gpu", "ane", "all"),
        quantizer="coremltools",
        tested="coremltools 9.0 with numpy 2.3 (packages are made and interpreted; Core ML itself ran none)",
        about="Core ML on Apple devices; made and proven anywhere, run on macOS",
    ),
    Target(
        name="mil",
        backend="edgetrack.runtime.backends.mil.backend:MilGraph",
        exporter=None,
        packages=("coremltools",),
        extra="coreml",
        precisions=("fp32", "fp16", "int8"),
        about="a reference interpreter of Core ML's programs, which proves them anywhere; it is not Core ML",
    ),
    Target(
        name="torch",
        aliases=("pytorch",),
        backend="edgetrack.runtime.backends.torch.backend:TorchGraph",
        exporter="edgetrack.exporting.targets.torch:TorchExporter",
        packages=("torch", "safetensors"),
        extra="export",
        precisions=("fp32",),
        tested="torch 2.13",
        about="eager PyTorch, the published network: the reference that others are measured against",
        hints=("fp16",),
        devices=("cpu", "cuda:N"),
        reference=True,
    ),
    Target(
        name="fake",
        backend="edgetrack.runtime.backends.fake.backend:FakeGraph",
        exporter=None,
        packages=(),
        extra="",
        precisions=("fp32",),
        devices=("cpu", "cuda:N"),
        about="scripted outputs, for tests",
    ),
)


def targets() -> tuple[Target, ...]:
    """The table with the rows that other packages bring (entry points of the group `edgetrack.targets`).

    Raises:
        UsageError: a package's row cannot be used.
    """
    own = {target.name for target in TARGETS}
    return (*TARGETS, *(find_target(name) for name in plugin_names(plugins.TARGETS) if name not in own))


def target_names() -> list[str]:
    """The names of this package's own targets that `export --target` takes."""
    return [target.name for target in TARGETS if target.exporter is not None]


def find_target(name: str) -> Target:
    """The row of a target, by name or alias; by name where another package brings it.

    Raises:
        UnknownNameError: no such target.
        UsageError: another package brings it, and its row cannot be used.
    """
    for target in TARGETS:
        if name == target.name or name in target.aliases:
            return target
    row = load_plugin(plugins.TARGETS, name)
    if row is None:
        raise UnknownNameError.of("target", name, target_names())
    if not isinstance(row, Target) or row.name != name:
        raise UsageError(
            f"the plug-in for target {name!r} gives {row!r}, expected a Target of that name "
            f"(entry point group {plugins.TARGETS!r})"
        )
    return row


def recorded_packages() -> tuple[str, ...]:
    """The distributions whose versions a record of a machine states: those that run, convert and quantize."""
    rows = targets()
    runtime = (name for row in rows for group in row.packages for name in group.split(" | "))
    return tuple(dict.fromkeys((*runtime, *EXPORT_PACKAGES, *(row.quantizer for row in rows))))


def require_precision(target: Target, precision: str) -> None:
    """Check that a target can be exported at a precision.

    Raises:
        UnknownNameError: it cannot; the message says which can.
    """
    if precision not in target.precisions:
        hint = f"at run time it also takes the hint {', '.join(target.hints)}" if precision in target.hints else ""
        raise UnknownNameError.of(f"for target {target.name!r} the precision", precision, target.precisions, hint)


def require_device(target: str, device: str) -> None:
    """Check, before anything is loaded or computed, that bundles of a target run on a device such as `cuda:0`.

    Raises:
        DeviceUnavailableError: they do not, whatever the machine has.
    """
    row = find_target(target)
    if not row.runs_on(device):
        raise DeviceUnavailableError(f"{target} bundles run on {row.places}, not on {device!r}; give that as --device")


def require_device_here(target: str, device: str) -> None:
    """Check that bundles of a target run on a device, and that the package that runs them here reaches it.

    Raises:
        DeviceUnavailableError: they do not, or the machine has none.
        BackendMissingError: the package is missing, or was built without it.
    """
    require_device(target, device)
    if device != "cpu":  # which every package reaches; nothing need be imported
        backend_of(target).require_device_here(device)


def is_device(name: str) -> bool:
    """Whether it names a part of a machine that some target's bundles run on, and not a device profile."""
    return any(target.runs_on(name) for target in TARGETS) or any(row.runs_on(name) for row in targets())


def place_of(manifest: Manifest, places: Mapping[str, str], device: str) -> str:
    """Where on a device a bundle runs.

    Args:
        places: `cpu`, `cuda:0`, ... by target; one at least.
        device: the device's name, for messages.

    Raises:
        UsageError: its target does not run there.
    """
    if manifest.target not in places:
        raise UsageError(
            f"{manifest.name} is for {manifest.target}, and the device {device} runs {', '.join(sorted(places))}; "
            f"export it with --target {next(iter(places))}"
        )
    return places[manifest.target]


def backend_of(target: str) -> type[CompiledGraph]:
    """The class that opens a target's graphs; its package is imported only when a graph is opened."""
    return cast("type[CompiledGraph]", pkgutil.resolve_name(find_target(target).backend))


def proof_target(name: str) -> Target:
    """The target whose backend proves exports of another one: itself, or the one that computes its files anywhere."""
    target = find_target(name)
    return find_target(target.proof) if target.proof else target


def full_target(target: Target) -> Target:
    """The target of the FP32 bundle that a target's lower precisions are made from: itself, or another one."""
    return find_target(target.made_from) if target.made_from else target


def best_target(device: str | None = None) -> Target:
    """The target to export to on this machine when none is named: the first installed one of the table.

    Args:
        device: where its bundles have to run, such as `cuda:0`; None takes any.

    Raises:
        BackendMissingError: none is installed, or those that are were built without the device.
        DeviceUnavailableError: those that are find no such device.
    """
    lacking: EdgetrackError | None = None
    for target in targets():
        fits = device is None or target.runs_on(device)
        if fits and target.exporter is not None and target.installed and not target.reference:
            try:
                if device is not None:
                    require_device_here(target.name, device)
            except (BackendMissingError, DeviceUnavailableError) as error:
                lacking = lacking or error
            else:
                return target
    if lacking is not None:
        raise lacking
    offers = " or ".join(
        t.install_command for t in targets() if t.exporter is not None and (device is None or t.runs_on(device))
    )
    raise BackendMissingError(f"no target's package is installed; type one of: {offers}")


def reference_target() -> Target:
    """The target that others are measured against."""
    return next(target for target in TARGETS if target.reference)


def open_ref(text: str) -> BundleRef:
    """Read the manifest of a bundle that a command was given as `smat-openvino-fp32`, `...@bf16` or `...@cuda:0`.

    Raises:
        UnknownNameError: its target takes no such hint.
        DeviceUnavailableError: its target runs on no such device.
        EdgetrackError: the bundle cannot be opened.
    """
    # Imported here: the table is read for every help text, NumPy is not needed for that.
    from edgetrack.bundle.reader import BundleRef, open_bundle, split_label

    path, hint, device = split_label(text)
    with open_bundle(path) as bundle:
        ref = BundleRef(bundle.source.absolute(), bundle.manifest, hint, device=device)
    target = find_target(ref.manifest.target)
    if hint is not None and hint not in target.hints:
        raise UnknownNameError.of(f"for target {target.name!r} the precision hint", hint, target.hints)
    if device is not None:
        require_device(target.name, device)
    return ref


def open_refs(texts: Sequence[str]) -> list[BundleRef]:
    """`open_ref` for each, with aliases where two bundles have one name."""
    from edgetrack.bundle.reader import path_aliases

    refs = [open_ref(text) for text in texts]
    aliases = path_aliases([(ref.manifest.name, ref.path) for ref in refs])
    return [replace(ref, alias=alias) for ref, alias in zip(refs, aliases, strict=True)]
