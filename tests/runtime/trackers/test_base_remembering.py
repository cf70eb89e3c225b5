"""Trackers that remember, in small configurations on every target: bundles, boxes, memory, hostile inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from edgetrack.bundle import open_bundle
from edgetrack.cli.main import app
from edgetrack.errors import BundleError, InvalidFrameError, SourceError, SourceInterruptedError, UsageError
from edgetrack.media import open_source
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.frames import PairedSource, with_stand_in
from edgetrack.runtime.prompt import stand_in_text
from edgetrack.runtime.session import Tracker, load
from edgetrack.runtime.trackers.base import find_family

TRACKERS = ["dmtrack", "spmtrack_b", "atstrack", "dastm"]
SCENE = "synthetic:drift?frames=14&size=160x120"
each_tracker = pytest.mark.parametrize("name", TRACKERS)


def run(tracker: Tracker, count: int = 14) -> list[Any]:
    source = open_source(SCENE)
    assert source.ground_truth is not None
    if tracker.attributes:
        tracker.set_text(stand_in_text(tracker.attributes))
    found = []
    for index, frame in enumerate(source):
        image = with_stand_in(frame, tracker.modalities)
        if index == 0:
            tracker.init(image, source.ground_truth[0])
        elif index < count:
            found.append(tracker.update(image))
    return found


def changed(path: Path, **procedure: Any) -> Tracker:
    """A tracker on the bundle with other numbers in its procedure."""
    bundle = open_bundle(path)
    manifest = msgspec.structs.replace(bundle.manifest, procedure={**bundle.manifest.procedure, **procedure})
    return Tracker(dataclasses.replace(bundle, manifest=manifest), BackendOptions())


@each_tracker
def test_targets_give_the_same_boxes_twice(exported_tiny: Callable[..., Path], name: str) -> None:
    boxes = {}
    for target in ("torch", "onnx", "openvino"):
        with load(exported_tiny(name, target), threads=1) as tracker:
            first, second = run(tracker), run(tracker)
        assert [r.box for r in first] == [r.box for r in second]
        boxes[target] = np.array([r.box for r in first[:6]])
    # Until a near tie flips: small networks without training are full of them.
    np.testing.assert_allclose(boxes["onnx"][0], boxes["torch"][0], rtol=0, atol=0.02)
    np.testing.assert_allclose(boxes["openvino"][0], boxes["torch"][0], rtol=0, atol=0.02)


@each_tracker
def test_ways_of_keeping_agree_while_all_is_kept(exported_tiny: Callable[..., Path], name: str) -> None:
    found = {}
    for memory in ("exact", "exact:disk", "bounded:20"):
        with load(exported_tiny(name, "onnx"), threads=1, memory=memory) as tracker:
            found[memory] = [r.box for r in run(tracker)]
            assert tracker.manifest.procedure["memory"] == memory
    assert found["exact"] == found["exact:disk"] == found["bounded:20"]


@each_tracker
def test_a_bound_is_kept(exported_tiny: Callable[..., Path], name: str) -> None:
    with load(exported_tiny(name, "onnx"), threads=1, memory="bounded:4") as tracker:
        run(tracker)
        bank = tracker.procedure.bank
        assert bank.count == 14
        assert 2 * bank.estimate.entry_bytes <= bank.nbytes <= 4 * bank.estimate.entry_bytes


@each_tracker
def test_memory_of_the_past_changes_what_is_fed(exported_tiny: Callable[..., Path], name: str) -> None:
    with load(exported_tiny(name, "onnx"), threads=1) as tracker:
        run(tracker, 10)
        step = tracker.graphs["step"]
        past = step.inputs["templates"] if "templates" in step.inputs else step.inputs["memory"]
        templates = [past[i].copy() for i in range(3)]
        assert not np.array_equal(templates[0], templates[1])
        assert not np.array_equal(templates[1], templates[2])


@each_tracker
@pytest.mark.parametrize("memory", ["", "bounded:1", "disk"])
def test_unknown_ways_of_keeping_are_refused(exported_tiny: Callable[..., Path], name: str, memory: str) -> None:
    with pytest.raises(UsageError, match="bounded:M"):
        load(exported_tiny(name, "onnx"), memory=memory)


def test_a_tracker_without_memory_says_so(exported: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="keeps no past frames"):
        load(exported("onnx"), memory="exact")


@each_tracker
@pytest.mark.parametrize(
    "procedure",
    [
        {"memory": "all"},
        {"schedule": "newest:3"},
        {"schedule": "nearest:9"},
        {"schedule": 3},
        {"lost_below": float("nan")},
        {"search_size": 64},
        {"template_factor": 0.0},
        {"extra": 1},
    ],
)
def test_hostile_settings_are_refused(exported_tiny: Callable[..., Path], name: str, procedure: Any) -> None:
    with pytest.raises(BundleError):
        changed(exported_tiny(name, "onnx"), **procedure)


@each_tracker
def test_a_graph_that_fails_keeps_the_last_box(
    exported_tiny: Callable[..., Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(exported_tiny(name, "onnx"), threads=1) as tracker:
        before = run(tracker, 5)[-1]
        step = tracker.graphs["step"]
        monkeypatch.setattr(step, "run", lambda: [output.fill(np.nan) for output in step.outputs.values()])
        frame = with_stand_in(next(iter(open_source(SCENE))), tracker.modalities)
        found = tracker.update(frame)
        assert found.lost
        assert found.box == before.box
        assert tracker.procedure.bank.count == 6
        assert all(np.isfinite(values).all() for values in step.inputs.values())


def test_a_box_without_area_is_not_followed(
    exported_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(exported_tiny("spmtrack_b", "onnx"), threads=1) as tracker:
        before = run(tracker, 3)[-1]
        step = tracker.graphs["step"]

        def outside() -> None:
            step.outputs["score"].fill(9)
            step.outputs["boxes"].fill(-50)

        monkeypatch.setattr(step, "run", outside)
        found = tracker.update(next(iter(open_source(SCENE))))
        assert found.lost
        assert "no area" in str(found.reason)
        assert found.box == before.box


def test_second_images_are_asked_for_and_checked(exported_tiny: Callable[..., Path]) -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    with load(exported_tiny("dmtrack", "onnx"), threads=1) as tracker:
        with pytest.raises(InvalidFrameError, match="--aux PATH"):
            tracker.init(frame, (20, 20, 30, 30))
        with pytest.raises(InvalidFrameError, match="aux is 80x60"):
            tracker.init(frame, (20, 20, 30, 30), frame[:60, :80])
        tracker.init(frame, (20, 20, 30, 30), np.arange(19200, dtype=np.uint16).reshape(120, 160))
        with pytest.raises(InvalidFrameError, match="given one"):
            tracker.update(frame)
        assert tracker.update(frame, frame[..., 0]).box.w > 0
    single = load(exported_tiny("spmtrack_b", "onnx"), threads=1)
    with single, pytest.raises(InvalidFrameError, match="given two"):
        single.init(frame, (20, 20, 30, 30), frame)
    single = load(exported_tiny("spmtrack_b", "onnx"), threads=1)
    with single, pytest.raises(InvalidFrameError, match="given two"):
        single.init(np.concatenate((frame, frame), axis=2), (20, 20, 30, 30))


def test_two_arrays_and_one_of_six_channels_are_the_same(exported_tiny: Callable[..., Path]) -> None:
    rng = np.random.default_rng(2)
    pairs = [rng.integers(0, 256, (120, 160, 6), np.uint8) for _ in range(3)]
    found = []
    for apart in (False, True):
        with load(exported_tiny("dmtrack", "onnx"), threads=1) as tracker:
            given = [(p[..., :3], p[..., 3:]) if apart else (p, None) for p in pairs]
            tracker.init(given[0][0], (40, 40, 30, 30), given[0][1])
            found.append([tracker.update(*each).box for each in given[1:]])
    assert found[0] == found[1]


def test_the_released_schedule_forgets_what_it_never_asks_for(exported_tiny: Callable[..., Path]) -> None:
    with changed(exported_tiny("dmtrack", "onnx"), schedule="nearest:3") as tracker:
        run(tracker)
        assert tracker.procedure.bank.nbytes == 3 * tracker.procedure.bank.estimate.entry_bytes


@pytest.fixture
def pair_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five colour images with boxes, five depth images of 16 bits."""
    colour, depth = tmp_path / "colour", tmp_path / "depth"
    colour.mkdir()
    depth.mkdir()
    for index in range(5):
        cv2.imwrite(str(colour / f"{index}.png"), np.full((120, 160, 3), 10 * index, np.uint8))
        plane = np.add.outer(np.arange(120), np.arange(160)) * 30 + index
        cv2.imwrite(str(depth / f"{index}.png"), plane.astype(np.uint16))
    (colour / "groundtruth.txt").write_text("40,40,30,30\n" * 5)
    return colour, depth


