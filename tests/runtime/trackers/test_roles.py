"""Masks and boxes in crops, and bundles whose graphs no family can feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import BundleError
from edgetrack.runtime.crop import CropRule, square_around
from edgetrack.runtime.trackers.base import find_procedure
from edgetrack.runtime.trackers.roles import padding_mask, target_box
from tests.builders import MAPS, SEARCH, TEMPLATE, scripted_manifest, tensor
from tests.conftest import Golden

ROLES = {"template_factor": 2.0, "template_size": 128, "search_factor": 4.0, "search_size": 256}


@pytest.mark.parametrize(("crop", "size", "factor"), [("search", 320, 5.0), ("template", 128, 2.0)])
@pytest.mark.parametrize("case", range(6))
def test_padding_masks_are_the_official_ones(
    golden: Callable[[str], Golden], synthetic_image: NDArray[np.uint8], case: int, crop: str, size: int, factor: float
) -> None:
    record = golden("crop_mask_anno").group(f"case{case}")
    expected = np.unpackbits(record[f"{crop}/mask_bits"])[: size * size].reshape(size, size)
    found = np.empty((size, size), np.uint8)
    padding_mask(square_around(Box(*record["box"]), factor), synthetic_image, found)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", range(6))
def test_boxes_in_template_crops_are_the_official_ones(golden: Callable[[str], Golden], case: int) -> None:
    record = golden("crop_mask_anno").group(f"case{case}")
    box, rule = Box(*record["box"]), CropRule(2.0, 128)
    x1, y1, x2, y2 = target_box(box, rule, "xyxy")
    np.testing.assert_allclose((x1, y1, x2 - x1, y2 - y1), record["anno_over_S"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(target_box(box, rule, "xywh"), record["anno_over_S_minus_1"], rtol=0, atol=1e-6)


def family(name: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...] = MAPS, **settings: Any) -> None:
    """Let a family's procedure look at a bundle of one graph."""
    graph = GraphInfo(name="step", role="step", file="step.json", inputs=inputs, outputs=outputs)
    manifest = scripted_manifest(family=name, graphs=(graph,), procedure={**ROLES, **settings})
    find_procedure(manifest)(manifest, {})


BOX = (tensor("box", 4),)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "settings", "message"),
    [
        ("center", (SEARCH, tensor("z", 1, 3)), MAPS, {}, "input 'z' of 'step' has no role; expected one of"),
        ("center", (TEMPLATE,), MAPS, {}, "none has an input 'search'"),
        ("center", (SEARCH,), MAPS[:2], {}, "'offset' is missing"),
        ("center", (SEARCH, TEMPLATE), MAPS, {"template_size": 64}, r"expected uint8 \(64, 64, 3\)"),
        ("center", (SEARCH, TEMPLATE), MAPS, {"update": "best"}, "needs update_interval of 1 or more"),
        (
            "center",
            (SEARCH, TEMPLATE),
            MAPS,
            {"update": "best", "update_interval": 3},
            "an input online_temp",
        ),
        ("center", (SEARCH, TEMPLATE), MAPS, {"update_above": 0.5}, 'need update = "interval" or "best"'),
        ("center", (SEARCH, TEMPLATE), MAPS, {"state": "whole"}, 'needs crop = "whole" and clip = false'),
        ("center", (SEARCH, TEMPLATE), MAPS, {"map_back": "root"}, 'needs state = "whole"'),
        ("center", (SEARCH, tensor("target_box", 2, 4)), MAPS, {}, "they take 2 target boxes, expected one for each"),
        (
            "box",
            (SEARCH, TEMPLATE),
            (tensor("box", 1, 4),),
            {},
            r"has shape \(1, 4\); expected box \(4,",
        ),
        (
            "box",
            (SEARCH, TEMPLATE),
            BOX,
            {"lost_below": 0.5},
            "no output 'score', which lost_below and update",
        ),
        ("box", (SEARCH, TEMPLATE), BOX, {"clip": False}, "keeps boxes as real numbers and clips them"),
    ],
)
def test_what_no_family_can_feed_is_named(
    name: str, inputs: Any, outputs: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        family(name, inputs, outputs, **settings)
