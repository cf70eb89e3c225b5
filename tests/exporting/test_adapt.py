"""Files with every kind of trouble: they work, or one line says what to write."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgetrack.errors import CheckpointError, EdgetrackError, UsageError
from edgetrack.exporting.adapt import Sizes
from edgetrack.exporting.from_onnx import GivenGraphs, check_ranges, read_given
from edgetrack.exporting.parity import Sample, chained, count_flops, noise_sample, torch_runner
from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.exporting.recipe import Recipe, find_recipe, recipe_names
from edgetrack.runtime.session import load
from tests.builders import as_toml

pytestmark = pytest.mark.usefixtures("short_proof")
CELLS, SEARCH, TEMPLATE = 4, 64, 32


class Head(nn.Module):
    """A tracker's graph in small: what both crops give, as maps."""

    def __init__(self, sigmoid: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.search, self.template = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(3, 8, 16, 16)
        self.maps, self.sigmoid = nn.Conv2d(8, 5, 1), sigmoid

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen = self.search(x) * self.template(z).mean(dim=(2, 3), keepdim=True)
        score, size, offset = self.maps(seen).split([1, 2, 2], dim=1)
        if self.sigmoid:
            score, size = score.sigmoid(), size.sigmoid()
        return score, size, offset


def write(path: Path, module: nn.Module | None = None, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    inputs = tuple(torch.zeros(1, 3, size, size, dtype=dtype) for size in (TEMPLATE, SEARCH))
    names = {"input_names": ["z", "x"], "output_names": ["score_map", "size_map", "offset_map"]}
    module = (module or Head()).eval().to(dtype)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), dynamo=False, **{"opset_version": 13, **names, **options})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("given") / "mine.onnx")


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def recipe(tmp_path: Path, *, drop: tuple[str, ...] = (), **changes: Any) -> Recipe:
    tables: dict[str, Any] = {
        "schema": 1,
        "name": "mine",
        "family": "center",
        "procedure": {
            "template_factor": 2.0,
            "template_size": TEMPLATE,
            "search_factor": 4.0,
            "search_size": SEARCH,
        },
        "inputs": {"template": {"source": "z", **IMAGENET}, "search": {"source": "x", **IMAGENET}},
        "outputs": {
            "score": {"source": "score_map"},
            "size": {"source": "size_map"},
            "offset": {"source": "offset_map"},
        },
        **changes,
    }
    path = tmp_path / "mine.toml"
    path.write_text(as_toml({key: value for key, value in tables.items() if key not in drop}))
    return find_recipe(str(path))


def differences(given: GivenGraphs) -> float:
    """The largest between the adapted graphs and the untouched files, on noise."""
    noise = noise_sample(given.shipped)
    boxes = {t.name: np.full(t.shape, 0.3, t.dtype) for g in given.shipped for t in g.inputs if t.name == "target_box"}
    sample = Sample(noise.name, {**noise.inputs, **boxes})
    ours = chained(given.shipped, torch_runner(given.shipped), sample)
    theirs = chained(given.published, torch_runner(given.published), sample)
    return max(
        float(np.abs(ours[name]["out"][output] - value).max())
        for name, sides in theirs.items()
        for output, value in sides["out"].items()
    )


def test_file_becomes_a_bundle_that_tracks(model: Path, tmp_path: Path) -> None:
    recipe(tmp_path)
    report = export(ExportRequest(str(tmp_path / "mine.toml"), "onnx", onnx=(model,), output=tmp_path / "bundle"))
    assert report.manifest.weights.origin == "custom"
    assert [t.name for t in report.manifest.graph("step").inputs] == ["template", "search"]
    with load(report.path, threads=1) as tracker:
        frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
        tracker.init(frame, (40, 40, 30, 20))
        assert 0 <= tracker.update(frame).score <= 1


