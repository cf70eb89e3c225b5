"""Whole evaluations of a tracker of two images a frame: every layout, built-in scenes, INT8 against FP32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.capabilities import open_ref
from edgetrack.errors import UsageError
from edgetrack.evaluation.comparison import CompareConfig, compare
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.execution import anchored_runs
from edgetrack.evaluation.execution.ledger import Done, Setup, Work, perform
from edgetrack.evaluation.metrics import score
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.evaluation.results import eval_table
from edgetrack.evaluation.run import evaluate
from edgetrack.exporting.pipeline import ExportRequest, plan
from edgetrack.quantization.calibration import CalibrationSources, CropSampling
from edgetrack.quantization.lower import LoweringRequest, lower
from edgetrack.runtime.session import load
from tests.builders import PAIR_LAYOUTS, write_pairs

FRAMES = 4


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are made here: what a process of a pool does, without the seconds that it takes to start."""

    def make(works: list[Work], setup: Setup, jobs: int, done: Done) -> None:
        for work in works:
            found, error = perform(setup, work)
            if error is None:
                work.keep(found)
            done(work, error)

    monkeypatch.setattr("edgetrack.evaluation.execution.run_in_processes", make)


@pytest.fixture(scope="module")
def bundle(exported_tiny: Callable[..., Path]) -> Path:
    return exported_tiny("dmtrack", "onnx")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("layout", PAIR_LAYOUTS)
def test_every_layout_is_tracked_and_scored_by_its_own_figures(bundle: Path, tmp_path: Path, layout: str) -> None:
    frames = 11 if layout == "vtuav" else FRAMES
    dataset = open_dataset(write_pairs(tmp_path / "data", layout, frames))
    assert dataset.layout == layout
    found = evaluate(open_ref(str(bundle)), EvalConfig(dataset, threads=1, output=tmp_path / "kept"))
    result, ((clip, run),) = found.result, found.runs
    assert not result.failures
    assert result.frames == len(run.boxes) == frames
    assert result.ao is not None
    # The same boxes come out of the tracker when it is fed by hand.
    with load(bundle, threads=1) as tracker, clip.open(2) as source:
        for index, frame in enumerate(source):
            if index == 0:
                tracker.init(frame, clip.start)
            else:
                assert tuple(tracker.update(frame).box) == pytest.approx(tuple(run.boxes[index]))
    assert (result.pair is not None) == (layout in ("lasher", "rgbt234", "gtot", "vtuav"))
    assert (result.long_term is not None) == (layout in ("depthtrack", "cdtb", "rgbd1k"))
    own = {"MPR", "MSR"} if result.pair else {"F-score", "precision", "recall"} if result.long_term else set()
    assert set(result.own_figures) == own
    text = "\n".join(str(line) for line in eval_table(result).notes)
    if result.pair is not None:
        assert result.pair.mpr is not None
        assert result.precision is not None
        assert result.pair.mpr >= result.precision
        assert result.sequences[0].pair == result.pair
        assert "MPR and MSR are P and AUC by the better of both" in text
    if result.long_term is not None:
        assert "VOT long-term: F-score" in text
    if layout == "vtuav":
        # Of eleven images, the first and the last are annotated.
        boxes = np.array([run.boxes[0], run.boxes[10]], np.float64)
        alone = score(boxes, clip.truth[::10], clip.visible[::10], clip.rules, run.size).scores
        assert result.ao == alone.ao


@pytest.mark.usefixtures("in_this_process")
def test_anchored_runs_and_so_accuracy_control_take_both_images(bundle: Path, tmp_path: Path) -> None:
    dataset = open_dataset("synthetic:drift?aux=depth&frames=7&size=160x120")
    config = EvalConfig(dataset, threads=1, output=tmp_path / "kept", anchors=Anchored(3, 3))
    (runs,) = anchored_runs(open_ref(str(bundle)), config)
    assert {(run.frame, run.direction) for run in runs.runs} >= {(0, "forward"), (3, "forward"), (3, "backward")}


def test_a_built_in_scene_in_real_processes(bundle: Path, tmp_path: Path) -> None:
    runs = {}
    for aux in ("thermal", "event"):
        dataset = open_dataset(f"synthetic:drift?aux={aux}&frames={FRAMES}&size=160x120")
        config = EvalConfig(dataset, threads=1, output=tmp_path / aux)
        found = evaluate(open_ref(str(bundle)), config)
        assert found.result.ao is not None
        ((_, runs[aux]),) = found.runs
    assert runs["thermal"].scores != runs["event"].scores


def test_a_data_set_of_one_image_is_refused_before_anything_is_run(bundle: Path, plain_dataset: Any) -> None:
    config = EvalConfig(open_dataset(plain_dataset("a")))
    with pytest.raises(UsageError, match=r"takes two images a frame, data \(plain\) has one.*docs/eval.md"):
        evaluate(open_ref(str(bundle)), config)


@pytest.mark.usefixtures("in_this_process")
def test_int8_is_compared_with_fp32_on_real_second_images(
    bundle: Path, tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    scenes, output = "synthetic:drift?aux=thermal&frames=7&size=160x120", tmp_path / "int8"
    request = LoweringRequest(calibration=CalibrationSources((scenes,), sampling=CropSampling(6)))
    work = plan(ExportRequest(str(tiny_recipe("dmtrack")), "onnx", "int8", output=output))
    lower(bundle, work, request, lambda what: None)
    runs = EvalConfig(open_dataset(scenes), threads=1, output=tmp_path / "kept", anchors=Anchored(3, 3))
    found = compare(CompareConfig(open_ref(str(bundle)), open_ref(str(output)), runs, margin=0.01))
    assert not found.failures
    assert found.b.precision == "int8"
    assert found.one_pass is not None
    assert found.delta_ao is not None
    assert found.open_loop is not None
    assert {error.name for error in found.open_loop.maps} == {"step/score", "step/size", "step/offset"}
    # Different arithmetic, the same crops.
    assert all(0 < (error.relative_rms or 0) < 0.5 for error in found.open_loop.maps)
