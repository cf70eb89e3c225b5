"""NanoTrack (HonglinChu/SiamTrackers, Apache-2.0), reimplemented from a description: the networks and their graphs.

The trackers of this family are `edgetrack.models.nanotrack_v2` and `nanotrack_v3`.
"""
