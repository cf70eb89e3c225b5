from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgetrack.box import Box, jitter
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.crop import CropRule, square_around
from edgetrack.runtime.decode import Peak, map_back
from edgetrack.training.augment import mirrored
from edgetrack.training.method import find_method

METHOD = find_method(find_recipe("smat"))


def _inside(target: Box, around: Box, factor: float, size: int = 256) -> Box:
    """The target in fractions of the crop around a box."""
    _, mapping = METHOD.crop(np.zeros((4, 4, 3), np.uint8), around, CropRule(factor, size))
    return Box(*(value / size for value in mapping.to_crop(target)))


boxes = st.builds(Box, st.floats(-50, 600), st.floats(-50, 400), st.floats(2, 200), st.floats(2, 200))


@given(boxes, boxes, st.sampled_from([1.0, 2.0, 4.0]))
def test_a_box_in_the_crop_maps_back_to_the_frame(target: Box, around: Box, factor: float) -> None:
    inside = _inside(target, around, factor)
    scale = 256 / square_around(around, factor).side
    found = map_back(Peak(1, 1, *inside.center, inside.w, inside.h), around, 256, scale)
    # The published way back does not undo the rounding of the crop's corner: half a pixel at most.
    assert found.center == pytest.approx(target.center, abs=0.5 + 1e-6)
    assert (found.w, found.h) == pytest.approx((target.w, target.h))


@given(st.integers(20, 100), st.integers(20, 100), st.integers(12, 40), st.integers(12, 40), st.integers(0, 2**32 - 1))
def test_the_crop_shows_the_box_where_it_is_said_to_be(x: int, y: int, w: int, h: int, seed: int) -> None:
    image = np.zeros((180, 200, 3), np.uint8)
    image[y : y + h, x : x + w] = 255
    around = jitter(Box(x, y, w, h), np.random.default_rng(seed), 1.0, 0.1)
    crop, _ = METHOD.crop(image, around, CropRule(4.0, 256))
    box = _inside(Box(x, y, w, h), around, 4.0)
    for axis, (centre, size) in enumerate(((box.center[0], box.w), (box.center[1], box.h))):
        line = crop[..., 0].max(axis=axis).astype(float)
        seen = (line > 127).nonzero()[0]
        assert (seen.min(), seen.max() + 1) == pytest.approx(
            ((centre - size / 2) * 256, (centre + size / 2) * 256), abs=1.0
        )


def test_mirroring_twice_is_nothing() -> None:
    box = Box(0.1, 0.2, 0.3, 0.4)
    assert mirrored(box) == pytest.approx((0.6, 0.2, 0.3, 0.4))
    assert mirrored(mirrored(box)) == pytest.approx(box)


def test_jitter_has_the_stated_distribution() -> None:
    rng = np.random.default_rng(0)
    drawn = [jitter(Box(100, 100, 40, 20), rng, 3.0, 0.25) for _ in range(20_000)]
    logs = np.log([[box.w / 40, box.h / 20] for box in drawn])
    assert logs.mean(axis=0) == pytest.approx([0, 0], abs=0.01)
    assert logs.std(axis=0) == pytest.approx([0.25, 0.25], rel=0.03)
    moved = np.array([[(b.center[0] - 120), (b.center[1] - 110)] / np.sqrt(b.w * b.h) for b in drawn])
    # Uniform over +-3/2: mean 0, standard deviation 3 / sqrt(12).
    assert np.abs(moved).max() <= 1.5
    assert moved.mean(axis=0) == pytest.approx([0, 0], abs=0.03)
    assert moved.std(axis=0) == pytest.approx([3 / np.sqrt(12)] * 2, rel=0.03)


@given(boxes, st.integers(0, 2**32 - 1), st.sampled_from([(3.0, 4.0), (1.5, 2.0)]))
@example(Box(1.03125, 0.0, 2.0, 2.0), 67960408, (1.5, 2.0))  # 1.01 of a crop of 4 pixels
def test_a_jittered_crop_always_shows_the_targets_centre(box: Box, seed: int, rule: tuple[float, float]) -> None:
    centre_jitter, factor = rule
    around = jitter(box, np.random.default_rng(seed), centre_jitter, 0.25)
    square = square_around(around, factor)
    rounding = 0.5 / square.side  # a crop starts at a whole pixel
    for centre in _inside(box, around, factor, 16).center:
        assert -rounding <= centre <= 1 + rounding


def test_no_jitter_is_no_change() -> None:
    assert jitter(Box(1, 2, 3, 4), np.random.default_rng(0), 0.0, 0.0) == pytest.approx((1, 2, 3, 4))
