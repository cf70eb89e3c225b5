"""The kinds of hostile input: how each is made from a sound one, and what reads it. `tests/fuzzing.py` runs them.

A kind takes an empty folder, prepares what it needs, and returns what damages one input and reads it.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.errors import EdgetrackError
from tests.fuzzing import POISON, ROOT, Attempt, damaged, spoiled, spoiled_json, spoiled_lines

FRAME = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def manifests(folder: Path) -> Attempt:
    """A bundle whose manifest says something else: opened, listed and, where it still opens, run."""
    from edgetrack.bundle import find_bundles, open_bundle
    from edgetrack.runtime.backends.base import BackendOptions
    from edgetrack.runtime.session import Tracker
    from tests.builders import write_scripted

    bundle = write_scripted(folder / "bundle")
    sound = json.loads((bundle / "manifest.json").read_bytes())

    def attempt(rng: random.Random) -> None:
        (bundle / "manifest.json").write_bytes(spoiled_json(sound, rng))
        find_bundles(bundle)
        with Tracker(open_bundle(bundle), BackendOptions()) as tracker:
            tracker.init(FRAME, (10, 10, 20, 20))
            tracker.update(FRAME)

    return attempt


def zips(folder: Path) -> Attempt:
    """A packed bundle, damaged as bytes or in its directory: opened and listed."""
    from edgetrack.bundle import find_bundles, open_bundle, pack
    from tests.builders import write_scripted

    with open_bundle(write_scripted(folder / "made")) as bundle:
        files = {name: bundle.path(name).read_bytes() for name in bundle.manifest.files}
        files["manifest.json"] = (bundle.folder / "manifest.json").read_bytes()
        whole = pack(bundle, folder / "made.zip").read_bytes()
    path = folder / "zips" / "a.zip"
    path.parent.mkdir()

    def attempt(rng: random.Random) -> None:
        data = whole
        if rng.random() < 0.4:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for name, content in files.items():
                    info = zipfile.ZipInfo(rng.choice([name] * 6 + [f"../{name}", f"/{name}", f"._{name}", name * 90]))
                    info.compress_type = rng.choice([0, 8, 12, 14])
                    info.external_attr = rng.choice([0, 0, 0o100644 << 16, 0o120777 << 16, 0o10644 << 16])
                    zeros = bytes(rng.choice([0, 0, 0, 1 << 24]))
                    archive.writestr(info, content + zeros)
            data = packed.getvalue()
        # The directory at the end says what there is.
        tail = rng.choice([0, 0, len(data) - 400])
        path.write_bytes(data[:tail] + damaged(data[tail:], rng))
        find_bundles(path.parent)
        with open_bundle(path):
            pass

    return attempt


def arrays(folder: Path) -> Attempt:
    """golden.npz, damaged, with headers of its own, or unfolding to zeros."""
    from edgetrack.bundle import read_npz

    path = folder / "golden.npz"
    whole = io.BytesIO()
    np.savez_compressed(whole, **{"0/step/in/search": FRAME, "0/step/out/score": np.zeros((1, 1, 16, 16), np.float32)})

    def attempt(rng: random.Random) -> None:
        data = damaged(whole.getvalue(), rng)
        if rng.random() < 0.5:
            shape = rng.choice(["(2, 3)", "(-1,)", "(10**30,)", f"({2**62}, 4)", "()", "(1, " * 900, "None", "(2.0,)"])
            dtype = rng.choice(["<f4", "|O", "<U9", "V8", "[('a', '<f4')]", "<f99", ""])
            header = f"{{'descr': '{dtype}', 'fortran_order': {rng.choice(['False', '1'])}, 'shape': {shape}, }}\n"
            array = b"\x93NUMPY" + bytes([rng.choice([1, 2, 3]), 0]) + len(header).to_bytes(2, "little")
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                content = array + header.encode() + bytes(rng.choice([0, 24, 1000, 20 << 20]))
                archive.writestr(rng.choice(["0/step/in/search.npy", "a.npy", "../a.npy", "a.pkl"]), content)
            data = packed.getvalue()
        path.write_bytes(data)
        read_npz(path)

    return attempt


def checkpoints(folder: Path) -> Attempt:
    """Weights in all three formats, damaged as files, as pickles and as headers."""
    import pickle
    import pickletools

    import torch

    from edgetrack.checkpoints import read_checkpoint

    state = {f"layer{i}.weight": torch.arange(12.0).reshape(3, 4) + i for i in range(4)}
    state["count"] = torch.tensor(3)
    files: list[bytes] = []
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save({"net": state, "epoch": 3}, buffer, _use_new_zipfile_serialization=not legacy)
        files.append(buffer.getvalue())
    import safetensors.torch

    files.append(safetensors.torch.save(state))
    with zipfile.ZipFile(io.BytesIO(files[0])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in members if name.endswith("data.pkl"))
    codes = [code.code.encode("latin-1") for code in pickletools.opcodes]
    path = folder / "weights.pth"

    def rewritten(rng: random.Random) -> bytes:
        """The pickle with opcodes of all kinds put in, or one of a size that unfolds."""
        data = bytearray(members[program])
        for _ in range(rng.choice([1, 2, 5])):
            at = rng.randrange(2, len(data))
            data[at : at + rng.choice([0, 1, 3])] = rng.choice(codes) * rng.choice([1, 1, 1, 40, 100_000])
        if rng.random() < 0.1:
            return b"\x80\x02" + rng.choice([b"]", b"}", b"(", b"N2", b"c" + b"a\nb\n"]) * 300_000 + b"."
        if rng.random() < 0.1:
            return pickle.dumps({"net": {rng.choice(POISON): list(range(5000))} | {str(i): i for i in range(30_000)}})
        return bytes(data)

    def attempt(rng: random.Random) -> None:
        way = rng.randrange(4)
        if way < 3:
            data = damaged(files[way], rng)
            if way == 2 and rng.random() < 0.5:
                size = int.from_bytes(files[2][:8], "little")
                header = spoiled_json(json.loads(files[2][8 : 8 + size]), rng)
                data = len(header).to_bytes(8, "little") + header + files[2][8 + size :]
        else:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for name, content in {**members, program: rewritten(rng)}.items():
                    archive.writestr(name, content)
            data = packed.getvalue()
        path.write_bytes(data)
        read_checkpoint(path, key=rng.choice(["net", None]))

    return attempt


def networks(folder: Path) -> Attempt:
    """The PyTorch reference's file with another configuration: the sizes of a network that is built from it."""
    import msgspec
    import safetensors.torch

    from edgetrack.bundle.manifest import GraphInfo
    from edgetrack.capabilities import backend_of
    from edgetrack.exporting.recipe import find_recipe
    from edgetrack.models.base import find_model, make_network
    from edgetrack.runtime.backends.base import BackendOptions
    from tests.builders import TINY

    name = "dmtrack"
    configuration = {**find_recipe(name).configuration, **TINY[name]["configuration"]}
    network = make_network(name, configuration)
    (graph,) = find_model(name).reference(network)
    info = GraphInfo(name=graph.name, role=graph.role, file="a.x", inputs=graph.inputs, outputs=graph.outputs)
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    path = folder / "network.safetensors"
    names = ["dmtrack", "smat", "nanotrack", "dastm", "atstrack", "spmtrack", "nothing", *POISON[:6]]

    def attempt(rng: random.Random) -> None:
        family = name if rng.random() < 0.7 else rng.choice(names)
        stated = spoiled(configuration, rng) if rng.random() < 0.9 else configuration
        metadata = {"family": family, "configuration": msgspec.json.encode(stated).decode("utf-8", "replace")}
        safetensors.torch.save_file(tensors, path, metadata)
        backend_of("torch")(info, path, BackendOptions()).close()

    return attempt