def test_minimal_recipe_without_weights_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    recipe(tmp_path)
    with pytest.raises(UsageError, match=r"recipe 'mine' starts from ONNX; give --onnx model\.onnx"):
        export(ExportRequest(str(tmp_path / "mine.toml"), "onnx", output=tmp_path / "bundle"))


def test_adapted_graph_is_the_file_with_numpy_around_it(model: Path, tmp_path: Path) -> None:
    given = read_given(recipe(tmp_path), [model], "onnx")
    assert given.published is not given.shipped
    assert differences(given) < 1e-5


def test_open_axes_are_fixed(tmp_path: Path) -> None:
    axes = {"z": {0: "n"}, "x": {0: "n", 2: "h", 3: "w"}}
    path = write(tmp_path / "open.onnx", dynamic_axes=axes)
    given = read_given(recipe(tmp_path), [path], "onnx")
    assert given.shipped[0].inputs[1].shape == (SEARCH, SEARCH, 3)
    assert differences(given) < 1e-5


def test_float16_file_is_fed_and_read_in_its_own_type(tmp_path: Path) -> None:
    write(tmp_path / "half.onnx", dtype=torch.float16)
    given = read_given(recipe(tmp_path), [tmp_path / "half.onnx"], "onnx")
    assert {t.dtype for t in given.shipped[0].outputs} == {"float32"}
    assert differences(given) < 2e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": {"template": {"source": "z"}, "search": {"source": "x", "layout": "nhwc"}}},
            r"input 'x' has shape \(1, 3, 64, 64\), the recipe makes 'search' \(1, 64, 64, 3\) of it; write layout = "
            '"nchw"',
        ),
        (
            {"procedure": {"template_factor": 2.0, "template_size": 32, "search_factor": 4.0, "search_size": 128}},
            'with layout = "nchw" it is an image of 64 pixels: set the size in .procedure. to 64',
        ),
        (
            {"inputs": {"search": {"source": "x"}}},
            r"needs its input 'z' \(1, 3, 32, 32\), which the recipe does not fill; write .inputs.ROLE. source = \"z\"",
        ),
        (
            {"inputs": {"template": {"source": "zz"}, "search": {"source": "x"}}},
            r"has no tensor 'zz' to feed; its inputs are: z \(1, 3, 32, 32\), x",
        ),
        (
            {"inputs": {"template": {"source": "z", "dtype": "float16"}, "search": {"source": "x"}}},
            "input 'z' is float32; write dtype = \"float32\"",
        ),
        (
            {"outputs": {"score": {"source": 3}, "size": {"source": 1}, "offset": {"source": 2}}},
            "has 3 outputs, no number 3 for 'score': score_map, size_map, offset_map",
        ),
        (
            {"outputs": {"score": {"source": 1}, "size": {"source": 0}, "offset": {"source": 2}}},
            "output 'score' has 32 numbers, expected 1 map of n x n; are the outputs in another order",
        ),
        (
            {"outputs": {"score": {"source": "nothing"}, "size": {"source": 1}, "offset": {"source": 2}}},
            "has no tensor 'nothing' for output 'score'; its outputs are: score_map",
        ),
        ({"configuration": {"compat": "old"}}, None),
    ],
)
def test_recipe_that_does_not_fit_is_told_what_to_write(
    model: Path, tmp_path: Path, changes: Mapping[str, Any], message: str | None
) -> None:
    if message is None:
        assert read_given(recipe(tmp_path, **changes), [model], "onnx")
        return
    with pytest.raises(UsageError, match=message):
        read_given(recipe(tmp_path, **changes), [model], "onnx")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"score": 7.0}, "output 'score' reaches 7 to 7, expected 0..1; write activation = \"sigmoid\""),
        ({"size": -0.1}, "output 'size' reaches -0.1 to -0.1, .* are size and offset in another order"),
        ({"size": 120.0}, "output 'size' reaches 120 to 120"),
    ],
)
def test_numbers_that_cannot_mean_what_their_role_says(tmp_path: Path, outputs: dict[str, float], message: str) -> None:
    values = {"score": 0.3, "size": 0.3, "offset": 0.5, **outputs}
    with pytest.raises(UsageError, match=message):
        check_ranges(recipe(tmp_path), {name: np.full((1, 1, 2, 2), value) for name, value in values.items()})


