"""The pass that keeps the features of every frame."""

from __future__ import annotations

import math

import pytest

from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.evidence import EvidenceTask
from edgetrack.runtime.lost import FEATURES
from edgetrack.runtime.session import load


def test_every_frame_after_the_first_has_every_feature_and_the_published_box(make_bundle) -> None:
    dataset = open_dataset("synthetic:drift?frames=5&size=160x120")
    clip = dataset.read(dataset.entries[0])
    bundle = make_bundle(score=0.7)
    with load(bundle) as tracker:
        run = EvidenceTask().run(tracker, clip)
    with load(bundle) as tracker, clip.open() as frames:
        first, *later = frames
        tracker.init(first, clip.start)
        boxes = [tuple(tracker.update(frame).box) for frame in later]
    assert [tuple(box) for box in run.boxes[1:]] == boxes
    assert list(run.features) == list(FEATURES)
    assert [len(values) for values in run.features.values()] == [4] * len(FEATURES)
    assert run.features["score"] == pytest.approx([math.log(0.7 / 0.3)] * 4, rel=1e-5)
    # The scripted map has one value, so that no cell tells more than another.
    assert run.features["entropy"] == pytest.approx([1.0] * 4)
    assert len(EvidenceTask().run(load(bundle), clip, 3).boxes) == 3
