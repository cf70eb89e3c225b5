"""NanoTrack v3 as a tracker of its own name; the family is in `edgetrack.models.nanotrack`."""

from __future__ import annotations

from edgetrack.models.nanotrack.graphs import deploy, reference
from edgetrack.models.nanotrack.network import NanoTrackV3 as Network

__all__ = ["Network", "deploy", "reference"]
