"""DMTrack (arXiv 2508.01592): the network as published, and the graph that ships.

The authors' repository carries no licence: this is an implementation from a description of what it computes.
"""

from __future__ import annotations

from edgetrack.models.dmtrack.graphs import deploy, reference
from edgetrack.models.dmtrack.network import DmTrack as Network

__all__ = ["Network", "deploy", "reference"]