def test_sigmoid_that_was_applied_twice_is_doubted(tmp_path: Path) -> None:
    twice = 1 / (1 + np.exp(-np.random.default_rng(0).random((1, 1, 8, 8))))
    assert "is the sigmoid applied twice?" in check_ranges(recipe(tmp_path), {"score": twice})


def test_missing_sigmoid_is_found_at_export_and_added_by_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.onnx", Head(sigmoid=False))
    recipe(tmp_path)
    request = ExportRequest(str(tmp_path / "mine.toml"), "onnx", onnx=(path,), output=tmp_path / "bundle")
    with pytest.raises(UsageError, match=r'write activation = "sigmoid"|does the sigmoid miss'):
        export(request)
    assert not (tmp_path / "bundle").exists()
    sigmoid = {"activation": "sigmoid"}
    outputs = {"score": {"source": 0, **sigmoid}, "size": {"source": 1, **sigmoid}, "offset": {"source": 2}}
    assert differences(read_given(recipe(tmp_path, outputs=outputs), [path], "onnx")) < 1e-5


def split(model: Path, folder: Path) -> tuple[Path, Path]:
    """The file cut in two behind the product of both crops."""
    graph = onnx.load(model).graph
    middle = next(node.output[0] for node in graph.node if node.op_type == "Mul")
    onnx.utils.extract_model(str(model), str(folder / "trunk.onnx"), ["z", "x"], [middle])
    outputs = [value.name for value in graph.output]
    onnx.utils.extract_model(str(model), str(folder / "head.onnx"), [middle], outputs)
    return folder / "trunk.onnx", folder / "head.onnx"


def test_two_files_are_joined(model: Path, tmp_path: Path) -> None:
    trunk, head = split(model, tmp_path)
    middle = onnx.load(head).graph.input[0].name
    step = {
        "files": ["trunk", "head"],
        "links": {f"head/{middle}": f"trunk/{middle}"},
        "inputs": {"template": {"source": "trunk/z", **IMAGENET}, "search": {"source": "trunk/x", **IMAGENET}},
        "outputs": {role: {"source": f"head/{role}_map"} for role in ("score", "size", "offset")},
    }
    both = recipe(tmp_path, drop=("inputs", "outputs"), onnx={"step": step})
    joined = read_given(both, [trunk, head], "onnx")
    assert joined.published is not joined.shipped
    assert differences(joined) < 1e-5
    whole = read_given(recipe(tmp_path), [model], "onnx")
    sample = noise_sample(whole.shipped)
    for a, b in ((joined.shipped, whole.shipped),):
        ours, theirs = (chained(g, torch_runner(g), sample)["step"]["out"] for g in (a, b))
        for role, value in theirs.items():
            np.testing.assert_allclose(ours[role], value, rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match=r"made of 2 files \(trunk, head\), given 1: give --onnx trunk\.onnx"):
        read_given(both, [trunk], "onnx")


def test_graph_is_split_at_a_named_tensor(model: Path, tmp_path: Path) -> None:
    """The template's features are made once where a file computes them in every frame."""
    feature = next(n.output[0] for n in onnx.load(model).graph.node if n.op_type == "ReduceMean")
    graphs = {
        "template": {
            "inputs": {"template": {"source": "z", **IMAGENET}},
            "outputs": {"features": {"source": feature}},
        },
        "step": {
            "inputs": {"search": {"source": "x", **IMAGENET}, "features": {"source": feature}},
            "outputs": {role: {"source": f"{role}_map"} for role in ("score", "size", "offset")},
        },
    }
    given = read_given(recipe(tmp_path, drop=("inputs", "outputs"), onnx=graphs), [model], "onnx")
    assert [graph.role for graph in given.shipped] == ["init", "step"]
    whole = read_given(recipe(tmp_path), [model], "onnx")
    sample = noise_sample(whole.shipped)
    ours, theirs = (chained(g, torch_runner(g), sample)["step"]["out"] for g in (given.shipped, whole.shipped))
    for role, value in theirs.items():
        np.testing.assert_allclose(ours[role], value, rtol=0, atol=1e-6)


