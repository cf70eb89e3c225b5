"""PyTorch to Core ML packages: ML programs that take camera images; FP16, and INT8 weights, from the FP32 one."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import numpy as np

from edgetrack.bundle import Manifest, read_npz, write_npz
from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import EdgetrackError, UnknownNameError, UsageError
from edgetrack.exporting.lowering import HEADROOM, LARGEST, Method
from edgetrack.exporting.targets.base import Exporter, ExporterOptions, Lowering
from edgetrack.runtime.backends.coreml.backend import source_file
from edgetrack.runtime.backends.coreml.package import SMALLEST, hold_against, layers, record, weights
from edgetrack.runtime.backends.mil.interpreter import beyond
from edgetrack.runtime.backends.mil.package import import_coremltools, is_image, quiet, read_spec
from edgetrack.runtime.verify import LAYERS_FILE, Comparison, LayerReport

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetrack.models.base import GraphModule

DEPLOYMENT = ("iOS16", "iOS17", "iOS18")
"""The oldest system: iOS16 is macOS 13, and so on; ML programs of iOS 15 take no FP16 inputs."""
PLACES = "edgetrack.places"
"""Metadata key: operator -> place in the network, by which a recipe's stages name what stays in FP32."""


class CoreMlOptions(ExporterOptions, frozen=True, kw_only=True):
    """The oldest system that a package runs on."""

    deployment_target: Annotated[
        str,
        msgspec.Meta(description="Core ML: the oldest system to run on: iOS16 (macOS 13), iOS17 or iOS18."),
    ] = DEPLOYMENT[0]


class CoreMlExporter(Exporter):
    """Writes packages that say whose the network is."""

    options_type = CoreMlOptions
    options: CoreMlOptions
    reads_onnx = False
    calibrated = ()
    # INT8 is that of weights; activations would have to be observed on a Mac.
    exceptions: ClassVar = {"int8": {"activations": "fp16"}}

    def prepare(self) -> None:
        """See `Exporter`."""
        import_coremltools()
        if self.options.deployment_target not in DEPLOYMENT:
            raise UnknownNameError.of("--deployment-target", self.options.deployment_target, DEPLOYMENT)

    def check_method(self, method: Method, precision: str) -> None:
        """See `Exporter`."""
        if method != Method(per_channel=method.per_channel):
            raise UsageError(
                "Core ML bundles have INT8 weights and no quantized activations: --calib-method, --bias-correction and "
                "--smooth-quant do not apply; leave them out"
            )

    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """Write `<graph>.mlpackage` and the record of its weights; `opset` has no meaning here."""
        import torch

        coremltools = import_coremltools()
        for tensor in graph.inputs:
            if tensor.dtype not in ("uint8", "int32", "float32"):
                raise UsageError(
                    f"input {tensor.name!r} of graph {graph.name!r} is {tensor.dtype} {tensor.shape}; Core ML takes "
                    "uint8 images and arrays, float32 and int32 arrays; export it for another target"
                )
        wrapped = _image_inputs(graph)
        example = tuple(_example(tensor) for tensor in graph.inputs)
        with _writing(), torch.inference_mode():
            model = coremltools.convert(
                torch.jit.trace(wrapped, example),  # type: ignore[no-untyped-call]
                inputs=[_input(coremltools, tensor) for tensor in graph.inputs],
                outputs=[coremltools.TensorType(name=t.name, dtype=np.float32) for t in graph.outputs],
                convert_to="mlprogram",
                minimum_deployment_target=getattr(coremltools.target, self.options.deployment_target),
                compute_precision=coremltools.precision.FLOAT32,
                skip_model_load=True,
            )
        self._describe(model, metadata)
        file = f"{graph.name}.mlpackage"
        _save(model, folder / file)
        # Parameters as the traced module names them, which the converter keeps.
        named = {f"shipped_{name}".replace(".", "_"): tensor.numpy() for name, tensor in _tensors(wrapped.shipped)}
        write_npz(folder / source_file(graph.name), record(named))
        return file

    def _describe(self, model: Any, metadata: Mapping[str, str]) -> None:
        recipe = self.recipe
        model.author = recipe.checkpoint.source or recipe.paper.source
        model.license = recipe.checkpoint.licence
        model.short_description = f"{recipe.title}, graph {metadata['graph']}, {metadata['weights']} weights"
        model.version = metadata["edgetrack"]
        rule = json.dumps(recipe.procedure, sort_keys=True)
        entries = {**metadata, "crop rule and procedure": rule, "paper": recipe.paper.source}
        model.user_defined_metadata.update({f"edgetrack.{key}": value for key, value in entries.items()})
        model.user_defined_metadata[PLACES] = json.dumps(_places(model), sort_keys=True)

    def complete(self, folder: Path, manifest: Manifest, progress: Callable[[str], None]) -> Manifest:
        """Add the list of operators."""
        progress("listing the operators")
        report = LayerReport(graphs={info.name: layers(read_spec(folder / info.file)) for info in manifest.graphs})
        (folder / LAYERS_FILE).write_bytes(report.to_json())
        return manifest

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """See `Exporter`; nodes stay in FP32 where the interpreter observes numbers that half precision may not hold.

        `fp16` computes in half precision but for what is kept; `int8` stores weights of the rest as INT8 besides.
        """
        coremltools = import_coremltools()
        from coremltools.converters.mil.mil.passes.defs.quantization import add_fp16_cast

        # Not public, and the way that coremltools.optimize itself takes; the extra bounds the version.
        from coremltools.models.utils import _apply_graph_pass

        wide = beyond(path, lowering.inputs, LARGEST / HEADROOM)
        with _writing():
            model = coremltools.models.MLModel(str(path), skip_model_load=True)
            places: dict[str, str] = json.loads(model.user_defined_metadata[PLACES])
            metadata = {k: v for k, v in model.user_defined_metadata.items() if k != PLACES}
            patterns = [re.compile(text) for text in lowering.kept]
            kept = {name for name, place in places.items() if any(p.fullmatch(place) for p in patterns)} | set(wide)
            half = add_fp16_cast(op_selector=lambda operation: operation.outputs[0].name not in kept)
            package = _apply_graph_pass(model, half)
            if lowering.precision == "int8":
                package = _quantize_weights(package, lowering.method)
        for field in ("author", "license", "short_description", "version"):
            setattr(package, field, getattr(model, field))
        package.user_defined_metadata.update(metadata)
        package.user_defined_metadata.pop(PLACES, None)
        shutil.rmtree(path)
        _save(package, path)
        return tuple(wide)

    def compare_weights(self, folder: Path, info: GraphInfo, precision: str) -> tuple[Comparison, ...]:
        """See `Exporter`."""
        recorded = read_npz(folder / source_file(info.name))
        return tuple(hold_against(info.name, weights(folder / info.file), recorded, precision))


