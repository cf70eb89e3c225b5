"""SPMTrack-B's procedure: the family's; the recipe holds the numbers that are B's own."""

from __future__ import annotations

from edgetrack.runtime.trackers.spmtrack import SpmTrackProcedure

PROCEDURE = SpmTrackProcedure