def test_external_data_lies_beside_the_file_or_is_missed_by_name(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    onnx.save(onnx.load(model), path, save_as_external_data=True, location="large.bin", size_threshold=0)
    assert differences(read_given(recipe(tmp_path), [path], "onnx")) < 1e-5
    (tmp_path / "large.bin").unlink()
    with pytest.raises(CheckpointError, match=r"large\.onnx.*large\.bin"):
        read_given(recipe(tmp_path), [path], "onnx")


def test_torchscript_is_told_the_way(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.ReLU()), str(tmp_path / "mine.pt"))
    with pytest.raises(CheckpointError, match=r"mine\.pt is a zip, as files of PyTorch .* torch\.onnx\.export"):
        read_given(recipe(tmp_path), [tmp_path / "mine.pt"], "onnx")


def test_masks_are_filled_from_the_recipe(model: Path, tmp_path: Path) -> None:
    changed = onnx.load(model)
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, CELLS, CELLS])
    changed.graph.input.append(mask)
    score = next(node for node in changed.graph.node if "score_map" in node.output)
    score.output[0] = "unmasked"
    changed.graph.node.append(helper.make_node("Mul", ["unmasked", "mask"], ["score_map"]))
    path = tmp_path / "masked.onnx"
    onnx.save(changed, path)
    given = read_given(recipe(tmp_path, constants={"mask": 1.0}), [path], "onnx")
    assert [t.name for t in given.shipped[0].inputs] == ["template", "search"]
    assert differences(given) < 1e-5


@pytest.mark.parametrize(
    ("form", "written"),
    [("cxcywh", [0.5, 0.4, 0.2, 0.1]), ("xyxy", [0.4, 0.35, 0.6, 0.45]), ("xywh", [0.4, 0.35, 0.2, 0.1])],
)
@pytest.mark.parametrize("shape", [(1, 4), (4,), (1, 1, 4), (1, 3, 4)])
def test_boxes_of_every_form_become_centre_and_size(
    tmp_path: Path, form: str, written: list[float], shape: tuple[int, ...]
) -> None:
    value = np.broadcast_to(np.float32(written) * 320, shape).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["boxes", "nothing"], ["coord"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SEARCH, SEARCH])],
        [helper.make_tensor_value_info("coord", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, "boxes"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    path = tmp_path / "box.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)
    found = recipe(
        tmp_path,
        family="box",
        inputs={"search": {"source": "x"}},
        outputs={"box": {"source": "coord", "format": form, "divisor": 320.0}},
    )
    given = read_given(found, [path], "onnx")
    out = chained(given.shipped, torch_runner(given.shipped), noise_sample(given.shipped))["step"]["out"]["box"]
    np.testing.assert_allclose(out, [0.5, 0.4, 0.2, 0.1], rtol=0, atol=1e-6)
    assert differences(given) < 1e-6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[inputs.search]\nsource = 'x'\n", "belong together"),
        ("[constants]\nmask = 1.0\n", "belong together"),
        ("[onnx.template.inputs.search]\nsource='x'\n[onnx.template.outputs.f]\nsource='y'\n", "names every graph"),
        ("[inputs.search]\nsource = 'x'\nstd = [1, 0, 1]\n[outputs.score]\nsource='y'\n", "std finite and not 0"),
        ("[inputs.search]\nsource = 'x'\nlayout = 'hw'\n[outputs.score]\nsource='y'\n", "hw"),
        ("[inputs.search]\nsource = 'x'\ncolor = 'rgb'\n[outputs.score]\nsource='y'\n", "color"),
    ],
)
def test_sections_that_cannot_be_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("schema = 1\nname = 'bad'\nfamily = 'center'\n" + text + "[procedure]\nsearch_size = 64\n")
    with pytest.raises(EdgetrackError, match=re.escape(message)):
        find_recipe(str(path))


