"""DMTrack on real pairs of colour and infrared images: a virtual camera moves over each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgetrack.errors import InvalidFrameError, RecipeError
from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.runtime.session import Tracker, load

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
VIEW = 160
STEPS = 6


def pairs(shared: Path) -> list[Pair]:
    folder = shared / "data/rgbt"
    if not (folder / "rgb").is_dir():
        pytest.skip(f"REFERENCE FILES ABSENT: no folder {folder / 'rgb'}")
    names = sorted(path.name for path in (folder / "rgb").glob("*.jpg"))
    found: list[Any] = [(cv2.imread(str(folder / "rgb" / n)), cv2.imread(str(folder / "ir" / n), 0)) for n in names]
    assert len(found) == 20
    assert all(colour.shape[:2] == thermal.shape for colour, thermal in found)
    return found


def views(pair: Pair) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, ...]]]:
    """What the camera sees of both images while it moves, and where the middle of the scene is in its picture."""
    height, width = pair[1].shape
    for step in range(STEPS):
        x, y = (width - VIEW) // 2 + 4 * step, (height - VIEW) // 2 - 2 * step
        colour, thermal = (image[y : y + VIEW, x : x + VIEW] for image in pair)
        yield colour, thermal, (width / 2 - x - 20, height / 2 - y - 20, 40.0, 40.0)


def tracked(tracker: Tracker, pair: Pair) -> list[Any]:
    found = []
    for index, (colour, thermal, box) in enumerate(views(pair)):
        if index == 0:
            tracker.init(colour, box, thermal)
        else:
            found.append(tracker.update(colour, thermal))
    return found


def test_pairs_are_tracked_and_both_images_count(exported_tiny: Callable[..., Path], shared: Path) -> None:
    scenes = pairs(shared)
    with load(exported_tiny("dmtrack", "onnx"), threads=1) as tracker:
        step = tracker.graphs["step"]
        differ = 0
        for pair in scenes:
            results = tracked(tracker, pair)
            assert len(results) == STEPS - 1
            for result in results:
                x, y, w, h = result.box
                assert np.isfinite(result.box).all()
                assert 0 <= x <= VIEW - 10
                assert 0 <= y <= VIEW - 10
                assert 10 <= w <= VIEW
                assert 10 <= h <= VIEW
            score = step.outputs["score"].copy()
            assert not np.array_equal(step.inputs["search"][0], step.inputs["search"][1])
            # The same crops without the second image give other maps.
            step.inputs["search"][1] = 0
            step.run()
            differ += bool(np.abs(step.outputs["score"] - score).max() > 1e-4)
        assert differ == len(scenes)


def test_pairs_that_do_not_fit_are_named(exported_tiny: Callable[..., Path], shared: Path) -> None:
    colour, thermal = pairs(shared)[0]
    with load(exported_tiny("dmtrack", "onnx"), threads=1) as tracker:
        with pytest.raises(InvalidFrameError, match="given one; give the second"):
            tracker.init(colour, (20, 20, 40, 40))
        with pytest.raises(InvalidFrameError, match="align the two"):
            tracker.init(colour, (20, 20, 40, 40), thermal[:-1])
        with pytest.raises(InvalidFrameError, match=r"aux: .*shape"):
            tracker.init(colour, (20, 20, 40, 40), np.zeros((*thermal.shape, 5), np.uint8))


ABLATIONS: list[dict[str, Any]] = [
    {"temporal": "none"},
    {"temporal": "shared"},
    {"templates": 1, "schedule": "uniform:1"},
    {"beside_mlp": "none"},
    {"beside_mlp": "shallow"},
    {"beside_attention": "deep"},
    {"beside_attention": "deep", "beside_mlp": "shallow"},
    {"schedule": "confident:3"},
]


@pytest.mark.parametrize("changes", ABLATIONS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_each_ablation_is_exported_proven_and_runs(exported_tiny: Callable[..., Path], changes: dict[str, Any]) -> None:
    # An export whose parity is not proven writes no bundle.
    with load(exported_tiny("dmtrack", "onnx", **changes), threads=1) as tracker:
        rng = np.random.default_rng(0)
        first, *later = rng.integers(0, 256, (6, 96, 128, 6), np.uint8)
        tracker.init(first, (40, 30, 30, 24))
        for frame in later:
            assert np.isfinite(tracker.update(frame).box).all()
        # uniform:3 asks for frames 0, 1 and 2 at frame 5: the middles of three intervals of one frame.
        read = int(tracker.graphs["step"].inputs["present"].sum())
        assert read == (1 if "templates" in changes else 3)


def test_the_most_confident_frames_are_remembered(exported_tiny: Callable[..., Path]) -> None:
    with load(exported_tiny("dmtrack", "onnx", schedule="confident:3"), threads=1) as tracker:
        rng = np.random.default_rng(3)
        frames = rng.integers(0, 256, (9, 96, 128, 6), np.uint8)
        tracker.init(frames[0], (40, 30, 30, 24))
        scores = [tracker.update(frame).score for frame in frames[1:]]
        best = sorted(range(1, 9), key=lambda index: (-scores[index - 1], index))[:2]
        assert cast(Any, tracker.procedure).bank.chosen() == (0, *sorted(best))


def test_a_graph_of_one_template_refuses_a_schedule_of_more(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"asks for up to 4 templates.*has room for 1"):
        export(ExportRequest(str(tiny_recipe("dmtrack", templates=1)), "onnx", output=tmp_path / "refused"))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_targets_agree_on_pairs_at_full_size(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))
    scenes = pairs(shared)[:3]
    found = {}
    for target in ("onnx", "openvino"):
        bundle = export(ExportRequest("dmtrack", target, output=tmp_path / target)).path
        with load(bundle, threads=2) as tracker:
            found[target] = np.array([[result.box for result in tracked(tracker, pair)] for pair in scenes])
    np.testing.assert_allclose(found["onnx"], found["openvino"], rtol=0, atol=0.05)
