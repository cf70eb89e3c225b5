"""What runs beside rknn-toolkit2, in the environment that is its own: builds .rknn files and simulates them.

One file, run by `edgetrack.environments.serve`: the standard library, NumPy, onnx, the toolkit; nothing of edgetrack.

The toolkit simulates what it has just built, never a .rknn file. So a graph is built twice alike: once for the board,
from calibration inputs, which leaves a record of what was decided (`record.json`: every tensor's range, and what stays
in FP16); and again wherever it is simulated, from the ONNX file and that record. The toolkit's own files in between are
no part of a bundle: one is a pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Say = Callable[[str], None]
MODEL = "graph"
SETTLED = "normal"
"""The algorithm of a build whose ranges are there already: with the others the toolkit refuses to take them."""
PREAMBLE = ("Cast", "Unsqueeze", "Transpose")
"""What every graph does to a uint8 (H, W, 3) crop before it computes; here the toolkit's own input conversion does."""
_OPEN: dict[str, Any] = {}


class BundleIntegrityError(Exception):
    """As edgetrack's: the file is not what it should be."""


class UsageError(Exception):
    """As edgetrack's: what was asked for cannot be done."""


def build(
    arrays: Mapping[str, Any],
    say: Say,
    *,
    onnx: str,
    output: str,
    record: str,
    platform: str,
    precision: str,
    algorithm: str,
    per_channel: bool,
    kept: Sequence[str],
    samples: str,
    inputs: Sequence[str],
    count: int,
) -> None:
    """Build a graph for a board.

    Args:
        arrays: none.
        say: takes a line of progress.
        onnx: file of the graph.
        output: the .rknn file to write.
        record: the file to write what was decided to.
        platform: the chip, such as `rk3588`.
        precision: `fp16` or `int8`.
        algorithm: of the ranges, as the toolkit names it.
        per_channel: whether weights have a scale for each output channel.
        kept: regular expressions for whole names of nodes that stay in FP16.
        samples: folder of calibration inputs, `<number of the input>-<number of the sample>.npy`.
        inputs: their names, by number.
        count: of samples.
    """
    settings = (platform, SETTLED, per_channel)
    with _workshop():
        names, outputs = _prepare(onnx)
        decided: dict[str, Any] = {"schema": 1, "platform": platform, "precision": precision}
        if precision == "int8":
            say(f"finding ranges in {count} samples")
            Path("samples").symlink_to(samples)
            numbers = [inputs.index(name) for name in names]
            lines = [" ".join(f"samples/{number}-{row:06d}.npy" for number in numbers) for row in range(count)]
            Path("dataset.txt").write_text("\n".join(lines) + "\n", "utf-8")
            _calibrate((platform, algorithm, per_channel))
            text = Path(f"{MODEL}.quantization.cfg").read_text("utf-8")
            if algorithm != SETTLED:
                Path("dataset.txt").write_text(f"{lines[0]}\n", "utf-8")
                _calibrate(settings)
            decided["algorithm"], decided["per_channel"] = algorithm, per_channel
            decided["ranges"] = _ranges(text)
            decided["float16"] = _kept(decided["ranges"], outputs, kept)
        say(f"compiling for {platform}")
        with _toolkit(*settings) as toolkit:
            _compile(toolkit, decided)
            _require(toolkit.export_rknn("board.rknn"), "write the .rknn file")
        shutil.move("board.rknn", output)
        Path(record).write_text(json.dumps(decided, indent=1) + "\n", "utf-8")


def open_graph(arrays: Mapping[str, Any], say: Say, *, path: str, device: str, threads: int, record: Any) -> Any:
    """Build the graph again as it was for the board, for the simulator; see `EnvironmentGraph`."""
    settings = (record["platform"], SETTLED, record["per_channel"])
    with _workshop():
        names, _ = _prepare(path)
        if record["precision"] == "int8":
            # Anything will do: the record's ranges take the place of those that are found.
            for number, info in enumerate(_model().graph.input):
                shape = [size.dim_value for size in info.type.tensor_type.shape.dim]
                np.save(f"{number}.npy", np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape))
            Path("dataset.txt").write_text(" ".join(f"{number}.npy" for number in range(len(names))) + "\n", "utf-8")
            _calibrate(settings)
        # Open as long as the process: the simulator runs what was built here.
        stack = ExitStack()
        toolkit = stack.enter_context(_toolkit(*settings))
        _compile(toolkit, record)
        outputs = [info.name for info in _model().graph.output]
        _require(toolkit.init_runtime(), "start its simulator")
    _OPEN.update(toolkit=toolkit, stack=stack, inputs=names, outputs=outputs)
    return {}, {"placement": f"rknn-toolkit2's simulator of {record['platform']}"}


