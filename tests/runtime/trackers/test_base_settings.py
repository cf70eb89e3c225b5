"""Settings, maps and boxes that an enemy or a slip may bring: a clear error when the bundle opens, or finite boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetrack.box import validate
from edgetrack.bundle.manifest import GraphInfo, Manifest, TensorInfo
from edgetrack.errors import BundleError, InvalidBoxError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.memory import MemorySchedule, Retention
from edgetrack.runtime.trackers.base import find_procedure
from tests.builders import scripted_manifest, tensor

SIDE, SMALL, CELLS = 64, 32, 4
MAPS = (
    tensor("score", 1, 1, CELLS, CELLS),
    tensor("size", 1, 2, CELLS, CELLS),
    tensor("offset", 1, 2, CELLS, CELLS),
)
BOXES = (tensor("score", 1, CELLS, CELLS), tensor("boxes", 1, CELLS, CELLS, 4))
LOC = (tensor("cls", 1, 2, CELLS, CELLS), tensor("loc", 1, 4, CELLS, CELLS))
CROP, PATCH = tensor("search", SIDE, SIDE, 3, dtype="uint8"), tensor("template", SMALL, SMALL, 3, dtype="uint8")
KERNEL, TOKEN = tensor("template_features", 1, 4, 1, 4), tensor("token", 1, 1, 8)
# Tracker -> graph -> inputs and outputs, in the smallest sizes that its procedure takes.
GRAPHS: dict[str, dict[str, tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]]] = {
    "smat": {"template": ((PATCH,), (KERNEL,)), "step": ((CROP, KERNEL), MAPS)},
    "nanotrack_v2": {"template": ((PATCH,), (KERNEL,)), "step": ((CROP, KERNEL), LOC)},
    "dmtrack": {
        "step": (
            (
                tensor("search", 2, SIDE, SIDE, 3, dtype="uint8"),
                tensor("templates", 4, 2, SMALL, SMALL, 3, dtype="uint8"),
                tensor("present", 1, 4),
            ),
            MAPS,
        )
    },
    "atstrack": {
        "step": (
            (CROP, tensor("templates", 3, SMALL, SMALL, 3, dtype="uint8"), tensor("tokens", 1, 1, 8)),
            (*MAPS, tensor("next_tokens", 1, 1, 8)),
        )
    },
    "dastm": {
        "memory": (
            (tensor("image", SIDE, SIDE, 3, dtype="uint8"), tensor("target", SIDE, SIDE)),
            (tensor("features", 8, 4), tensor("gates", 1, 4)),
        ),
        "step": ((CROP, tensor("memory", 8, 8, 4), tensor("present", 1, 8)), BOXES),
    },
    "spmtrack_b": {
        "step": (
            (
                tensor("search", SIDE, SIDE, 3),
                tensor("templates", 3, SMALL, SMALL, 3),
                tensor("masks", 3, 4),
                TOKEN,
            ),
            (*BOXES, tensor("next_token", 1, 1, 8)),
        )
    },
}
ROLES = (
    CROP,
    tensor("search_mask", SIDE, SIDE, dtype="uint8"),
    tensor("template", SMALL, SMALL, 3, dtype="uint8"),
    tensor("template_mask", SMALL, SMALL, dtype="uint8"),
    tensor("online_template", SMALL, SMALL, 3, dtype="uint8"),
)
GRAPHS |= {
    "center": {"step": (ROLES, MAPS)},
    "box": {"step": (ROLES, (tensor("box", 4), tensor("score", 1)))},
    "distances": {
        "init": ((PATCH,), (KERNEL,)),
        "step": ((CROP, KERNEL), (tensor("score", 1, 1, CELLS, CELLS), tensor("reg", 1, 4, CELLS, CELLS))),
    },
}
_SIDES = {"search_size": SIDE, "template_size": SMALL}
_ROLES = {**_SIDES, "template_factor": 2.0, "search_factor": 4.0, "clip_margin": 10.0, "lost_below": 0.1, "clip": True}
_ROLES |= {"update": "interval", "update_interval": 1, "update_above": 0.1, "score_decay": 0.9}
# Families without a recipe of ours.
PROCEDURES: dict[str, dict[str, Any]] = {
    "center": _ROLES,
    "box": _ROLES,
    "distances": {**_SIDES, "stride": 8, "window_influence": 0.4, "penalty_k": 0.1, "size_rate": 0.4,
                  "smallest_side": 10.0, "size_smoothing": 2},
}  # fmt: skip
SIZES = {"search_size": SIDE, "template_size": SMALL, "stride": 8, "cell": 16, "schedule": "fixed:3"}
# At the ends of what is allowed, and beyond.
WITHIN = {
    "factor": [0.1, 1.0, 100.0],
    "smallest_side": [0.01, 10.0, 4096.0],
    "clip_margin": [0.01, 10.0, 4096.0],
    "window_influence": [0.0, 1.0],
    "size_rate": [0.0, 5e-324, 1.0],
    "penalty_k": [0.0, 1000.0],
    "lost_below": [-1000.0, 1000.0],
    "newest_above": [-1000.0, 1000.0],
    "memory": ["exact", "exact:disk", "bounded:2"],
    "schedule": ["fixed:2", "fixed:3", "spread:3", "uniform:3", "nearest:3"],
    "variant": ["official", "opencv"],
    "clip": [True, False],
    "update": ["fixed", "interval", "best"],
    "update_interval": [0, 1, 1_000_000],
    "update_above": [-1000.0, 1000.0],
    "score_decay": [0.0, 1.0],
}
BEYOND = [
    1e308, -1e308, 5e-324, 0, -0.0, float("nan"), float("inf"), -1, 2**31, 2**63, 1e10, True, "", "x",
    "nearest:64", "fixed:65", "fixed:0002999999999", "bounded:1", "bounded:000000002999999999999",
]  # fmt: skip
EXTREMES = [0.0, 1.0, -1.0, 0.5, 1e-38, 88.7, 1e30, 3.4e38, -3.4e38, float("nan"), float("inf")]
SPANS = [1e-300, 1e-6, 1.0, 40.0, 1e6, 1e9, 1e150]


class Extreme(CompiledGraph):
    """A graph whose outputs are numbers that were drawn."""

    engine = "extreme"

    def __init__(self, info: GraphInfo) -> None:
        super().__init__(info, Path("x"), BackendOptions())
        self.rng = np.random.default_rng(0)
        self.values = [0.5]

    def _open(self, path: Path, options: BackendOptions) -> None: ...

    def _infer(self) -> None:
        for output in self.outputs.values():
            with np.errstate(all="ignore"):
                output[...] = self.rng.choice(self.values, output.shape)

    def _close(self) -> None: ...


def manifest_of(tracker: str, change: dict[str, Any]) -> Manifest:
    procedure = procedure_of(tracker)
    graphs = tuple(
        GraphInfo(name=name, role="step" if name == "step" else "init", file=f"{name}.x", inputs=ins, outputs=outs)
        for name, (ins, outs) in GRAPHS[tracker].items()
    )
    small = {key: value for key, value in SIZES.items() if key in procedure}
    family = tracker if tracker in PROCEDURES else find_recipe(tracker).family_name
    return scripted_manifest(tracker=tracker, family=family, graphs=graphs, procedure=procedure | small | change)


def procedure_of(tracker: str) -> dict[str, Any]:
    return PROCEDURES[tracker] if tracker in PROCEDURES else find_recipe(tracker).procedure


@st.composite
def changes(draw: st.DrawFn, tracker: str) -> dict[str, Any]:
    procedure = procedure_of(tracker)
    names = draw(st.lists(st.sampled_from(sorted(procedure)), max_size=4, unique=True))
    found: dict[str, Any] = {}
    for name in names:
        kind = "factor" if name.endswith("factor") else name
        within = st.sampled_from(WITHIN.get(kind, [procedure[name]]))
        anything = st.sampled_from(BEYOND) | st.floats() | st.integers() | st.text(max_size=20)
        found[name] = draw(st.one_of(within, within, within, anything))
    return found


each_tracker = pytest.mark.parametrize("tracker", sorted(GRAPHS))


@each_tracker
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_settings_maps_and_boxes_end_in_an_error_or_in_finite_boxes(tracker: str, data: st.DataObject) -> None:
    track_anything(tracker, data)


@pytest.mark.full
@each_tracker
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_settings_maps_and_boxes_end_so(tracker: str, data: st.DataObject) -> None:
    track_anything(tracker, data)


def track_anything(tracker: str, data: st.DataObject) -> None:
    manifest = manifest_of(tracker, data.draw(changes(tracker)))
    graphs = {info.name: Extreme(info) for info in manifest.graphs}
    try:
        procedure = find_procedure(manifest)(manifest, graphs)
    except BundleError:
        return
    height, width = data.draw(st.sampled_from([(60, 80), (1, 1), (3, 900)]))
    shape = (height, width, 3 * procedure.modalities)
    frame = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    w, h = (data.draw(st.sampled_from(SPANS)) for _ in range(2))
    x, y = (data.draw(st.sampled_from([-0.999 * side, 0.0, -side / 2])) for side in (w, h))
    try:
        box = validate((x, y, w, h), (height, width))
    except InvalidBoxError:
        return
    procedure.init(frame, box)
    for _ in range(data.draw(st.sampled_from([2, 2, 12]))):
        values = data.draw(st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=3))
        for graph in graphs.values():
            graph.values = values
        found = procedure.update(frame, lambda stage: None)
        assert found.box.is_finite
        assert found.box.w >= 0
        assert found.box.h >= 0
    procedure.reset_box(box)
    procedure.update(frame, lambda stage: None)


@each_tracker
def test_settings_beyond_their_range_are_named(tracker: str) -> None:
    manifest = manifest_of(tracker, {})
    find_procedure(manifest)(manifest, {info.name: Extreme(info) for info in manifest.graphs})
    for name, value in manifest.procedure.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            for bad in (1e308, -1e308, float("nan"), float("inf"), 10**30):
                changed = manifest_of(tracker, {name: bad})
                with pytest.raises(BundleError, match=name):
                    find_procedure(changed)(changed, {info.name: Extreme(info) for info in changed.graphs})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"search_size": 16, "template_size": 32}, "search_size 16 is smaller than template_size 32"),
        ({"stride": 1024}, "cells of stride 1024 in a search crop of 64 pixels"),
    ],
)
def test_sizes_that_do_not_suit_one_another_are_refused(change: dict[str, Any], words: str) -> None:
    manifest = manifest_of("nanotrack_v2", change)
    graphs = {info.name: Extreme(info) for info in manifest.graphs}
    with pytest.raises(BundleError, match=words):
        find_procedure(manifest)(manifest, graphs)


@pytest.mark.parametrize("text", ["nearest:00000000000002", "fixed:0000064999999999"])
def test_a_count_is_read_whole(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        MemorySchedule.parse(text)
    with pytest.raises(ValueError, match="expected"):
        Retention.parse(f"bounded:{text.partition(':')[2]}")
