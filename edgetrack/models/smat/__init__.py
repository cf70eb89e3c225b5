"""SMAT (arXiv 2309.03979; published code Apache-2.0): the network as published, and the graphs that ship."""

from __future__ import annotations

from edgetrack.models.smat.graphs import deploy, deploy_channels_last, reference
from edgetrack.models.smat.network import Smat as Network

__all__ = ["Network", "deploy", "deploy_channels_last", "reference"]
