"""Counting arithmetic."""

from __future__ import annotations

from torch import nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.export.flops import count_flops
from edgetrack.models.base import GraphModule


def test_multiply_and_add_count_two_and_elementwise_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    given = TensorInfo(name="x", dtype="float32", shape=(1, 3, 16, 16))
    taken = TensorInfo(name="y", dtype="float32", shape=(1, 8, 8, 8))
    expected = 2 * (64 * 8 * 3 * 9) + 2 * (64 * 8 * 9)
    assert count_flops(GraphModule("g", "step", module.eval(), (given,), (taken,))) == expected
