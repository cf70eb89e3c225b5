"""OSTrack's per-frame procedure (docs/trackers/ostrack.md): that of family `center`."""

from edgetrack.runtime.trackers.center import CenterFamily

PROCEDURE = CenterFamily
