"""NanoTrack v3's procedure: the family's; the recipe holds the numbers that are v3's own."""

from __future__ import annotations

from edgetrack.runtime.trackers.nanotrack import NanoTrackProcedure

PROCEDURE = NanoTrackProcedure