def run_graph(arrays: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """One simulated inference."""
    given = [arrays[name] for name in _OPEN["inputs"]]
    crops = [value.dtype == np.uint8 for value in given]
    found = _OPEN["toolkit"].inference(
        inputs=[np.ascontiguousarray(value[None] if crop else value) for value, crop in zip(given, crops, strict=True)],
        data_format=["nhwc" if crop else "nchw" for crop in crops],
    )
    _require(-1 if found is None else 0, "simulate the graph")
    return dict(zip(_OPEN["outputs"], found, strict=True))


@contextmanager
def _workshop() -> Iterator[None]:
    """A folder to work in, as the toolkit drops its files where it stands and takes lists without spaces."""
    before = Path.cwd()
    folder = before / "workshop"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _toolkit(platform: str, algorithm: str, per_channel: bool) -> Iterator[Any]:
    from rknn.api import RKNN

    toolkit = RKNN(verbose=False)
    try:
        method = "channel" if per_channel else "layer"
        toolkit.config(target_platform=platform, quantized_algorithm=algorithm, quantized_method=method)
        yield toolkit
    except (BundleIntegrityError, UsageError):
        raise
    except Exception as error:  # a ValueError with a traceback for its text, of which the last line says why
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise BundleIntegrityError(f"rknn-toolkit2 fails: {lines[-1] if lines else type(error).__name__}") from error
    finally:
        toolkit.release()


def _require(code: int, what: str) -> None:
    """Raise BundleIntegrityError where the toolkit returned that something failed."""
    if code != 0:
        raise BundleIntegrityError(f"rknn-toolkit2 cannot {what}: it returned {code}")


def _calibrate(settings: tuple[str, str, bool]) -> None:
    """Optimise the graph and find the ranges of its tensors on dataset.txt; leaves the toolkit's three files."""
    with _toolkit(*settings) as toolkit:
        _require(toolkit.load_onnx(f"{MODEL}.onnx"), "read the ONNX file")
        _require(toolkit.hybrid_quantization_step1(dataset="dataset.txt"), "quantize the graph")


def _compile(toolkit: Any, record: Mapping[str, Any]) -> None:
    if record["precision"] == "int8":
        configuration = Path(f"{MODEL}.quantization.cfg")
        configuration.write_text(_decided(configuration.read_text("utf-8"), record), "utf-8")
        files = (f"{MODEL}.model", f"{MODEL}.data", str(configuration))
        _require(toolkit.hybrid_quantization_step2(*files), "build the graph")
    else:
        _require(toolkit.load_onnx(f"{MODEL}.onnx"), "read the ONNX file")
        _require(toolkit.build(do_quantization=False), "build the graph")


_TENSOR = re.compile(r"    (\S.*):")
_FIELD = re.compile(r"        (\w+):(.*)")
_VALUE = re.compile(r"        -   (\S+)")


def _places(text: str) -> Iterator[tuple[int, str, str, bool]]:
    """Lines of the toolkit's configuration: number, tensor, field, whether it is one value of a list.

    Its text is read line by line and not as YAML: written anew, a number may get another form, which the toolkit takes
    for a change of what must not be changed.
    """
    tensor = field = ""
    inside = False
    for number, line in enumerate(text.splitlines()):
        if not line.startswith(" "):
            inside = line.startswith("quantize_parameters:")
        elif inside and (found := _VALUE.fullmatch(line)):
            yield number, tensor, field, True
        elif inside and (found := _FIELD.fullmatch(line)):
            field = found[1]
            yield number, tensor, field, False
        elif inside and (found := _TENSOR.fullmatch(line)):
            tensor = found[1].strip("'\"")


def _ranges(text: str) -> dict[str, list[list[float]]]:
    """Lowest and highest values of every tensor, a number each or one for each channel."""
    lines = text.splitlines()
    ranges: dict[str, list[list[float]]] = {}
    for number, tensor, field, value in _places(text):
        if field in ("min", "max"):
            low_and_high = ranges.setdefault(tensor, [[], []])
            if value:
                low_and_high[field == "max"].append(float(lines[number].split()[1]))
    return ranges


def _decided(text: str, record: Mapping[str, Any]) -> str:
    """The toolkit's configuration with the record's ranges and what stays in FP16."""
    lines = text.splitlines()
    ranges = {name: [list(each) for each in both] for name, both in record["ranges"].items()}
    known = {name: [len(low), len(high)] for name, (low, high) in _ranges(text).items()}
    if known != {name: [len(low), len(high)] for name, (low, high) in ranges.items()}:
        odd = sorted(set(known).symmetric_difference(ranges))
        raise BundleIntegrityError(
            f"the graph's tensors are not those whose ranges are on record ({', '.join(odd[:4]) or 'other channels'}); "
            "export the bundle again"
        )
    for number, tensor, field, value in _places(text):
        if value and field in ("min", "max"):
            lines[number] = f"        -   {ranges[tensor][field == 'max'].pop(0)!r}"
    if kept := record.get("float16"):
        place = lines.index("custom_quantize_layers: {}")
        lines[place] = "custom_quantize_layers:"
        lines[place + 1 : place + 1] = [f"    {json.dumps(name)}: float16" for name in kept]
    return "\n".join(lines) + "\n"


def _kept(tensors: Mapping[str, Any], outputs: Mapping[str, str], kept: Sequence[str]) -> list[str]:
    """The tensors of nodes that stay in FP16: the toolkit names what it makes of a node by the node's output."""
    patterns = [re.compile(text) for text in kept]
    chosen = {name for name, node in outputs.items() if any(pattern.fullmatch(node) for pattern in patterns)}
    found = []
    for tensor in tensors:
        owner = max((name for name in outputs if tensor.startswith(name)), key=len, default="")
        if owner in chosen:
            found.append(tensor)
    return found


def _model() -> Any:
    import onnx

    return onnx.load(f"{MODEL}.onnx")


def _prepare(path: str) -> tuple[list[str], dict[str, str]]:
    """Write the graph as the toolkit takes it; names of its inputs in order, and of nodes by their outputs."""
    import onnx

    model = prepared(onnx.load(path))
    onnx.save(model, f"{MODEL}.onnx")
    nodes = {name: node.name for node in model.graph.node for name in node.output}
    return [info.name for info in model.graph.input], nodes


def prepared(model: Any) -> Any:
    """The graph as the toolkit takes it, in place: float32 NCHW images, no gain behind a normalisation.

    A gain and a shift for each channel behind a normalisation over all of a map become a depthwise 1x1 convolution: the
    toolkit takes them into the normalisation, as if they had a number for each element, and fails.
    """
    import onnx

    for info in model.graph.input:
        if info.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            _without_preamble(model, info)
    _gains_as_convolutions(model)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, True, True, True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _without_preamble(model: Any, info: Any) -> None:
    """An input uint8 (H, W, 3) becomes float32 (1, 3, H, W); what makes the one of the other is left out.

    Where something else stands there, as in graphs that were given as ONNX, it stays, and the inverse before it.
    """
    import onnx

    graph, name = model.graph, info.name
    shape = tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
    if len(shape) != 3 or shape[2] != 3:
        raise UsageError(f"input {name!r} is uint8 {shape}; rknn bundles take uint8 for crops (height, width, 3) alone")
    places = np.arange(np.prod(shape)).reshape(shape)
    wanted = places.transpose(2, 0, 1)[None]
    last, passed, plain = name, [], []
    while len(users := _users(model, last)) == 1 and users[0].op_type in PREAMBLE:
        places, last = _moved(model, users[0], places), users[0].output[0]
        passed.append(users[0])
        if np.array_equal(places, wanted):
            plain = list(passed)
    for node in plain:
        graph.node.remove(node)
    start = name if plain else f"{name}_rows"
    last = plain[-1].output[0] if plain else name
    for node in _users(model, last):
        node.input[:] = [start if one == last else one for one in node.input]
    if not plain:
        rows = onnx.numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape")
        graph.initializer.append(rows)
        channels_last = f"{name}_channels_last"
        graph.node.insert(0, onnx.helper.make_node("Reshape", [channels_last, rows.name], [start], f"/{start}"))
        graph.node.insert(
            0, onnx.helper.make_node("Transpose", [name], [channels_last], f"/{channels_last}", perm=(0, 2, 3, 1))
        )
    info.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, wanted.shape))


