"""SPMTrack's decoding against the official one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.runtime.crop import CropMapping
from edgetrack.runtime.decode import CellChooser, hann_closed
from edgetrack.runtime.trackers.spmtrack import choose_box


@pytest.mark.parametrize("case", [f"case{i}" for i in range(5)])
def test_decoded_boxes_are_the_official_ones(golden: Callable[[str], Any], case: str) -> None:
    decode = golden("decode_spmtrack")
    window, fixture = hann_closed(27).astype(np.float32), decode.group(case)
    np.testing.assert_allclose(window, decode.arrays["window27"], rtol=0, atol=1e-6)
    chooser = CellChooser(window, influence=0.45, dtype=np.float32)
    score, found = choose_box(fixture["score_logits"], fixture["boxes_norm_xyxy"], chooser)
    assert score == pytest.approx(float(fixture["confidence"][0]), abs=1e-6)
    in_crop = Box(*(378 * value for value in found))
    np.testing.assert_allclose(in_crop.xyxy, fixture["box_in_crop_px"][0], rtol=0, atol=1e-3)
    mapped = CropMapping(*fixture["adjusted_params"].ravel().tolist()).to_frame(in_crop)
    np.testing.assert_allclose(mapped.xyxy, fixture["box_in_frame_unclipped"], rtol=0, atol=1e-3)
