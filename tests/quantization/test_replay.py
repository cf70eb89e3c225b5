"""Calibration of trackers that remember: what they are fed is what they carry at that frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetrack.evaluation.datasets import open_dataset
from edgetrack.quantization.calibration import CropSampling, Part, collect, make_set
from edgetrack.quantization.replay import replay
from edgetrack.runtime.session import load

SCENES = "synthetic:drift?frames=13&size=160x120"


@pytest.mark.parametrize("name", ["dmtrack", "spmtrack_b", "atstrack"])
def test_replay_carries_the_past_to_each_item(exported_tiny: Callable[..., Path], name: str) -> None:
    dataset = open_dataset(SCENES)
    clips = {entry.name: dataset.read(entry) for entry in dataset.entries}
    with load(exported_tiny(name, "onnx"), threads=1) as tracker:
        items = collect(list(clips.values()), tracker.procedure, CropSampling(size=4))
        assert [item.frame for item in items] == [1, 5, 8, 12]
        chosen = make_set("set", (Part(dataset=SCENES, items=items),))
        fed = replay(chosen, lambda part: clips, tracker.procedure, tracker.graphs)["step"]
        assert tracker.procedure.bank.count == 13
    assert len(fed) == 4
    for earlier, later in itertools.pairwise(fed):
        assert not np.array_equal(earlier["templates"], later["templates"])
    if name == "dmtrack":
        assert [int(inputs["present"].sum()) for inputs in fed] == [1, 3, 4, 4]
        # The scene's thermal images: grey and warm at the target, where a stand-in would be the colours' negative.
        for second in (inputs["search"][1] for inputs in fed):
            assert (second == second[..., :1]).all()
            assert second.max() > 180
    else:
        # Nothing seen is carried into the first frame; later the state is what the network returned.
        carried = [inputs["token" if name == "spmtrack_b" else "tokens"] for inputs in fed]
        seen = [values.reshape(-1, values.shape[-1])[0] for values in carried]
        assert [bool(values.any()) for values in seen] == [False, True, True, True]
    if name == "atstrack":
        assert all(inputs["mask"].sum() == 28 for inputs in fed)


@pytest.mark.parametrize("gate", ["soft", "select"])
def test_replay_records_every_graph_of_a_frame(exported_tiny: Callable[..., Path], gate: str) -> None:
    dataset = open_dataset(SCENES)
    clips = {entry.name: dataset.read(entry) for entry in dataset.entries}
    with load(exported_tiny("dastm", "onnx", gate=gate), threads=1) as tracker:
        items = collect(list(clips.values()), tracker.procedure, CropSampling(size=4))
        chosen = make_set("set", (Part(dataset=SCENES, items=items),))
        fed = replay(chosen, lambda part: clips, tracker.procedure, tracker.graphs)
        assert tracker.procedure.bank.count == 13
    chosen_from = ("se", "ca", "cbam") if gate == "select" else ()
    assert {name: len(inputs) for name, inputs in fed.items()} == dict.fromkeys(("memory", *chosen_from, "step"), 4)
    # What each attention would have been fed, whichever of them the gate chose.
    for name in chosen_from:
        assert all(np.array_equal(one["map"], other["map"]) for one, other in zip(fed[name], fed["se"], strict=True))
        assert all(one["map"].any() for one in fed[name])
    counts = [int(inputs["present"].sum()) for inputs in fed["step"]]
    # All of the past, then the first frame and the middles of four spans; the newest too where its score was high.
    assert counts[0] == 1
    assert all(most - 1 <= count <= most for count, most in zip(counts[1:], (5, 6, 6), strict=True))
    for earlier, later in itertools.pairwise(fed["memory"]):
        assert not np.array_equal(earlier["image"], later["image"])
        assert set(np.unique(later["target"])) == {0.0, 1.0}
