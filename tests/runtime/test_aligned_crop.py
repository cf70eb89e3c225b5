"""SPMTrack's crop and decoding against the official ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.runtime.aligned_crop import Mapping, crop_aligned, mean_colour, rasterised, touched, wanted_mapping
from edgetrack.runtime.decode import decode_boxes
from edgetrack.runtime.window import hann_closed

CASES = [(kind, f"{kind}/case{index}") for kind in ("template", "search") for index in range(7)]
PIXELS = st.floats(-500, 800)
SIDES = st.floats(0.01, 2000)


def corners(values: Any) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return Box(x1, y1, x2 - x1, y2 - y1)


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_crops_are_the_official_ones(
    golden: Callable[[str], Any], synthetic_image: np.ndarray, kind: str, case: str
) -> None:
    fixture, found = golden("crop_spmtrack").group(case), golden("crop_spmtrack").arrays
    box, (factor, size) = corners(fixture["bbox_xyxy"]), {"template": (2.0, 196), "search": (5.0, 378)}[kind]
    fill = mean_colour(synthetic_image)
    np.testing.assert_allclose(fill, found["image_mean_rgb"], rtol=0, atol=1e-4)
    around = box if kind == "template" else Box.from_center(*box.center, max(10, box.w), max(10, box.h))
    out = np.empty((size, size, 3), np.float32)
    mapping = crop_aligned(synthetic_image, around, factor, fill, out)
    step = int(fixture["subsample_step"])
    np.testing.assert_allclose(out.transpose(2, 0, 1)[:, ::step, ::step], fixture["crop_subsampled"], rtol=0, atol=0.05)
    np.testing.assert_allclose(np.reshape(mapping, (2, 2)), fixture["adjusted_params_scale_translation"], rtol=1e-7)
    wanted = np.reshape(wanted_mapping(around, factor, size), (2, 2))
    np.testing.assert_allclose(wanted, fixture["params_scale_translation"], rtol=1e-12)
    if kind == "template":
        target = mapping.to_crop(box)
        assert list(touched(Box(*(v / 14 for v in target)))) == fixture["mask_rect_x0y0x1y1_feature_cells"].tolist()


@pytest.mark.parametrize("case", [f"case{i}" for i in range(5)])
def test_decoded_boxes_are_the_official_ones(golden: Callable[[str], Any], case: str) -> None:
    decode = golden("decode_spmtrack")
    window, fixture = hann_closed(27).astype(np.float32), decode.group(case)
    np.testing.assert_allclose(window, decode.arrays["window27"], rtol=0, atol=1e-6)
    found = decode_boxes(fixture["score_logits"], fixture["boxes_norm_xyxy"], window, 0.45)
    assert found.score == pytest.approx(float(fixture["confidence"][0]), abs=1e-6)
    in_crop = Box(*(378 * value for value in found.box))
    np.testing.assert_allclose(in_crop.xyxy, fixture["box_in_crop_px"][0], rtol=0, atol=1e-3)
    mapped = Mapping(*fixture["adjusted_params"].ravel().tolist()).to_frame(in_crop)
    np.testing.assert_allclose(mapped.xyxy, fixture["box_in_frame_unclipped"], rtol=0, atol=1e-3)


@given(x=PIXELS, y=PIXELS, w=SIDES, h=SIDES, factor=st.floats(1, 6))
def test_any_box_gives_a_crop_and_a_mapping_that_can_be_undone(
    x: float, y: float, w: float, h: float, factor: float
) -> None:
    frame, out = np.full((40, 60, 3), 200, np.uint8), np.full((28, 28, 3), np.nan, np.float32)
    box = Box(x, y, w, h)
    mapping = crop_aligned(frame, box, factor, np.array([1, 2, 3], np.float32), out)
    assert np.isfinite(out).all()
    assert np.isclose(out[..., None], (1, 2, 3, 200), rtol=0, atol=1e-3).any(axis=-1).all()
    np.testing.assert_allclose(mapping.to_frame(mapping.to_crop(box)), box, rtol=1e-3, atol=0.5)


@given(x=PIXELS, y=PIXELS, w=SIDES, h=SIDES)
def test_rasterised_cells_lie_in_the_picture(x: float, y: float, w: float, h: float) -> None:
    cells = rasterised(Box(x, y, w, h), 60, 40)
    if not cells.is_empty:
        assert 0 <= cells.x1 < cells.x2 <= 60
        assert 0 <= cells.y1 < cells.y2 <= 40
