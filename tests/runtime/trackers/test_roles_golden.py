"""Families against the official tracker classes: their maps in, their crops, templates and boxes out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import GraphInfo, Manifest, TensorInfo
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.backends.base import CompiledGraph, allocate
from edgetrack.runtime.trackers.base import Procedure, find_family
from edgetrack.runtime.trackers.box import BoxFamily
from edgetrack.runtime.trackers.center import CenterFamily
from edgetrack.runtime.trackers.distances import DistancesFamily
from tests.builders import scripted_manifest, tensor
from tests.conftest import Golden

Outputs = Mapping[str, NDArray[np.float32]]
NO_TIMER = lambda stage: None  # noqa: E731


class Player(CompiledGraph):
    """A step graph that returns what an official network returned, frame by frame, and keeps what it was fed."""

    def __init__(self, info: GraphInfo, script: Iterator[Outputs]) -> None:
        self.inputs, self.outputs = allocate(info.inputs), allocate(info.outputs)
        self.script = script
        self.fed: list[dict[str, NDArray[Any]]] = []
        self._closed = False

    def _open(self, path: object, options: object) -> None:
        """There is no file."""

    def _close(self) -> None:
        """There is nothing to release."""

    def _infer(self) -> None:
        self.fed.append({name: array.copy() for name, array in self.inputs.items()})
        for name, value in next(self.script).items():
            self.outputs[name][...] = value


def image(name: str, *shape: int) -> TensorInfo:
    return tensor(name, *shape, dtype="uint8")


def played(
    family: type[Procedure],
    settings: Mapping[str, object],
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
    script: Iterator[Outputs],
) -> tuple[Any, Player]:
    graph = GraphInfo(name="step", role="step", file="step.json", inputs=inputs, outputs=outputs)
    manifest: Manifest = scripted_manifest(graphs=(graph,), procedure=dict(settings))
    player = Player(graph, script)
    return family(manifest, {"step": player}), player


def frames(synthetic_image: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    rolled = (np.roll(synthetic_image, (2 * t, 3 * t), (0, 1)) for t in range(count + 1))
    return [np.ascontiguousarray(frame) for frame in rolled]


def center_maps(cells: int) -> tuple[TensorInfo, ...]:
    return tensor("score", 1, 1, cells, cells), tensor("size", 1, 2, cells, cells), tensor("offset", 1, 2, cells, cells)


def test_families_are_found_by_name() -> None:
    assert [find_family(name) for name in ("center", "box", "distances")] == [CenterFamily, BoxFamily, DistancesFamily]


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_ostrack(golden: Callable[[str], Golden], synthetic_image: NDArray[np.uint8], case: str) -> None:
    record = golden("seq_ostrack_b256").group(case)
    script = (
        {"score": record["score_map"][t], "size": record["size_map"][t], "offset": record["offset_map"][t]}
        for t in range(10)
    )
    settings = {"template_factor": 2.0, "template_size": 128, "search_factor": 4.0, "search_size": 256}
    inputs = (image("template", 128, 128, 3), image("search", 256, 256, 3))
    procedure, _ = played(CenterFamily, settings, inputs, center_maps(16), script)
    video = frames(synthetic_image, 10)
    procedure.init(video[0], Box(*record["init_xywh"]))
    for t, frame in enumerate(video[1:]):
        found = procedure.update(frame, NO_TIMER)
        assert tuple(procedure.square) == tuple(record["crop_x1_y1_side"][t + 1])
        np.testing.assert_allclose(found.box, record["boxes_xywh"][t], rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", ["a", "b"])
def test_sutrack_takes_templates_by_interval(
    golden: Callable[[str], Golden], synthetic_image: NDArray[np.uint8], case: str
) -> None:
    record = golden("seq_sutrack_maps").group(case)
    script = (
        {"score": record["score_map"][t], "size": record["size_map"][t], "offset": record["offset_map"][t]}
        for t in range(12)
    )
    settings = {
        "template_factor": 2.0, "template_size": 112, "search_factor": 4.0, "search_size": 224,
        "reports": "windowed", "update": "interval", "update_interval": 2, "update_above": 0.75, "target_box": "xywh",
    }  # fmt: skip
    inputs = (image("templates", 2, 112, 112, 3), tensor("target_box", 1, 2, 4), image("search", 224, 224, 3))
    procedure, player = played(CenterFamily, settings, inputs, center_maps(14), script)
    video = frames(synthetic_image, 12)
    procedure.init(video[0], Box(*record["init_xywh"]))
    crops = {0: procedure.step.inputs["templates"][0].copy()}
    for t, frame in enumerate(video[1:], 1):
        found = procedure.update(frame, NO_TIMER)
        np.testing.assert_allclose(found.box, record["boxes_xywh"][t - 1], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.score, record["best_windowed_score"][t - 1], rtol=0, atol=1e-6)
        crop = np.empty((112, 112, 3), np.uint8)
        procedure.templates.cut(frame, found.box, procedure.template_rule, crop)
        crops[t] = crop
        np.testing.assert_allclose(
            player.fed[-1]["target_box"][0], record["template_anno_of_frame"][t - 1], rtol=0, atol=1e-6
        )
        for slot, source in enumerate(record["templates_of_frame"][t - 1]):
            np.testing.assert_array_equal(player.fed[-1]["templates"][slot], crops[int(source)])


@pytest.mark.parametrize("case", ["a", "b"])
def test_mixformer_takes_the_best_of_an_interval(
    golden: Callable[[str], Golden], synthetic_image: NDArray[np.uint8], case: str
) -> None:
    record = golden("seq_mixformerv2_s").group(case)
    script = ({"box": record["pred_boxes_cxcywh"][t], "score": np.float32([record["score"][t]])} for t in range(15))
    settings = {
        "template_factor": 2.0, "template_size": 112, "search_factor": 4.5, "search_size": 224,
        "update": "best", "update_interval": 3, "update_above": 0.5,
    }  # fmt: skip
    inputs = (image("template", 112, 112, 3), image("online_template", 112, 112, 3), image("search", 224, 224, 3))
    procedure, player = played(BoxFamily, settings, inputs, (tensor("box", 4), tensor("score", 1)), script)
    video = frames(synthetic_image, 15)
    procedure.init(video[0], Box(*record["init_xywh"]))
    crops = {0: procedure.step.inputs["template"].copy()}
    for t, frame in enumerate(video[1:], 1):
        found = procedure.update(frame, NO_TIMER)
        assert tuple(procedure.square) == tuple(record["search_crop_x1_y1_side"][t - 1])
        np.testing.assert_allclose(found.box, record["boxes_xywh"][t - 1], rtol=0, atol=1e-3)
        crop = np.empty((112, 112, 3), np.uint8)
        procedure.templates.cut(frame, found.box, procedure.templates.rule, crop)
        crops[t] = crop
        source = int(record["online_template_of_frame"][t - 1])
        np.testing.assert_array_equal(player.fed[-1]["online_template"], crops[source])
        np.testing.assert_array_equal(player.fed[-1]["template"], crops[0])


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_lighttrack(golden: Callable[[str], Golden], synthetic_image: NDArray[np.uint8], case: str) -> None:
    record = golden("seq_lighttrack_m").group(case)
    params = json.loads(str(record["params"]))
    cells = params["grid"]
    script = (
        {"score": (1 / (1 + np.exp(-record["cls_logits"][t].astype(np.float64)))), "reg": record["reg_ltrb"][t]}
        for t in range(10)
    )
    settings = {
        "template_size": params["exemplar"], "search_size": params["instance"], "stride": params["stride"],
        "window_influence": params["window_influence"], "penalty_k": params["penalty_k"], "size_rate": params["lr"],
    }  # fmt: skip
    inputs = (
        image("template", params["exemplar"], params["exemplar"], 3),
        image("search", params["instance"], params["instance"], 3),
    )
    outputs = (tensor("score", 1, 1, cells, cells), tensor("reg", 1, 4, cells, cells))
    procedure, _ = played(DistancesFamily, settings, inputs, outputs, script)
    video = frames(synthetic_image, 10)
    procedure.init(video[0], Box(*record["init_xywh"]))
    for t, frame in enumerate(video[1:]):
        square = procedure.loop.search()
        assert (*square, params["instance"]) == tuple(record["crop_x0_y0_side_size"][t + 1])
        found = procedure.update(frame, NO_TIMER)
        np.testing.assert_allclose(tuple(procedure.loop.target), record["centre_size"][t], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.score, record["score"][t], rtol=0, atol=1e-6)


def distances_step(
    target: list[float], score: NDArray[np.float64], reg: NDArray[np.float64], settings: Mapping[str, Any]
) -> list[float]:
    """One frame of TracKit's loop on a 320 x 240 frame, written from its formulas, cell by cell: (cx, cy, w, h)."""
    cx, cy, w, h = target
    cells, middle = score.shape[-1], settings["search_size"] // 2

    def size(w: float, h: float) -> float:
        return math.sqrt((w + (w + h) / 2) * (h + (w + h) / 2))

    k = settings["template_size"] / size(w, h)
    best = (-math.inf, 0.0, 0.0, 0.0, 0.0, 0.0)
    for row in range(cells):
        for column in range(cells):
            px, py = (settings["stride"] * (place - cells // 2) + middle for place in (column, row))
            left, top, right, bottom = reg[:, row, column]
            x1, y1, x2, y2 = px - left, py - top, px + right, py + bottom
            change = size(x2 - x1, y2 - y1) / size(w * k, h * k)
            aspect = (w / h) / ((x2 - x1) / (y2 - y1))
            penalty = math.exp((1 - max(change, 1 / change) * max(aspect, 1 / aspect)) * settings["penalty_k"])
            window = np.hanning(cells)[row] * np.hanning(cells)[column]
            share = settings["window_influence"]
            total = penalty * score[row, column] * (1 - share) + share * window
            if total > best[0]:
                best = total, penalty * score[row, column], (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    _, weight, x, y, found_w, found_h = best
    rate = (weight * settings["size_rate"]) ** 2
    moved = cx + (x - middle) / k, cy + (y - middle) / k, w + rate * (found_w / k - w), h + rate * (found_h / k - h)
    limits = (0, 320), (0, 240), (10, 320), (10, 240)
    return [min(max(value, low), high) for value, (low, high) in zip(moved, limits, strict=True)]


def test_ocean(synthetic_image: NDArray[np.uint8]) -> None:
    """The recipe's numbers on random maps of Ocean's size."""
    settings = find_recipe("ocean").procedure
    rng = np.random.default_rng(5)
    scores = rng.uniform(0.01, 0.99, (20, 25, 25)).astype(np.float32)
    regs = rng.uniform(20, 70, (20, 4, 25, 25)).astype(np.float32)
    script = ({"score": score, "reg": reg} for score, reg in zip(scores, regs, strict=True))
    inputs = image("template", 127, 127, 3), image("search", 255, 255, 3)
    outputs = tensor("score", 1, 1, 25, 25), tensor("reg", 1, 4, 25, 25)
    procedure, _ = played(DistancesFamily, settings, inputs, outputs, script)
    video = frames(synthetic_image, 20)
    procedure.init(video[0], Box(120, 80, 64, 48))
    target = [152.0, 104.0, 64.0, 48.0]
    for frame, score, reg in zip(video[1:], scores, regs, strict=True):
        procedure.update(frame, NO_TIMER)
        target = distances_step(target, score.astype(np.float64), reg.astype(np.float64), settings)
        np.testing.assert_allclose(tuple(procedure.loop.target), target, rtol=0, atol=1e-4)
