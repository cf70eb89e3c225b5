"""An export as a whole: all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgetrack.bundle import open_bundle
from edgetrack.bundle.manifest import LicenceInfo
from edgetrack.errors import CheckpointError, SourceError, UnknownNameError, UsageError, WeightsMismatchError
from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.exporting.recipe import find_recipe
from edgetrack.resources import data_folder
from edgetrack.runtime.session import load

pytestmark = pytest.mark.usefixtures("short_proof")
STAGES = ["weights: ", "converting graph template", "converting graph step", "parity: tracking", "parity: 2 samples"]


class StopAtError(BaseException):
    """Neither an Exception nor one of ours."""


def stop_at(stage: str, error: type[BaseException]) -> Callable[[str], None]:
    def progress(line: str) -> None:
        if line.startswith(stage):
            raise error

    return progress


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopAtError, OSError])
@pytest.mark.parametrize("stage", [*STAGES, "writing the bundle"])
def test_interrupted_export_leaves_nothing(small, tmp_path: Path, stage: str, error: type[BaseException]) -> None:
    request = small("torch", output=tmp_path / "bundle")
    with pytest.raises(error):
        export(request, progress=stop_at(stage, error))
    assert not any(tmp_path.iterdir())


def test_interrupted_export_keeps_the_bundle_that_it_was_to_replace(small, tmp_path: Path) -> None:
    request = small("torch", output=tmp_path / "bundle", overwrite=True)
    export(request)
    before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        export(request, progress=stop_at("writing the bundle", KeyboardInterrupt))
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_stages_are_told_in_order(small, tmp_path: Path) -> None:
    lines: list[str] = []
    licence = LicenceInfo(name="MIT", redistribution=True)
    report = export(small("torch", output=tmp_path / "bundle", licence=licence), progress=lines.append)
    assert [any(line.startswith(stage) for line in lines) for stage in STAGES] == [True] * len(STAGES)
    assert lines[-1] == "writing the bundle"
    assert report.path == tmp_path / "bundle"
    assert report.manifest.weights.licence == licence
    assert len(report.parity.comparisons) == 2 * 7
    assert report.parity.worst.max_abs == 0.0, "the reference is the published network itself"


def test_bundle_that_is_there_is_replaced_only_when_asked(small, tmp_path: Path) -> None:
    request = small("torch", output=tmp_path / "bundle")
    export(request)
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        export(request)


def test_further_sources_are_proved_too(small, tmp_path: Path) -> None:
    lines: list[str] = []
    request = small("torch", output=tmp_path / "bundle", parity_sources=("synthetic:scale?frames=2&size=160x120",))
    assert len(export(request, progress=lines.append).parity.comparisons) == 3 * 7
    assert any("synthetic:scale?frames=2&size=160x120" in line for line in lines)


def test_source_without_a_box_to_start_from_is_refused(small, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    (tmp_path / "images").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), np.zeros((60, 80, 3), np.uint8))
    request = small("torch", output=tmp_path / "bundle", parity_sources=(str(tmp_path / "images"),))
    with pytest.raises(SourceError, match="no ground-truth box for its first frame"):
        export(request)
    assert not (tmp_path / "bundle").exists()


def test_wrong_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    wrong, damaged = tmp_path / "wrong.pth", tmp_path / "damaged.pth"
    torch.save({"net": torch.nn.Linear(2, 2).state_dict()}, wrong)
    damaged.write_bytes(wrong.read_bytes()[:200])
    for path, error in ((wrong, WeightsMismatchError), (damaged, CheckpointError)):
        with pytest.raises(error) as caught:
            export(ExportRequest("smat", "torch", weights=str(path), output=tmp_path / "bundle"))
        assert caught.value.exit_code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"wrong.pth", "damaged.pth"}


def test_recipe_file_can_be_exported_and_runs(tmp_path: Path) -> None:
    text = (data_folder("export_recipes") / "smat.toml").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(text.replace("lost_below = 0.1", "lost_below = 0.99"), "utf-8")
    report = export(ExportRequest(str(tmp_path / "mine.toml"), "torch", output=tmp_path / "bundle"))
    assert report.manifest.procedure["lost_below"] == 0.99
    with load(report.path) as tracker:
        assert tracker.manifest.title == find_recipe("smat").title


def test_recipe_of_a_network_that_is_not_there_is_refused(tmp_path: Path) -> None:
    text = (data_folder("export_recipes") / "smat.toml").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('name = "smat"', 'name = "other"'), "utf-8")
    with pytest.raises(UnknownNameError, match="tracker 'other' is not known"):
        export(ExportRequest(str(tmp_path / "mine.toml"), "torch", output=tmp_path / "bundle"))


def test_golden_record_spreads_over_the_samples(exported: Callable[..., Path]) -> None:
    from edgetrack.bundle import read_npz

    with open_bundle(exported("onnx")) as bundle:
        record = read_npz(bundle.path("golden.npz"))
    assert {key.split("/")[0] for key in record} == {"0", "3", "6"}
