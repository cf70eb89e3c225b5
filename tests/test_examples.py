"""The notebook runs, and examples/cpp finds the boxes that edgetrack finds, in both back ends and all of its families.

The programs are built by `make cpp` (and by continuous integration); without them their tests skip.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgetrack
from edgetrack.box import Box
from edgetrack.bundle import BundleWriter, Manifest, open_bundle, write_npz
from edgetrack.bundle.manifest import GraphInfo, TensorInfo, WeightsInfo
from edgetrack.media import load_scene
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import run_graph
from tests.builders import tensor

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "out" / "cpp"
SEARCH, TEMPLATE, CELL = 128, 64, 8
CELLS = SEARCH // CELL
FAMILIES = ("center", "box", "distances")
TARGETS = ("onnx", "openvino")
PROCEDURES: dict[str, dict[str, Any]] = {
    "center": {"template_factor": 2.0, "search_factor": 4.0, "lost_below": 0.4, "target_box": "xyxy"},
    "box": {"template_factor": 2.0, "search_factor": 4.0, "lost_below": 0.05, "on_lost": "hold"},
    "distances": {"stride": CELL, "window_influence": 0.3, "penalty_k": 0.06, "size_rate": 0.4},
}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """A target whose program is built, newer than its sources."""
    built = BUILT / f"edgetrack-{request.param}"
    sources = [path for path in (ROOT / "examples" / "cpp").rglob("*") if path.suffix in (".cpp", ".hpp", ".txt")]
    if not built.is_file() or built.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        pytest.skip(f"C++ EXAMPLE NOT BUILT: no {built} that is newer than its sources; type: make cpp")
    return str(request.param)


def _cpp(target: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(BUILT / f"edgetrack-{target}"), *map(str, words), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


class _Net:
    """An ONNX graph in the making: nodes by what they compute, constants by their values."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, kind: str, *inputs: Any, to: str = "", **attributes: Any) -> str:
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        output = to or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return str(self.constants[-1].name)

    def model(self, name: str, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> Any:
        kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
        sides = [
            [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in side] for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, name, *sides, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _template() -> tuple[GraphInfo, Any]:
    """The mean colour of the middle of the template."""
    net, quarter = _Net(), TEMPLATE // 4
    ends = [TEMPLATE - quarter] * 2
    middle = net("Slice", _as_float(net, "template"), [quarter] * 2, ends, [0, 1])
    net("ReduceMean", middle, to="colour", axes=[0, 1], keepdims=1)
    inputs, outputs = [tensor("template", TEMPLATE, TEMPLATE, 3, dtype="uint8")], [tensor("colour", 1, 1, 3)]
    return _info("template", "init", inputs, outputs), net.model("template", inputs, outputs)


def _as_float(net: _Net, name: str) -> str:
    output = f"{name}_float"
    net.nodes.append(helper.make_node("Cast", [name], [output], to=TensorProto.FLOAT))
    return output


def _info(name: str, role: Any, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> GraphInfo:
    return GraphInfo(name=name, role=role, file=f"{name}.onnx", inputs=tuple(inputs), outputs=tuple(outputs))


def _step(family: str) -> tuple[GraphInfo, Any]:
    """A cell scores by how near its colour is to the template's; a tracker without weights, which follows colour."""
    net, maps = _Net(), (1, 1, CELLS, CELLS)
    inputs = [tensor("search", SEARCH, SEARCH, 3, dtype="uint8"), tensor("colour", 1, 1, 3)]
    away = net("Sub", _as_float(net, "search"), "colour")
    error = net("ReduceMean", net("Mul", away, away), axes=[2], keepdims=0)
    if family == "center":
        inputs += [tensor("search_mask", SEARCH, SEARCH, dtype="uint8"), tensor("target_box", 1, 4)]
        error = net("Add", error, net("Mul", _as_float(net, "search_mask"), 500.0))
    pool = {"kernel_shape": [CELL, CELL], "strides": [CELL, CELL]}
    error = net("AveragePool", net("Reshape", error, [1, 1, SEARCH, SEARCH]), **pool)
    score = net("Exp", net("Mul", error, -1e-3), to="" if family == "box" else "score")
    if family == "center":
        sides = net("Sub", net("Slice", "target_box", [2], [4], [1]), net("Slice", "target_box", [0], [2], [1]))
        sides = net("Mul", net("Reshape", sides, [1, 2, 1, 1]), net("Add", net("Mul", score, 0.1), 0.5))
        net("Identity", sides, to="size")
        net("Concat", net("Mul", score, 0.5), net("Mul", score, 0.25), to="offset", axis=1)
        outputs = [tensor("score", *maps), tensor("size", 1, 2, CELLS, CELLS), tensor("offset", 1, 2, CELLS, CELLS)]
    elif family == "box":
        places = (np.arange(CELLS, dtype=np.float32) + 0.5) / CELLS
        grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
        weights = net("Softmax", net("Mul", net("Reshape", score, [1, -1]), 20.0), axis=1)
        middle = net("Reshape", net("MatMul", weights, grid), [2])
        net("Concat", middle, np.array([0.25, 0.3], np.float32), to="box", axis=0)
        net("Reshape", net("ReduceMax", score, keepdims=0), [1], to="score")
        outputs = [tensor("box", 4), tensor("score", 1)]
    else:
        edges = [net("Add", net("Mul", score, gain), 14.0) for gain in (4.0, 3.0, 5.0, 2.0)]
        net("Concat", *edges, to="reg", axis=1)
        outputs = [tensor("score", *maps), tensor("reg", 1, 4, CELLS, CELLS)]
    return _info("step", "step", inputs, outputs), net.model("step", inputs, outputs)


def _write(path: Path, family: str, target: str, **changes: Any) -> Path:
    """A bundle of the colour tracker, with a record of what ONNX Runtime makes of noise."""
    graphs, golden = [], {}
    rng = np.random.default_rng(0)
    with BundleWriter(path) as writer:
        for info, model in (_template(), _step(family)):
            onnx.save(model, writer.folder / info.file)
            opened = _opened(info, writer.folder / info.file)
            fed = {
                t.name: (rng.integers(0, 2 if "mask" in t.name else 256, t.shape) if t.dtype == "uint8" else
                         rng.random(t.shape)).astype(t.dtype)
                for t in info.inputs
            }  # fmt: skip
            for side, arrays in (("in", fed), ("out", run_graph(opened, fed))):
                golden |= {f"0/{info.name}/{side}/{name}": value for name, value in arrays.items()}
            opened.close()
            graphs.append(_converted(info, writer.folder) if target == "openvino" else info)
        write_npz(writer.folder / "golden.npz", golden)
        limits = {"atol": 1e-5, "rtol": 1e-5}
        (writer.folder / "parity.json").write_text(json.dumps({"comparisons": [limits]}))
        manifest = Manifest(
            name=path.name,
            tracker="colour",
            family=family,
            title="Colour",
            target=target,
            precision="fp32",
            weights=WeightsInfo(origin="custom"),
            graphs=tuple(graphs),
            procedure={"template_size": TEMPLATE, "search_size": SEARCH, **PROCEDURES[family], **changes},
        )
        return writer.commit(manifest)


def _opened(info: GraphInfo, file: Path) -> Any:
    from edgetrack.runtime.backends.onnxruntime.backend import OnnxRuntimeGraph

    return OnnxRuntimeGraph(info, file, BackendOptions(threads=1))


def _converted(info: GraphInfo, folder: Path) -> GraphInfo:
    import msgspec
    import openvino

    file = folder / info.file
    openvino.save_model(openvino.Core().read_model(file), folder / f"{info.name}.xml", compress_to_fp16=False)
    file.unlink()
    return msgspec.structs.replace(info, file=f"{info.name}.xml")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Box]:
    """Images of a scene whose target leaves the middle, and its first box."""
    folder, scene = tmp_path_factory.mktemp("clip"), load_scene("drift")
    for index in range(12):
        cv2.imwrite(str(folder / f"{index:03d}.png"), scene.frame(3 * index))
    box = scene.box(0)
    assert box is not None
    return folder, box


def _boxes_of_both(bundle: Path, target: str, folder: Path, box: Box, out: Path) -> tuple[Any, Any]:
    """Rows x, y, w, h, score, lost of the frames after the first: C++'s and Python's."""
    text = ",".join(map(str, box))
    done = _cpp(target, "track", bundle, folder, "--box", text, "-o", out)
    assert done.returncode == 0, done.stderr
    found = np.loadtxt(out, delimiter=",", skiprows=2)[:, 1:7]
    images = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    with edgetrack.load(bundle, threads=1) as tracker:
        tracker.init(images[0], box)
        results = [tracker.update(image) for image in images[1:]]
    return found, np.array([[*r.box, r.score, r.lost] for r in results])


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_scores_and_losses_are_edgetracks(
    family: str, target: str, clip: tuple[Path, Box], tmp_path: Path
) -> None:
    bundle = _write(tmp_path / f"colour-{family}", family, target)
    found, expected = _boxes_of_both(bundle, target, *clip, tmp_path / "boxes.csv")
    assert np.ptp(expected[:, 0]) > 1  # it moved
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("family", "start"),
    [
        ("center", (-20.0, -10.0, 60.0, 50.0)),
        ("center", (0.5, 0.5, 5000.0, 5000.0)),
        ("distances", (630.5, 340.5, 40.0, 60.0)),
    ],
)
def test_squares_that_leave_the_frame_are_cut_alike(
    start: tuple[float, ...], family: str, target: str, clip: tuple[Path, Box], tmp_path: Path
) -> None:
    bundle = _write(tmp_path / f"colour-{family}", family, target)
    found, expected = _boxes_of_both(bundle, target, clip[0], Box(*start), tmp_path / "boxes.csv")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_boxes_of_whole_pixels_are_edgetracks(target: str, clip: tuple[Path, Box], tmp_path: Path) -> None:
    whole = {"crop": "whole", "state": "whole", "clip": False, "map_back": "root", "reports": "windowed"}
    bundle = _write(tmp_path / "colour-whole", "center", target, **whole)
    found, expected = _boxes_of_both(bundle, target, *clip, tmp_path / "boxes.csv")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_are_compared_with_the_record(family: str, target: str, tmp_path: Path) -> None:
    bundle = _write(tmp_path / f"colour-{family}", family, target)
    done = _cpp(target, "verify", bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1 + {"center": 3, "box": 2, "distances": 2}[family]


def test_a_record_that_differs_is_a_failure(target: str, tmp_path: Path) -> None:
    bundle = _write(tmp_path / "colour-box", "box", target)
    with open_bundle(bundle) as opened, np.load(opened.path("golden.npz")) as record:
        arrays = {key: record[key] for key in record.files}
    arrays["0/step/out/box"][2] += 1e-3
    _replace(bundle, "golden.npz", arrays)
    done = _cpp(target, "verify", bundle)
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines() if "FAIL" in line] == [["FAIL", "step/box"]]


def _replace(bundle: Path, file: str, arrays: dict[str, Any]) -> None:
    write_npz(bundle / file, arrays)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][file]["size"] = (bundle / file).stat().st_size
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"update": "interval", "update_interval": 5}, "renews its template"),
        ({"search_size": 64}, "no input search of the size"),
        ({"template_size": 32}, "does not suit the template's size"),
    ],
)
def test_what_it_does_not_do_is_said(
    changes: dict[str, Any], words: str, target: str, clip: tuple[Path, Box], tmp_path: Path
) -> None:
    bundle = _write(tmp_path / "colour", "center", target, **changes)
    done = _cpp(target, "track", bundle, clip[0], "--box", "1,2,30,40", "-o", tmp_path / "boxes.csv")
    assert done.returncode == 1
    assert words in done.stderr
    assert not (tmp_path / "boxes.csv").exists()


