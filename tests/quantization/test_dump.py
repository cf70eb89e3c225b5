"""Dumped calibration inputs: what the graphs are fed, in each tool's layout, and where each sample comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.cli.calibrate import DumpKind
from edgetrack.errors import UsageError
from edgetrack.quantization.calibration import CalibrationSources, Item, Part, make_set, to_toml
from edgetrack.quantization.dump import FORMATS, LIST_FILE, CalibrationDump, dump
from edgetrack.quantization.replay import replay
from edgetrack.runtime.session import load
from tests.conftest import export_quietly

SCENES = "synthetic:drift?frames=9&size=320x240"
# Two targets of one clip, their frames out of order: files follow the frames.
ITEMS = (
    Item("drift", 0, (60.0, 90.0, 40.0, 30.0), 6, (70.0, 90.0, 40.0, 30.0)),
    Item("drift", 2, (64.0, 92.0, 40.0, 30.0), 5, (66.0, 92.0, 40.0, 30.0)),
    Item("drift", 0, (60.0, 90.0, 40.0, 30.0), 3, (64.0, 90.0, 44.0, 30.0)),
)


@pytest.fixture
def sources(tmp_path: Path) -> CalibrationSources:
    path = tmp_path / "set.toml"
    path.write_text(to_toml(make_set("mine", (Part(dataset=SCENES, items=ITEMS),))))
    return CalibrationSources((str(path),))


@pytest.fixture
def dumped(exported_tiny: Callable[..., Path], sources: CalibrationSources, tmp_path: Path) -> Callable[..., Any]:
    """dumped("npy") -> the folder, what it lists, and what the graphs are fed."""

    def make(kind: Any) -> tuple[Path, CalibrationDump, dict[str, Any]]:
        folder = tmp_path / kind
        with load(exported_tiny("smat", "onnx"), threads=1) as tracker:
            made = dump(tracker, sources, folder, kind)
            fed = replay(sources.choose(tracker.procedure, print), sources.clips, tracker.procedure, tracker.graphs)
        return folder, made, fed

    return make


def test_the_commands_formats_are_the_dumps() -> None:
    assert [kind.value for kind in DumpKind] == list(FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_file_is_listed_with_its_hash_and_samples_say_where_they_are_from(
    dumped: Callable[..., Any], kind: str
) -> None:
    folder, made, _ = dumped(kind)
    listed = json.loads((folder / LIST_FILE).read_text())
    there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del there[LIST_FILE]
    found = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in there.items()}
    assert found == {name: (info["size"], info["sha256"]) for name, info in listed["files"].items()}
    samples = listed["graphs"]["step"]["samples"]
    assert [(one["template_frame"], one["frame"], one["box"][0]) for one in samples] == [
        (0, 3, 64.0),
        (0, 6, 70.0),
        (2, 5, 66.0),
    ]
    assert [one["template_frame"] for one in listed["graphs"]["template"]["samples"]] == [0, 2]
    assert {one["dataset"] for one in samples} == {SCENES}
    assert made.set == "mine"


def test_npy_and_npz_hold_what_the_graphs_take(dumped: Callable[..., Any]) -> None:
    folder, _, fed = dumped("npy")
    for name, samples in fed.items():
        for number, sample in enumerate(samples):
            for key, value in sample.items():
                np.testing.assert_array_equal(np.load(folder / name / key / f"{number:06d}.npy"), value)
    stacked, _, _ = dumped("npz")
    with np.load(stacked / "step.npz") as arrays:
        assert arrays["search"].shape == (3, 128, 128, 3)
        np.testing.assert_array_equal(arrays["search"][1], fed["step"][1]["search"])


def test_rknn_gets_a_line_a_sample_and_crops_as_float_planes(dumped: Callable[..., Any]) -> None:
    folder, made, fed = dumped("rknn")
    lines = (folder / "step" / "dataset.txt").read_text().splitlines()
    assert len(lines) == 3
    order = [info.name for info in made.graphs["step"].inputs]
    for line, sample in zip(lines, fed["step"], strict=True):
        arrays = dict(zip(order, (np.load(folder / "step" / file) for file in line.split(" ")), strict=True))
        assert (arrays["search"].dtype, arrays["search"].shape) == (np.float32, (1, 3, 128, 128))
        np.testing.assert_array_equal(arrays["search"][0].transpose(1, 2, 0), sample["search"])
        np.testing.assert_array_equal(arrays["template_features"], sample["template_features"])


def test_qnn_gets_named_raw_floats(dumped: Callable[..., Any]) -> None:
    folder, _, fed = dumped("qnn")
    for line, sample in zip((folder / "step" / "input_list.txt").read_text().splitlines(), fed["step"], strict=True):
        entries = dict(entry.split(":=") for entry in line.split(" "))
        assert set(entries) == set(sample)
        for name, file in entries.items():
            np.testing.assert_array_equal(np.fromfile(folder / "step" / file, "<f4"), sample[name].reshape(-1))


def test_hailo_gets_stacks_with_channels_last_by_its_names_of_inputs(dumped: Callable[..., Any]) -> None:
    folder, made, fed = dumped("hailo")
    names = {info.name: info.written_as for info in made.graphs["step"].inputs}
    assert sorted(names.values()) == ["step/input_layer1", "step/input_layer2"]
    with np.load(folder / "step.npz") as arrays:
        features = arrays[names["template_features"]]
        np.testing.assert_array_equal(features.transpose(0, 3, 1, 2)[2], fed["step"][2]["template_features"][0])
        assert arrays[names["search"]].dtype == np.float32


def test_only_an_earlier_dump_is_replaced_and_a_failure_leaves_it(
    exported_tiny: Callable[..., Path], sources: CalibrationSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    with load(exported_tiny("smat", "onnx"), threads=1) as tracker:
        made = dump(tracker, sources, folder, "npz")
        with pytest.raises(UsageError, match="--overwrite replaces an earlier dump"):
            dump(tracker, sources, folder, "npz")
        before = (folder / LIST_FILE).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("edgetrack.quantization.dump.write_npz", _full_disk)
            with pytest.raises(Exception, match="No space left"):
                dump(tracker, sources, folder, "npz", overwrite=True)
        assert (folder / LIST_FILE).read_bytes() == before
        assert dump(tracker, sources, folder, "npz", overwrite=True) == made
        (tmp_path / "other").mkdir()
        with pytest.raises(UsageError, match="is no earlier dump"):
            dump(tracker, sources, tmp_path / "other", "npz", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "set.toml"]


def test_a_graph_of_several_targets_is_left_out(
    tiny_recipe: Callable[..., Path], sources: CalibrationSources, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    export_quietly(str(tiny_recipe("smat")), "onnx", "untrained", two, ("synthetic:drift?frames=2",), (1,), batch=2)
    with load(two, threads=1) as tracker:
        made = dump(tracker, sources, tmp_path / "out", "npz")
    assert set(made.graphs) == {"template", "step"}


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.full
def test_nncf_quantizes_with_what_was_dumped(dumped: Callable[..., Any], exported_tiny: Callable[..., Path]) -> None:
    from edgetrack.runtime.backends.openvino.backend import import_openvino

    folder, made, fed = dumped("npy")
    core = import_openvino().Core()
    import nncf

    files = [folder / "step" / info.name for info in made.graphs["step"].inputs]
    names = [info.name for info in made.graphs["step"].inputs]
    samples = [dict(zip(names, (np.load(file / f"{n:06d}.npy") for file in files), strict=True)) for n in range(3)]
    model = core.read_model(exported_tiny("smat", "onnx") / "step.onnx")
    quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=3, fast_bias_correction=True)
    kinds = [node.get_type_name() for node in quantized.get_ops()]
    assert kinds.count("FakeQuantize") > 20
    compiled = core.compile_model(quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    reference = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    a, b = (next(iter(one(fed["step"][0]).values())) for one in (compiled, reference))
    assert np.abs(a - b).max() < 0.5 * np.abs(b).max()