def test_paired_sources_keep_the_depth_of_their_files(pair_folders: tuple[Path, Path]) -> None:
    colour, depth = map(open_source, pair_folders)
    frames = list(PairedSource(colour, depth))
    assert [f.shape for f in frames] == [(120, 160, 6)] * 5
    # 16 bits: stretched over the whole colour map, not cut to the upper 8 bits of which there are few.
    assert len(np.unique(frames[0][..., 3:].reshape(-1, 3), axis=0)) > 200


def test_pairs_of_other_lengths_or_sizes_are_named(pair_folders: tuple[Path, Path]) -> None:
    colour, depth = pair_folders
    with pytest.raises(SourceError, match=r"5 frames, .* 3"):
        PairedSource(open_source(colour), open_source("synthetic:drift?frames=3"))
    other = PairedSource(open_source(colour), open_source("synthetic:drift?frames=5"))
    with pytest.raises(SourceInterruptedError, match="frame 0 of colour and synthetic:drift: aux is"):
        next(iter(other))
    (depth / "4.png").write_bytes(b"")
    with pytest.raises(SourceInterruptedError, match="empty"):
        list(PairedSource(open_source(colour), open_source(depth)))


def test_track_takes_second_images(exported_tiny: Callable[..., Path], pair_folders: tuple[Path, Path]) -> None:
    bundle, (colour, depth) = str(exported_tiny("dmtrack", "onnx")), map(str, pair_folders)
    result = CliRunner().invoke(app, ["track", bundle, colour, "--aux", depth, "--memory", "bounded:3", "--json"])
    assert result.exit_code == 0, result.output
    assert '"frames": 5' in result.output


