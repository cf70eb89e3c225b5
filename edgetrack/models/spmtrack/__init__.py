"""SPMTrack (CVPR 2025; published code Apache-2.0): the network as published and the graph that ships."""

from __future__ import annotations

from edgetrack.models.spmtrack.graphs import deploy, experts, reference
from edgetrack.models.spmtrack.network import SpmTrack as Network

__all__ = ["Network", "deploy", "experts", "reference"]

MEMBERS: dict[str, dict[str, int]] = {"spmtrack_b": {}}