SHIPPED = [
    "avtrack_box", "hit_256", "lighttrack", "litetrack", "mixformerv2_s", "nanotrack_v2_onnx", "ocean",
    "ostrack_256", "ostrack_384", "stark_lightning", "sutrack_t224", "vittrack",
]  # fmt: skip


def public_file(path: Path, graph: Any, sizes: Sizes, made: dict[str, tuple[int, ...]], family: str) -> None:
    """A file with a public tracker's inputs and outputs, that computes nothing of use."""
    inputs, nodes, parts = [], [], []
    for index, (role, given) in enumerate(graph.inputs.items()):
        kind = TensorProto.FLOAT
        if role in ("search", "template", "online_template", "templates"):
            shape = given.shape(sizes.of(role))
        elif role.endswith("_mask"):
            shape, kind = (1, sizes.of(role), sizes.of(role)), TensorProto.BOOL
        else:
            shape = made.get(role, (1, 2, 4) if sizes.template == 112 else (1, 4))
        inputs.append(helper.make_tensor_value_info(given.source, kind, shape))
        nodes.append(helper.make_node("Cast", [given.source], [f"float{index}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceMean", [f"float{index}"], [f"mean{index}"], keepdims=0))
        parts.append(f"mean{index}")
    nodes += [helper.make_node("Sum", parts, ["sum"]), helper.make_node("Sigmoid", ["sum"], ["share"])]
    maps = {"score": (1, 1, 16, 16), "size": (1, 2, 16, 16), "offset": (1, 2, 16, 16), "reg": (1, 4, 16, 16)}
    shapes = maps | {"box": (1, 4)} | ({"score": (1,)} if family == "box" else {})
    outputs, constants = [], []
    for index, (role, given) in enumerate(graph.outputs.items()):
        name = given.source if isinstance(given.source, str) else f"unnamed{index}"
        shape = shapes.get(role, (1, 8, 4))
        made[role] = shape
        constants.append(numpy_helper.from_array(np.ones(shape, np.float32), f"ones{index}"))
        nodes.append(helper.make_node("Mul", [f"ones{index}", "share"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    model = helper.make_graph(nodes, "public", inputs, outputs, constants)
    onnx.save(helper.make_model(model, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "nanotrack_v2_onnx"])
def test_recipes_that_ship_take_files_with_the_public_names(name: str, tmp_path: Path) -> None:
    found = find_recipe(name)
    sizes = Sizes(int(found.procedure["search_size"]), int(found.procedure["template_size"]))
    paths, made = [], dict[str, tuple[int, ...]]()
    for graph in found.given.values():
        paths.append(tmp_path / f"{graph.files[0]}.onnx")
        public_file(paths[-1], graph, sizes, made, found.family_name)
    given = read_given(found, paths, "onnx")
    assert given.shipped[-1].name == "step"
    assert differences(given) < 1e-5


def test_every_recipe_from_onnx_that_ships_is_tried_here() -> None:
    assert [name for name in recipe_names() if find_recipe(name).given] == SHIPPED


def test_flops_are_pytorchs(model: Path, tmp_path: Path) -> None:
    given = read_given(recipe(tmp_path), [model], "onnx")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        Head()(torch.zeros(1, 3, TEMPLATE, TEMPLATE), torch.zeros(1, 3, SEARCH, SEARCH))
    assert count_flops(given.shipped[0]) == counter.get_total_flops()
