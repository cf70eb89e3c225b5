"""OSTrack: one ViT for template and search region together, and a centre head."""

from edgetrack.models.ostrack.graphs import deploy, reference
from edgetrack.models.ostrack.network import OsTrack as Network

__all__ = ["Network", "deploy", "reference"]