def _image_inputs(graph: GraphModule) -> Any:
    """The graph as a module that takes (1, 3, H, W) images of 0..255, as Core ML gives them, in place of (H, W, 3)."""
    from torch import nn

    class ImageInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shipped = graph.module
            self.images = [is_image(tensor) for tensor in graph.inputs]

        def forward(self, *inputs: Tensor) -> Any:
            pairs = zip(inputs, self.images, strict=True)
            return self.shipped(*[x.squeeze(0).permute(1, 2, 0) if image else x for x, image in pairs])

    return ImageInputs().eval()


def _example(tensor: TensorInfo) -> Tensor:
    import torch

    if is_image(tensor):
        return torch.zeros(1, 3, *tensor.shape[:2])
    return torch.zeros(tensor.shape, dtype=torch.int32 if tensor.dtype == "int32" else torch.float32)


def _input(coremltools: Any, tensor: TensorInfo) -> Any:
    if is_image(tensor):
        order = coremltools.colorlayout.BGR
        return coremltools.ImageType(name=tensor.name, shape=(1, 3, *tensor.shape[:2]), color_layout=order)
    dtype = np.int32 if tensor.dtype == "int32" else np.float32
    return coremltools.TensorType(name=tensor.name, shape=tensor.shape, dtype=dtype)


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _places(model: Any) -> dict[str, str]:
    """Operator's output name -> place, written as ONNX names nodes: `/head/score/score.0/conv`."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    places = {}
    for operation in model._mil_program.functions["main"].operations:
        if operation.op_type != "const":
            scope = operation.scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME) or [""]
            places[operation.outputs[0].name] = _place([str(part) for part in scope[1:-1]], operation.op_type)
    return places


def _place(scope: list[str], kind: str) -> str:
    parts: list[str] = []
    for part in scope:
        parts.append(f"{parts[-1]}.{part}" if part.isdigit() and parts else part)
    return "/".join(("", *parts, kind))


def _quantize_weights(model: Any, method: Method) -> Any:
    """Symmetric INT8 weights where they are in FP16 by now: what stays in FP32 keeps its weights too."""
    from coremltools.optimize import coreml as optimize

    found = optimize.get_weights_metadata(model, weight_threshold=SMALLEST - 1)
    wide = {name: None for name, info in found.items() if info.val.dtype != np.float16}
    how = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric",
        dtype="int8",
        granularity="per_channel" if method.per_channel else "per_tensor",
        weight_threshold=SMALLEST,
    )
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=how, op_name_configs=wide))


@contextmanager
def _writing() -> Iterator[None]:
    """Keep coremltools quiet; a package that it cannot write, in the temporary folder or from there, is one error.

    Raises:
        EdgetrackError: it cannot.
    """
    try:
        with quiet():
            yield
    except shutil.Error as error:  # a list of copies that failed, each with its reason
        raise EdgetrackError(f"the Core ML package cannot be written: {error.args[0][-1][-1]}") from error
    except RuntimeError as error:
        if "FileWriter" not in str(error):  # Core ML's own, which gives no reason
            raise
        raise EdgetrackError(
            "the Core ML package cannot be written to the temporary folder: the disk is probably full, or files have a "
            f"size limit ({error}); set TMPDIR to a folder with free space"
        ) from error


def _save(model: Any, path: Path) -> None:
    """Save without the day, with identifiers that follow from names: the same graph shall give the same bytes."""
    model.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
    with _writing():
        model.save(str(path))
    manifest = path / "Manifest.json"
    stated = json.loads(manifest.read_bytes())
    renamed = {
        key: str(uuid.uuid5(uuid.NAMESPACE_URL, f"{path.name}/{entry['path']}"))
        for key, entry in stated["itemInfoEntries"].items()
    }
    entries = sorted((renamed[key], entry) for key, entry in stated["itemInfoEntries"].items())
    stated["itemInfoEntries"] = dict(entries)
    stated["rootModelIdentifier"] = renamed[stated["rootModelIdentifier"]]
    manifest.write_text(json.dumps(stated, indent=4) + "\n", "utf-8")
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
