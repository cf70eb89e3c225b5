"""SMAT's per-frame procedure (docs/trackers/smat.md): that of family `center`, the template's features made once."""

from edgetrack.runtime.trackers.center import CenterFamily

PROCEDURE = CenterFamily