def _users(model: Any, name: str) -> list[Any]:
    return [node for node in model.graph.node if name in node.input]


def _moved(model: Any, node: Any, places: Any) -> Any:
    """What a node of the preamble makes of an array."""
    import onnx

    if node.op_type == "Transpose":
        return places.transpose(next(tuple(one.ints) for one in node.attribute if one.name == "perm"))
    if node.op_type == "Unsqueeze":
        made = {one.output[0]: one.attribute[0].t for one in model.graph.node if one.op_type == "Constant"}
        made.update({tensor.name: tensor for tensor in model.graph.initializer})
        return np.expand_dims(places, tuple(int(axis) for axis in onnx.numpy_helper.to_array(made[node.input[1]])))
    return places


def _gains_as_convolutions(model: Any) -> None:
    import onnx

    graph = model.graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def channels(name: str) -> bool:
        value = weights.get(name)
        return value is not None and value.ndim == 4 and value.shape == (1, value.shape[1], 1, 1)

    for node in list(graph.node):
        if node.op_type != "Mul" or not channels(node.input[1]):
            continue
        users = _users(model, node.output[0])
        if len(users) != 1 or users[0].op_type != "Add" or not channels(users[0].input[1]):
            continue
        gain, shift = weights[node.input[1]], weights[users[0].input[1]]
        count, made = gain.shape[1], (f"{node.name}.gain", f"{node.name}.shift")
        for name, value in zip(made, (gain.reshape(count, 1, 1, 1), shift.reshape(count)), strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        convolution = onnx.helper.make_node(
            "Conv", [node.input[0], *made], list(users[0].output), node.name, group=count, kernel_shape=[1, 1]
        )
        graph.node.insert(list(graph.node).index(node), convolution)
        graph.node.remove(node)
        graph.node.remove(users[0])
