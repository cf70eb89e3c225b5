"""ATSTrack (arXiv 2507.00454), reimplemented from the paper: there is no published code and there are no weights.

The visual part is ODTrack's, whose weights load under their own names; what the paper leaves open is in the recipe's
[configuration] and listed in docs/trackers/atstrack.md.
"""

from __future__ import annotations

from edgetrack.models.atstrack.graphs import deploy, reference
from edgetrack.models.atstrack.network import AtsTrack as Network

__all__ = ["Network", "deploy", "reference"]