def test_damage_and_misuse_end_in_an_error(target: str, clip: tuple[Path, Box], tmp_path: Path) -> None:
    bundle, out = _write(tmp_path / "colour", "box", target), tmp_path / "boxes.csv"
    usual = ("track", bundle, clip[0], "-o", out)
    assert _cpp(target, *usual, "--box", "1,2,3").returncode == 2
    assert _cpp(target, *usual, "--surplus").returncode == 2
    assert "has no area" in _cpp(target, *usual, "--box", "1,2,0,5").stderr
    other = next(t for t in TARGETS if t != target)
    wrong = _write(tmp_path / "other", "box", other)
    assert f"is for {other}" in _cpp(target, "verify", wrong).stderr
    (file,) = bundle.glob("step.*[lx]")
    file.write_bytes(file.read_bytes()[:-1])
    assert "another size" in _cpp(target, *usual, "--box", "1,2,30,40").stderr
    (bundle / "manifest.json").write_text("{")
    assert "no manifest of schema 1" in _cpp(target, "verify", bundle).stderr


def _model_of_losses(bundle: Path, threshold: float, **weights: float) -> None:
    """Put one into a bundle that was written; two frames in a row change its state."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    shares = dict.fromkeys(("rate", "recall", "false_alarms", "auroc"), 0.5)
    lost = {"weights": weights, "bias": 1e-3, "threshold": threshold, "frames": 2, **shares, "bundle": "a", "data": []}
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "lost": lost}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_the_score_finds_edgetracks_losses(
    family: str, target: str, clip: tuple[Path, Box], tmp_path: Path
) -> None:
    bundle = _write(tmp_path / f"colour-{family}", family, target)
    _, plain = _boxes_of_both(bundle, target, *clip, tmp_path / "plain.csv")
    _model_of_losses(bundle, float(np.median(plain[:, 4])), score=1.0)
    found, expected = _boxes_of_both(bundle, target, *clip, tmp_path / "boxes.csv")
    assert 0 < expected[:, 5].mean() < 1  # lost in some frames
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_a_model_of_more_than_the_score_is_refused(target: str, tmp_path: Path) -> None:
    bundle = _write(tmp_path / "colour", "box", target)
    _model_of_losses(bundle, 0.5, score=1.0, jump=-1.0)
    assert "by a model of several features" in _cpp(target, "verify", bundle).stderr


NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
# As Jupyter runs them: one namespace, one cell after the other.
RUN_CELLS = """
import contextlib, io, json, sys
names = {"__name__": "__main__"}
for cell in json.load(sys.stdin)["cells"]:
    if cell["cell_type"] == "code":
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        print(json.dumps(out.getvalue()), flush=True)
"""


def _code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_one_and_has_been_run() -> None:
    book = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (book["nbformat"], book["metadata"]["kernelspec"]["language"]) == (4, "python")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for number, cell in enumerate(_code_cells(), 1):
        compile("".join(cell["source"]), cell["id"], "exec")
        assert cell["execution_count"] == number
        assert cell["outputs"][0]["text"]
    links = re.findall(r"\]\(([^)]+)\)", NOTEBOOK.read_text("utf-8"))
    assert links
    assert all((NOTEBOOK.parent / link).is_file() for link in links)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_notebooks_cells_print_what_stands_in_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_CELLS],
        input=NOTEBOOK.read_text("utf-8"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figure = re.compile(r"-?\d[\d.e+-]*")
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    stored = ["".join(cell["outputs"][0]["text"]) for cell in _code_cells()]
    assert [figure.sub("N", text) for text in printed] == [figure.sub("N", text) for text in stored]


@pytest.mark.full
@pytest.mark.parametrize("tracker", ["smat", "nanotrack_v2"])
def test_boxes_on_a_real_sequence_are_edgetracks(
    tracker: str, target: str, exported: Callable[..., Path], shared: Path, pilot_weights: Path, tmp_path: Path
) -> None:
    weights = {"smat": pilot_weights, "nanotrack_v2": shared / "data/peers/nanotrack/nanotrackv2.pth"}[tracker]
    bundle = exported(target, str(weights), tracker)
    assert _cpp(target, "verify", bundle).returncode == 0
    folder = shared / "data" / "eval" / "otb_Crossing"
    box = Box.parse((folder / "groundtruth.txt").read_text().split()[0])
    found, expected = _boxes_of_both(bundle, target, folder / "img", box, tmp_path / "boxes.csv")
    np.testing.assert_allclose(found[:, :4], expected[:, :4], rtol=0, atol=1e-3)
