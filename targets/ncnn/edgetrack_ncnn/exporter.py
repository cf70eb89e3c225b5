"""ONNX to ncnn's .param and .bin by pnnx, a program that its package brings; FP16 is that of the weights."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgetrack.errors import BackendMissingError, EdgetrackError, UsageError
from edgetrack.exporting.targets.base import Lowering
from edgetrack.exporting.targets.onnx import OnnxExporter
from edgetrack.io import ScratchFolder
from edgetrack_ncnn.network import INPUT, crop_shape, is_crop, sizes

if TYPE_CHECKING:
    from edgetrack.models.base import GraphModule

CONVERT_TIMEOUT_S = 900
_LAST_WORDS = 300
_NAME = re.compile(r"[A-Za-z_][\w./-]{0,200}", re.ASCII)
"""What a tensor may be called: pnnx names its own by numbers, and blanks end a name of ncnn."""
RunConverter = Callable[..., "subprocess.CompletedProcess[str]"]


def find_converter() -> Path:
    """The program pnnx; its package is not imported, for it imports PyTorch.

    Raises:
        BackendMissingError: it is not installed.
    """
    spec = importlib.util.find_spec("pnnx")
    for folder in () if spec is None else spec.submodule_search_locations or ():
        for name in ("pnnx", "pnnx.exe"):
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    raise BackendMissingError("exporting to ncnn needs pnnx; install it with: pip install pnnx")


class NcnnExporter(OnnxExporter):
    """Writes `<graph>.ncnn.param`, a text, and `<graph>.ncnn.bin`, the weights."""

    calibrated: ClassVar = ()
    run_converter: RunConverter = staticmethod(subprocess.run)

    def prepare(self) -> None:
        """See `Exporter`."""
        find_converter()
        # Graphs converted so far, and their ONNX: `lower` starts from it again.
        self._sources: dict[str, tuple[GraphModule, bytes]] = {}

    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """See `Exporter`.

        Raises:
            UsageError: the graph has an input or output without a batch of one in front, which ncnn has no place for,
                or one with a name that is none there.
            EdgetrackError: pnnx cannot convert it.
        """
        for tensor in (*graph.inputs, *graph.outputs):
            if not _NAME.fullmatch(tensor.name):
                raise UsageError(
                    f"tensor {tensor.name!r} of graph {graph.name!r}: ncnn takes names of letters, "
                    "digits and _ . / - that begin with a letter or _"
                )
            if not is_crop(tensor) and (
                tensor.dtype != "float32" or tensor.shape[:1] != (1,) or not 2 <= len(tensor.shape) <= 4
            ):
                raise UsageError(
                    f"tensor {tensor.name!r} of graph {graph.name!r} is {tensor.dtype} {tensor.shape}; ncnn takes "
                    "uint8 crops (height, width, 3) and float32 tensors (1, ...) of up to 4 dimensions; export for "
                    "another target"
                )
        file = f"{graph.name}.ncnn.param"
        with ScratchFolder() as scratch:
            name = super().convert(graph, scratch, opset=opset, metadata=metadata)
            self._sources[file] = graph, image_inputs(scratch / name)
        self._write(folder / file, half=False)
        return file

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """Store the weights in FP16. See `Exporter`."""
        self._write(path, half=True)
        return ()

    def kept_in(self, precision: str) -> str:
        """See `Exporter`."""
        return ""

    def files(self, path: Path) -> tuple[Path, ...]:
        """See `Exporter`."""
        return path, path.with_suffix(".bin")

    def _write(self, path: Path, *, half: bool) -> None:
        graph, source = self._sources[path.name]
        with ScratchFolder() as scratch:
            (scratch / "graph.onnx").write_bytes(source)
            command = [str(find_converter()), "graph.onnx", f"inputshape={_shapes(source)}", f"fp16={int(half)}"]
            try:
                done = self.run_converter(
                    command, cwd=scratch, capture_output=True, text=True, errors="replace", check=False,
                    stdin=subprocess.DEVNULL, timeout=CONVERT_TIMEOUT_S,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise EdgetrackError(f"pnnx took more than {CONVERT_TIMEOUT_S} s for {path.name}") from None
            made = {one: scratch / f"graph.ncnn{one.suffix}" for one in self.files(path)}
            if done.returncode or not all(one.is_file() for one in made.values()):
                words = " ".join((done.stderr or done.stdout).split())[-_LAST_WORDS:]
                raise EdgetrackError(f"pnnx cannot convert {path.name} (exit code {done.returncode}): {words}")
            text = made[path].read_text("utf-8")
            made[path].write_text(named(text, graph), "utf-8")
            for one, from_there in made.items():
                shutil.move(from_there, one)


def named(text: str, graph: GraphModule) -> str:
    """A network's text with the graph's names for in0, in1, ..., out0, ..., and its inputs' sizes.

    ncnn itself checks neither: by them the backend tells a manifest of another graph.
    """
    names = {f"in{number}": tensor.name for number, tensor in enumerate(graph.inputs)}
    names.update({f"out{number}": tensor.name for number, tensor in enumerate(graph.outputs)})
    shapes = {tensor.name: crop_shape(tensor) if is_crop(tensor) else tensor.shape for tensor in graph.inputs}
    lines = text.splitlines()
    for place, line in enumerate(lines[2:], 2):
        kind, layer, bottoms, tops, *rest = line.split()
        blobs = int(bottoms) + int(tops)
        made = [names.get(one, one) for one in rest[:blobs]]
        stated = sizes(shapes[made[0]]) if kind == INPUT else rest[blobs:]
        lines[place] = " ".join((kind, names.get(layer, layer), bottoms, tops, *made, *stated))
    return "\n".join(lines) + "\n"


def image_inputs(path: Path) -> bytes:
    """An ONNX file whose uint8 crops (H, W, 3) are float32 images (1, 3, H, W); pnnx drops what undoes that."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for info in graph.input:
        if info.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            continue
        height, width, _ = (size.dim_value for size in info.type.tensor_type.shape.dim)
        name, rows = info.name, f"{info.name}_rows"
        for node in graph.node:
            node.input[:] = [rows if one == name else one for one in node.input]
        made: list[Any] = [
            onnx.helper.make_node("Transpose", [name], [f"{name}_last"], f"/{name}_last", perm=(0, 2, 3, 1)),
            onnx.helper.make_node("Squeeze", [f"{name}_last", f"{name}_batch"], [rows], f"/{rows}"),
        ]
        graph.initializer.append(onnx.helper.make_tensor(f"{name}_batch", onnx.TensorProto.INT64, [1], [0]))
        for place, node in enumerate(made):
            graph.node.insert(place, node)
        info.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, height, width)))
    del graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, True, True, True)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _shapes(source: bytes) -> str:
    """The shapes of a model's inputs as pnnx takes them: `[1,3,255,255],[1,64,48]`."""
    import onnx

    shapes = (info.type.tensor_type.shape.dim for info in onnx.load_from_string(source).graph.input)
    return ",".join("[" + ",".join(str(size.dim_value) for size in shape) + "]" for shape in shapes)
