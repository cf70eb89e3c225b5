"""Whole sequences at full size, box by box, against the official trackers, on every target; minutes each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgetrack.bundle import open_bundle
from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.session import Tracker
from tests.builders import TARGETS


@pytest.mark.parametrize(("sequence", "name"), [("seq_dmtrack", "dmtrack"), ("seq_spmtrack_b", "spmtrack_b")])
def test_golden_weights_are_those_of_the_recipe(golden: Callable[[str], Any], sequence: str, name: str) -> None:
    meta, untrained = golden(sequence).meta, find_recipe(name).untrained
    assert (meta["multipliers"], meta["overrides"]) == (untrained.multipliers, untrained.overrides)


def whole(name: str, target: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))
    return export(ExportRequest(name, target, output=folder / name)).path


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS)
def test_dmtrack_gives_the_official_boxes(
    golden: Callable[[str], Any],
    synthetic_image: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    sequence, bundle = golden("seq_dmtrack"), open_bundle(whole("dmtrack", target, tmp_path, monkeypatch))
    released = {**bundle.manifest.procedure, "schedule": "nearest:3"}
    manifest = msgspec.structs.replace(bundle.manifest, procedure=released)
    with Tracker(dataclasses.replace(bundle, manifest=manifest), BackendOptions(threads=2)) as tracker:
        for case in ("a", "b"):
            expected = sequence.group(case)
            tracker.init(synthetic_image[..., ::-1], expected["init_xywh"].tolist(), 255 - synthetic_image)
            for t, box in enumerate(expected["boxes_xywh"], start=1):
                frame = np.roll(synthetic_image, (2 * t, 3 * t), (0, 1))
                found = tracker.update(frame[..., ::-1], 255 - frame)
                np.testing.assert_allclose(found.box, box, rtol=0, atol=sequence.meta["tol_abs_px"], err_msg=f"{t}")
                assert found.score == pytest.approx(expected["best_windowed_score"][t - 1], abs=1e-5)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS)
def test_spmtrack_gives_the_official_boxes(
    golden: Callable[[str], Any],
    synthetic_image: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    sequence = golden("seq_spmtrack_b")
    expected = sequence.group("a")
    x1, y1, x2, y2 = expected["init_xyxy"].tolist()
    bundle = open_bundle(whole("spmtrack_b", target, tmp_path, monkeypatch))
    with Tracker(bundle, BackendOptions(threads=2)) as tracker:
        tracker.init(synthetic_image[..., ::-1], (x1, y1, x2 - x1, y2 - y1))
        for t, corners in enumerate(expected["boxes_xyxy"], start=1):
            frame = np.roll(synthetic_image, (2 * t, 3 * t), (0, 1))
            found = tracker.update(frame[..., ::-1])
            atol = sequence.meta["tol_abs_px"]
            np.testing.assert_allclose(found.box.xyxy, corners, rtol=0, atol=atol, err_msg=f"{t}")
            assert found.score == pytest.approx(expected["confidence"][t - 1], abs=1e-5)
