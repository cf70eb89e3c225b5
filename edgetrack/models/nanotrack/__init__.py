"""NanoTrack (HonglinChu/SiamTrackers, Apache-2.0), reimplemented from a description: the networks and their graphs."""

from __future__ import annotations

from edgetrack.models.nanotrack.graphs import deploy, reference
from edgetrack.models.nanotrack.network import NanoTrack as Network

__all__ = ["Network", "deploy", "reference"]

MEMBERS = {"nanotrack_v2": {"version": 2}, "nanotrack_v3": {"version": 3}}
