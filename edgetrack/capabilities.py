"""One table: which target runs where, at which precision, with which package. Nothing else knows a target's name."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from edgetrack.errors import BackendMissingError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from edgetrack.runtime.backends.base import CompiledGraph


@dataclass(frozen=True)
class Target:
    """A row of the table.

    Attributes:
        name: as `--target` takes it, with `aliases`.
        backend: module under `edgetrack.runtime.backends`.
        exporter: module under `edgetrack.export`, None where nothing is exported to it.
        packages: what must be importable to run a bundle, and `extra`, the extra that installs it.
        precisions: what `export` offers.
        hints: what `load(precision_hint=...)` offers.
        tested: versions that the test-suite ran with.
        about: one line for people.
        reference: whether it is the published computation, which others are held against.
    """

    name: str
    backend: str
    exporter: str | None
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...]
    hints: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tested: str = ""
    about: str = ""
    reference: bool = False

    @property
    def installed(self) -> bool:
        """Whether the packages that run a bundle can be found; nothing is imported."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)

    @property
    def install_command(self) -> str:
        """What to type to install the packages."""
        return f"pip install 'edgetrack[{self.extra}]'" if self.extra else ""


TARGETS = (
    Target(
        name="openvino",
        aliases=("ov",),
        backend="openvino",
        exporter="openvino",
        packages=("openvino",),
        extra="openvino",
        precisions=("fp32", "fp16", "bf16", "int8"),
        hints=("bf16",),
        tested="openvino 2026.4",
        about="OpenVINO on x86 and Arm CPUs",
    ),
    Target(
        name="onnx",
        aliases=("onnxruntime", "ort"),
        backend="onnxruntime",
        exporter="onnx",
        packages=("onnxruntime",),
        extra="onnx",
        precisions=("fp32", "fp16", "int8"),
        tested="onnxruntime 1.31",
        about="ONNX Runtime on the CPU",
    ),
    Target(
        name="torch",
        aliases=("pytorch",),
        backend="torch",
        exporter="torch",
        packages=("torch", "safetensors"),
        extra="export",
        precisions=("fp32",),
        tested="torch 2.13",
        about="eager PyTorch, the published network: the reference that others are measured against",
        reference=True,
    ),
    Target(
        name="fake",
        backend="fake",
        exporter=None,
        packages=(),
        extra="",
        precisions=("fp32",),
        about="scripted outputs, for tests",
    ),
)


def target_names() -> list[str]:
    """The names that `export --target` takes."""
    return [target.name for target in TARGETS if target.exporter is not None]


def find_target(name: str) -> Target:
    """The row of a target, by name or alias.

    Raises:
        UnknownNameError: no such target.
    """
    for target in TARGETS:
        if name == target.name or name in target.aliases:
            return target
    raise UnknownNameError(f"target {name!r} is not known; expected one of: {', '.join(target_names())}")


def require_precision(target: Target, precision: str) -> None:
    """Check that a target can be exported at a precision.

    Raises:
        UsageError: it cannot; the message says which can.
    """
    if precision not in target.precisions:
        hint = f"; at run time it also takes the hint {', '.join(target.hints)}" if precision in target.hints else ""
        raise UsageError(
            f"precision {precision!r} is not supported for target {target.name!r}; "
            f"expected one of: {', '.join(target.precisions)}{hint}"
        )


def backend_of(target: str) -> type[CompiledGraph]:
    """The class that opens a target's graphs; its package is imported only when a graph is opened."""
    module = importlib.import_module(f"edgetrack.runtime.backends.{find_target(target).backend}")
    return cast("type[CompiledGraph]", module.Graph)


def best_target() -> Target:
    """The target to export to on this machine when none is named: the first installed one of the table.

    Raises:
        BackendMissingError: none is installed.
    """
    for target in TARGETS:
        if target.exporter is not None and target.installed and target is not reference_target():
            return target
    offers = " or ".join(t.install_command for t in TARGETS if t.exporter is not None)
    raise BackendMissingError(f"no target's package is installed; type one of: {offers}")


def reference_target() -> Target:
    """The target that others are measured against."""
    return next(target for target in TARGETS if target.reference)