def _onnx_models() -> list[Any]:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])]
    weights = {
        "w": rng.standard_normal((8, 4, 3, 3), np.float32),
        "b": rng.standard_normal(8, np.float32),
        "m": rng.standard_normal((8, 8), np.float32),
        "shape": np.int64([1, 8]),
        "index": np.int64([0, 1, 2, 3, 4, 5, 6, 7]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "/conv", kernel_shape=[3, 3], strides=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "/relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "/pool"),
        helper.make_node("Reshape", ["p", "shape"], ["f"], "/reshape"),
        helper.make_node("MatMul", ["f", "m"], ["n"], "/matmul"),
        helper.make_node("Gather", ["n", "index"], ["g"], "/gather", axis=1),
        helper.make_node("Softmax", ["g"], ["y"], "/softmax", axis=1),
    ]
    initializers = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends, outs, initializers)
    return [helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)]


def _graph_info() -> Any:
    from edgetrack.bundle.manifest import GraphInfo
    from tests.builders import tensor

    return GraphInfo(
        name="step", role="step", file="step.x", inputs=(tensor("x", 1, 4, 8, 8),), outputs=(tensor("y", 1, 8),)
    )


def _run(target: str, path: Path) -> None:
    """Open and run a graph; an error that does not name it is none of ours."""
    from edgetrack.capabilities import backend_of
    from edgetrack.runtime.backends.base import BackendOptions

    try:
        with closing(backend_of(target)(_graph_info(), path, BackendOptions())) as graph:
            graph.inputs["x"][...] = 1
            graph.run()
    except EdgetrackError as error:
        if "step" in str(error):
            raise
        raise AssertionError("the graph is not named") from error


