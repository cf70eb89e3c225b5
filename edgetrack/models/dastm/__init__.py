"""DASTM (arXiv 2503.16768), reimplemented from the paper: the network, and the graphs that ship.

No official code or weights exist; what the paper leaves open is assumed, and marked so in the recipe.
"""

from __future__ import annotations

from edgetrack.models.dastm.graphs import deploy, reference
from edgetrack.models.dastm.network import Dastm as Network

__all__ = ["Network", "deploy", "reference"]
