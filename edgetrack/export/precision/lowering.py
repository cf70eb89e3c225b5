"""What an exporter is told when it takes a graph from FP32 to a lower precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgetrack.export.precision.methods import Method
from edgetrack.export.precision.replay import Inputs


@dataclass(frozen=True)
class Lowering:
    """A wish for one graph.

    Attributes:
        precision: `fp16`, `bf16` or `int8`.
        inputs: what the graph is fed, by running the tracker; empty where the precision needs none.
        method: of quantization.
        kept: regular expressions for the whole names of nodes that stay in FP32.
    """

    precision: str
    inputs: Sequence[Inputs] = ()
    method: Method = field(default_factory=Method)
    kept: tuple[str, ...] = ()