def onnx_graphs(folder: Path) -> Attempt:
    """ONNX graphs with other operators, attributes, edges, types and tensors, or damaged as bytes: opened and run."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    onnxruntime.set_default_logger_severity(4)
    path = folder / "step.onnx"
    (whole,) = _onnx_models()
    operators = ["Add", "Div", "Gather", "Reshape", "ConstantOfShape", "Expand", "Tile", "Loop", "If", "Scan", "Resize",
                 "NonZero", "Unique", "Range", "OneHot", "Pad", "Slice", "TopK", "Cast", "Shell", "Identity", "Split",
                 "Einsum", "GridSample", "LSTM", "QuantizeLinear", "SequenceAt", "Optional"]  # fmt: skip

    def changed(rng: random.Random) -> Any:
        model = onnx.ModelProto.FromString(whole.SerializeToString())
        nodes = model.graph.node
        for _ in range(rng.choice([1, 1, 2, 4])):
            node, way = rng.choice(nodes), rng.randrange(12)
            tensor = rng.choice(model.graph.initializer)
            port = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type
            if way == 0:
                node.op_type = rng.choice(operators)
            elif way == 1:
                node.input[rng.randrange(len(node.input))] = rng.choice(["x", "y", "w", "shape", "", "absent", "c"])
            elif way == 2:
                name, value = (
                    rng.choice(["axis", "group", "pads", "to"]),
                    rng.choice([0, -9, 2**40, [1, 2**33], "x", 0.5]),
                )
                node.attribute.append(helper.make_attribute(name, value))
            elif way == 3:
                node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "evil", "ai.onnx.training"])
            elif way == 4:
                nodes.remove(node) if len(nodes) > 1 else None
            elif way == 5:
                nodes.append(node)
            elif way == 6:
                tensor.data_type = rng.choice(list(range(26)))
            elif way == 7 and tensor.dims:
                tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice([0, -1, 1, 2**31, 2**40, 2**62])
            elif way == 8:
                tensor.raw_data = rng.choice([b"", tensor.raw_data[:3], rng.randbytes(16), b"\xff" * 16])
            elif way == 9:
                tensor.data_location = TensorProto.EXTERNAL
                entry = tensor.external_data.add()
                entry.key, entry.value = "location", rng.choice(["step.onnx", "seed", "../x", "/etc/passwd", *POISON])
            elif way == 10 and port.shape.dim:
                port.shape.dim[rng.randrange(len(port.shape.dim))].dim_value = rng.choice([0, -1, 3, 2**40])
            else:
                port.elem_type = rng.choice(list(range(26)))
        return model

    def attempt(rng: random.Random) -> None:
        data = whole.SerializeToString()
        try:
            data = changed(rng).SerializeToString() if rng.random() < 0.8 else damaged(data, rng)
        except (ValueError, TypeError):  # a number that protocol buffers do not take
            data = damaged(data, rng)
        path.write_bytes(data)
        _run("onnx", path)

    return attempt


def irs(folder: Path) -> Attempt:
    """OpenVINO IRs with other layers, attributes, edges and sizes: opened and run."""
    import re

    import onnx
    import openvino

    from edgetrack.runtime.backends.openvino.backend import shared_core

    source, path = folder / "source.onnx", folder / "step.xml"
    onnx.save(_onnx_models()[0], str(source))
    openvino.save_model(shared_core().read_model(source), path, compress_to_fp16=False)
    text, weights = path.read_text(), path.with_suffix(".bin").read_bytes()
    value = re.compile(r'"[^"]*"')
    words = ["Loop", "If", "TensorIterator", "Gather", "Broadcast", "Const", "Parameter", "Result", "ReadValue", "i64",
             "f8e4m3", "u1", "string", "opset99", "-1", "0", "1", "4294967296", "9223372036854775807", "1e9",
             "?", "2,2"]  # fmt: skip

    def attempt(rng: random.Random) -> None:
        data, way = text, rng.random()
        for _ in range(rng.choice([1, 1, 2, 5])):
            found = list(value.finditer(data))
            if way < 0.7 and found:
                spot = rng.choice(found)
                word = rng.choice([*words, *words, rng.choice(POISON), rng.choice(found)[0][1:-1]])
                data = data[: spot.start()] + f'"{word}"' + data[spot.end() :]
            elif way < 0.9:
                data = spoiled_lines(data, rng).decode("utf-8", "replace")
        path.write_bytes(data.encode("utf-8", "replace") if way < 0.95 else damaged(data.encode(), rng))
        path.with_suffix(".bin").write_bytes(weights if rng.random() < 0.8 else damaged(weights, rng))
        _run("openvino", path)

    return attempt


def ml_programs(folder: Path) -> Attempt:
    """Core ML packages with other operations, values, types, shapes and places of weights: opened and interpreted."""
    from edgetrack.runtime.backends.base import BackendOptions
    from edgetrack.runtime.backends.mil.backend import MilGraph
    from edgetrack.runtime.backends.mil.package import main_block, read_spec, specification_file
    from tests.builders import write_ml_program

    package = folder / "step.mlpackage"
    info = write_ml_program(package)
    program, listing = specification_file(package), package / "Manifest.json"
    weights = program.parent / "weights" / "weight.bin"
    whole = {path: path.read_bytes() for path in (program, listing, weights)}
    names = ["conv", "const", "while_loop", "cond", "pad", "tile", "reshape", "gather", "slice_by_index", "linear",
             "constexpr_lut_to_dense", "constexpr_affine_dequantize", "shell", ""]  # fmt: skip
    numbers = [0, 1, -1, 2, 7, 2**16, 2**31 - 1, -(2**31)]

    def tensor_of(value: Any, rng: random.Random) -> None:
        """Other numbers, text, shape, type or place in the weight file."""
        way, kind = rng.randrange(6), value.type.tensorType
        if way == 0:
            kind.dataType = rng.choice([1, 2, 10, 11, 21, 23, 31, 40, 0])
        elif way == 1 and kind.dimensions:
            rng.choice(kind.dimensions).constant.size = rng.choice([0, 1, 3, 2**31, 2**40, 2**63])
        elif way == 2:
            value.blobFileValue.offset = rng.choice([0, 1, 64, 128, 2**32, 2**63, 2**64 - 1])
            value.blobFileValue.fileName = rng.choice(
                ["@model_path/weights/weight.bin"] * 4
                + ["@model_path/../../Manifest.json", "/etc/passwd", "", *POISON[:4]]
            )
        elif way == 3:
            value.immediateValue.tensor.strings.values[:] = rng.choice([["x"], ["valid"], ["a", "b"], []])
            kind.dataType = 2
        else:
            count = rng.choice([0, 1, 2, 4, 8])
            value.immediateValue.tensor.ints.values[:] = [rng.choice(numbers) for _ in range(count)]
            kind.dataType, kind.rank = 23, 1
            del kind.dimensions[:]
            kind.dimensions.add().constant.size = rng.choice([count, count, count + 1])

    def changed(rng: random.Random) -> bytes:
        spec = read_spec(package)
        operations = main_block(spec).operations
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            operation, way = rng.choice(operations), rng.randrange(9)
            known = [output.name for other in operations for output in other.outputs]
            if way == 0:
                operation.type = rng.choice([*names, rng.choice(operations).type])
            elif way == 1 and operation.inputs:
                argument = operation.inputs[rng.choice(sorted(operation.inputs))]
                argument.arguments[0].name = rng.choice([*known, "image", "absent"])
            elif way == 2 and operation.inputs:
                del operation.inputs[rng.choice(sorted(operation.inputs))]
            elif way == 3:
                operation.inputs[rng.choice(["axis", "x", "y", "pad", ""])].arguments.add().name = rng.choice(known)
            elif way == 4:
                operations.insert(rng.randrange(len(operations)), operation)
            elif way == 5 and len(operations) > 1:
                operations.remove(operation)
            elif way == 6:
                operation.blocks.add()
            elif way == 7:
                output = rng.choice(operation.outputs) if operation.outputs else operation.outputs.add()
                output.name = rng.choice([output.name, *known, ""])
                if output.type.tensorType.dimensions:
                    rng.choice(output.type.tensorType.dimensions).constant.size = rng.choice([0, 1, 5, 2**20, 2**62])
            else:
                constants = [one for one in operations if one.type == "const" and "val" in one.attributes]
                tensor_of(rng.choice(constants).attributes["val"], rng)
        return bytes(spec.SerializeToString())

    def attempt(rng: random.Random) -> None:
        for path, data in whole.items():
            path.write_bytes(data)
        way = rng.random()
        if way < 0.75:
            program.write_bytes(changed(rng))
        else:
            path = rng.choice(list(whole))
            path.write_bytes(damaged(whole[path], rng))
        graph = MilGraph(info, package, BackendOptions())
        graph.inputs["image"][:] = FRAME[:8, :8]
        graph.run()
        graph.close()

    return attempt


def frames(folder: Path) -> Attempt:
    """Images of five formats, and videos, damaged: decoded to frames or refused."""
    import cv2

    from edgetrack.media import open_source
    from edgetrack.media.folders import decode

    whole = {suffix: cv2.imencode(suffix, FRAME)[1].tobytes() for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp")}
    video = folder / "whole.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 25, (80, 60))
    for _ in range(5):
        writer.write(FRAME)
    writer.release()
    whole[".avi"] = video.read_bytes()
    (folder / "images").mkdir()

    def attempt(rng: random.Random) -> None:
        suffix = rng.choice(list(whole))
        data = damaged(whole[suffix], rng)
        if suffix != ".avi":
            image = decode(data, f"frame{suffix}", cv2.IMREAD_COLOR)
            assert image.size <= 1 << 30
            return
        path = folder / "images" / f"a{suffix}"
        path.write_bytes(data)
        for index, frame in enumerate(open_source(str(path))):
            assert frame.shape[2] == 3
            if index > 50:
                break

    return attempt


def boxes(folder: Path) -> Attempt:
    """Annotations as people and tools write them, spoiled: ground truth of a source, boxes and flags of a data set."""
    from edgetrack.evaluation.datasets.clip import read_boxes, read_flags
    from edgetrack.media.folders import read_ground_truth

    path = folder / "groundtruth.txt"
    texts = ["10,20,30,40\n11,21,30,40\n12.5,22,30,40\n", "1\t2\t3\t4\n5 6 7 8\n", "1,2,3,4,5,6,7,8\n" * 3, "0\n1\n0\n"]

    def attempt(rng: random.Random) -> None:
        data = spoiled_lines(rng.choice(texts), rng)
        if rng.random() < 0.02:
            data = data + b"1,2,3,4\n" * 200_000
        path.write_bytes(rng.choice([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]) + data)
        rng.choice([read_ground_truth, read_boxes, read_flags])(path)

    return attempt


def tomls(folder: Path) -> Attempt:
    """Recipes, budgets, devices and calibration sets with other lines."""
    from edgetrack.devices.profiles import read_hosts
    from edgetrack.exporting.recipe import read_recipe
    from edgetrack.gate.budget import read_budget
    from edgetrack.quantization.calibration import read_set

    readers: list[tuple[Callable[[Path], object], list[str]]] = [
        (read_recipe, [p.read_text("utf-8") for p in sorted((ROOT / "export_recipes").glob("*.toml"))]),
        (read_budget, [p.read_text("utf-8") for p in sorted((ROOT / "bench" / "budgets").glob("*.toml"))]),
        (read_hosts, ['[pi]\nhost = "pi.local"\nuser = "me"\nport = 22\n[orin]\nhost = "10.0.0.2"\npython = "~/p"\n']),
        (read_set, [(ROOT / "calibration" / "synthetic.toml").read_text("utf-8")]),
    ]
    path = folder / "a.toml"

    def attempt(rng: random.Random) -> None:
        read, texts = rng.choice(readers)
        data = spoiled_lines(rng.choice(texts), rng)
        if rng.random() < 0.05:
            data += b"x = " + rng.choice([b"[" * 5000, b"9" * 6000, b'"' + b"a" * 70_000 + b'"', b"{a=" * 500])
        path.write_bytes(data)
        read(path)

    return attempt


def records(folder: Path) -> Attempt:
    """Results of bench, eval, compare and the accuracy control with other numbers, names and texts: read and shown."""
    from edgetrack.evaluation.execution.ledger import read_run
    from edgetrack.evaluation.protocols.one_pass import OnePassRun
    from edgetrack.evaluation.protocols.streaming import read_latencies
    from edgetrack.report.model import read_file, read_results
    from edgetrack.report.page import contents, html, markdown
    from tests.report.conftest import write_one_of_each

    write_one_of_each(folder / "whole")
    kept = [json.loads(path.read_bytes()) for path in sorted((folder / "whole").rglob("[a-d].json"))]
    place = folder / "place"
    place.mkdir()
    path = place / "record.json"

    def attempt(rng: random.Random) -> None:
        path.write_bytes(spoiled_json(rng.choice(kept), rng))
        read_run(path, "key", OnePassRun)
        with suppress(EdgetrackError):
            read_latencies(str(path), "smat")
        read_file(path)
        results = read_results([place])
        for page in (contents(results), markdown(results), html(results)):
            assert "\x1b" not in page
            assert "<script>alert" not in page

    return attempt


def talk(folder: Path) -> Attempt:
    """Lines between a workstation and a device, and the record that comes back."""
    from edgetrack.benchmark.record import BenchRecord
    from edgetrack.devices.protocol import decode_reply, decode_request
    from edgetrack.devices.remote import read_record
    from tests.builders import bench_json

    info = {"size": 3, "sha256": "ab" * 32}
    requests = [
        {"type": "need", "files": [info]},
        {"type": "place", "data": "cd" * 32, "files": {"smat/step.onnx": info}},
        {"type": "run", "verb": "bench", "arguments": ["--duration", "4"], "wanted": ["results/stdout", "out/eval"]},
        {"type": "beat"},
        {"type": "clean"},
    ]
    replies = [
        {"type": "ready", "protocol": 2, "version": "1", "incoming": "/x"},
        {"type": "missing", "sha256": ["ab" * 32], "free": 1},
        {"type": "step", "what": "tracking", "step": 1, "total": 2},
        {"type": "log", "line": "a"},
        {"type": "done", "code": 0, "folder": "/x", "files": {"results/stdout": info}},
        {"type": "refused", "error": "UsageError", "message": "no"},
    ]
    record = bench_json(("smat-onnx-fp32", None, [[1.0, 2.0]]))

    def attempt(rng: random.Random) -> None:
        way = rng.randrange(3)
        if way == 0:
            decode_request(spoiled_json(rng.choice(requests), rng))
        elif way == 1:
            decode_reply(spoiled_json(rng.choice(replies), rng))
        else:
            read_record(spoiled_json(record, rng), BenchRecord, "what the device sent")

    return attempt


def names(folder: Path) -> Attempt:
    """Poisoned texts wherever a bundle may hold text, through the commands that print them."""
    from typer.testing import CliRunner

    from edgetrack.cli.main import app
    from tests.builders import write_scripted

    bundle = write_scripted(folder / "bundles" / "bundle")
    sound = json.loads((bundle / "manifest.json").read_bytes())
    runner = CliRunner()

    def attempt(rng: random.Random) -> None:
        manifest = json.loads(json.dumps(sound))
        word = rng.choice(POISON)[:500]
        for _ in range(rng.choice([1, 2, 4])):
            where = rng.randrange(6)
            if where == 0:
                manifest["title"] = word
            elif where == 1:
                manifest["weights"]["note"] = word
            elif where == 2:
                manifest["tools"] = {word: word}
            elif where == 3:
                rng.choice(manifest["graphs"])["outputs"][0]["name"] = word
            elif where == 4:
                manifest["precision_exceptions"] = {word: word}
            else:
                manifest["procedure"][word] = word
        (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        for command in (["list", str(folder / "bundles")], ["inspect", str(bundle)], ["verify", str(bundle)]):
            done = runner.invoke(app, command)
            if done.exception is not None and not isinstance(done.exception, (SystemExit, EdgetrackError)):
                raise done.exception
            said = done.output if done.exception is None or isinstance(done.exception, SystemExit) else ""
            said += str(done.exception) if isinstance(done.exception, EdgetrackError) else ""
            assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said), said

    return attempt


KINDS: dict[str, Callable[[Path], Attempt]] = {
    function.__name__: function
    for function in (
        manifests, zips, arrays, checkpoints, networks, onnx_graphs, irs, ml_programs, frames, boxes, tomls, records,
        talk, names,
    )
}  # fmt: skip
