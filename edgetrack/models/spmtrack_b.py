"""SPMTrack-B as a tracker of its own name; the family is in `edgetrack.models.spmtrack`."""

from __future__ import annotations

from edgetrack.models.spmtrack.graphs import deploy, reference
from edgetrack.models.spmtrack.network import SpmTrack as Network

__all__ = ["Network", "deploy", "reference"]
