"""SPMTrack (CVPR 2025; published code Apache-2.0): the network as published and the graph that ships.

The trackers of this family are `edgetrack.models.spmtrack_b` and, by configuration, the larger ones.
"""