def test_track_says_which_tracker_takes_which_images(
    exported_tiny: Callable[..., Path], pair_folders: tuple[Path, Path]
) -> None:
    colour, depth = map(str, pair_folders)
    result = CliRunner().invoke(app, ["track", str(exported_tiny("dmtrack", "onnx")), colour])
    assert "--aux PATH" in result.output
    single = str(exported_tiny("spmtrack_b", "onnx"))
    result = CliRunner().invoke(app, ["track", single, colour, "--aux", depth])
    assert "takes one image a frame, given two" in result.output


def test_eval_refuses_a_tracker_of_two_images_before_anything_runs(
    exported_tiny: Callable[..., Path], pair_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle, colour = str(exported_tiny("dmtrack", "onnx")), str(pair_folders[0])
    result = CliRunner().invoke(app, ["eval", bundle, colour, "-o", str(tmp_path / "runs")])
    assert result.exit_code != 0
    assert "takes two images a frame" in result.output
    assert "give a data set of pairs (docs/eval.md lists" in " ".join(result.output.split())
    assert not (tmp_path / "runs").exists()


@each_tracker
def test_inspect_estimates_the_memory(exported_tiny: Callable[..., Path], name: str) -> None:
    bundle = exported_tiny(name, "onnx")
    with open_bundle(bundle) as opened:
        estimate = find_family(name).memory_estimate(opened.manifest)
    assert estimate is not None
    with load(bundle, threads=1) as tracker:
        run(tracker)
        assert tracker.procedure.bank.nbytes == estimate.nbytes(13)
    result = CliRunner().invoke(app, ["inspect", str(bundle)], env={"COLUMNS": "200"})
    assert "kB an entry" in result.output
