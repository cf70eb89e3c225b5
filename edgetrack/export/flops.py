"""Floating-point operations of a graph, 2 for each multiply-accumulate of convolutions and matrix products."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from edgetrack.models.base import GraphModule


def count_flops(graph: GraphModule) -> int:
    """Counted by PyTorch while the graph runs on zeros; elementwise work is not counted."""
    with FlopCounterMode(display=False) as counter:
        graph(*graph.example())
    return int(counter.get_total_flops())
