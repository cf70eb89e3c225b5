"""NanoTrack v2's procedure: the family's; the recipe holds the numbers that are v2's own."""

from __future__ import annotations

from edgetrack.runtime.trackers.nanotrack import NanoTrackProcedure

PROCEDURE = NanoTrackProcedure
