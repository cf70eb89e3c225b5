"""What an exporter is: a class that writes a tracker's graphs for one target, and lowers their precision.

A new target subclasses `Exporter`, implements `convert`, and names the class in its row of `edgetrack.capabilities`.
Only when a graph is converted does it import the converter's package, or PyTorch.
"""

from __future__ import annotations

import abc
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_origin

import msgspec

from edgetrack.bundle.manifest import GraphInfo, Manifest
from edgetrack.capabilities import Target, targets
from edgetrack.errors import UsageError
from edgetrack.exporting.lowering import Inputs, Method
from edgetrack.exporting.recipe import Recipe
from edgetrack.runtime.verify import Comparison

if TYPE_CHECKING:
    from edgetrack.models.base import GraphModule


class ExporterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that one target alone has: each field is one of `edgetrack export`, its description the help text.

    A field is `Annotated` with a `msgspec.Meta`, a text or a tuple of texts that the command line separates by commas.
    """


@dataclass(frozen=True)
class Lowering:
    """How one graph is taken from FP32 to a lower precision.

    Attributes:
        precision: `fp16`, `bf16`, `int8` or `int8-bf16`.
        inputs: what the graph is fed, by running the tracker; those of the FP32 bundle's record where the precision
            needs no calibration.
        method: of quantization.
        kept: regular expressions for the whole names of nodes that stay in FP32.
        operators: those that the tracker's family needs beyond plain ones, see `Procedure.operators`.
    """

    precision: str
    inputs: Sequence[Inputs] = ()
    method: Method = field(default_factory=Method)
    kept: tuple[str, ...] = ()
    operators: frozenset[str] = frozenset()


class Exporter(abc.ABC):
    """Writes the graphs of one tracker for one target.

    Attributes:
        options_type: the struct of the target's own options.
        reads_onnx: whether an export may start from ONNX files.
        calibrated: precisions for which `lower` needs to know what the tracker feeds its graphs.
        exceptions: what of a bundle is not of its precision: precision -> part -> its precision.
        weight_bits: what `Method.weight_bits` may be; 7 helps where sums of INT8 saturate (decision 0033).
    """

    options_type: ClassVar[type[ExporterOptions]] = ExporterOptions
    reads_onnx: ClassVar[bool] = True
    calibrated: ClassVar[tuple[str, ...]] = ("int8", "int8-bf16", "fp16")
    exceptions: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    weight_bits: ClassVar[tuple[int, ...]] = (8,)

    def __init__(self, recipe: Recipe, options: ExporterOptions | None = None) -> None:
        self.recipe = recipe
        self.options = self.options_type() if options is None else options

    def prepare(self) -> None:  # noqa: B027
        """Check, before anything is computed, that the package is there and that the options can be met.

        Raises:
            BackendMissingError: the package is missing.
            UsageError: an option asks for what the target does not offer.
        """

    def check_method(self, method: Method, precision: str) -> None:
        """Raise UsageError where the target cannot be lowered to a precision so."""
        if method.weight_bits not in self.weight_bits:
            raise UsageError(
                f"--weight-bits {method.weight_bits} does not apply to this target, whose sums of INT8 are exact; "
                "leave it out"
            )

    def describe_method(self, method: Method, quantizer: str) -> str:
        """How a graph is quantized, as the manifest states it."""
        return method.describe(quantizer)

    def kept_in(self, precision: str) -> str:
        """The precision of stages that are kept out of a lower one; empty where all of a graph has one precision."""
        return "fp32"

    @abc.abstractmethod
    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """Write a graph's files in FP32 into `folder`; the name of the one that the manifest states.

        Args:
            graph: what to convert.
            opset: ONNX operator set, where the way leads through ONNX.
            metadata: what the file shall say of itself.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """The files of a graph that `convert` wrote, `path` being the one that the manifest states."""
        return (path,)

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """Rewrite a graph's files in place; the names of nodes that stay in FP32 for what was observed."""
        raise UsageError(f"{path.name} cannot be lowered to {lowering.precision}: this target has FP32 only")

    def compare_weights(self, folder: Path, info: GraphInfo, precision: str) -> tuple[Comparison, ...]:
        """A lowered graph's weights against the network's, for a target that keeps a record of those."""
        return ()

    def complete(self, folder: Path, manifest: Manifest, progress: Callable[[str], None]) -> Manifest:
        """Add to a finished bundle, of whichever precision, before it is committed.

        Args:
            folder: where its files lie.
            manifest: what they are.
            progress: takes a line of text.

        Returns:
            The manifest with what was added.
        """
        return manifest


def exporter_of(target: Target) -> type[Exporter]:
    """The class that exports to a target.

    Raises:
        UsageError: nothing is exported to it.
    """
    if target.exporter is None:
        raise UsageError(f"nothing is exported to target {target.name!r}: {target.about}")
    return cast("type[Exporter]", pkgutil.resolve_name(target.exporter))


def read_options(target: Target, given: Mapping[str, Any]) -> ExporterOptions:
    """A target's own options from what was given, by the fields' names.

    Raises:
        UsageError: the target has no such option.
    """
    kind = exporter_of(target).options_type
    if foreign := [name for name in given if name not in kind.__struct_fields__]:
        raise UsageError(f"target {target.name!r} has no option --{foreign[0].replace('_', '-')}; leave it out")
    return msgspec.convert(dict(given), kind)


def option_fields() -> list[tuple[str, str, bool]]:
    """The options of all targets: name, help text, and whether it takes several values."""
    found = {}
    for target in targets():
        if target.exporter is not None:
            for item in msgspec.structs.fields(exporter_of(target).options_type):
                kind, meta = item.type.__origin__, item.type.__metadata__[0]
                found[item.name] = (item.name, meta.description, get_origin(kind) is tuple)
    return list(found.values())
