"""How well a bundle tracks: data sets, evaluation protocols, their execution and results, and comparisons."""

ANCHOR_SPACING = 25
ANCHOR_LENGTH = 50
"""Frames (docs/decisions/0005-anchored-runs.md): the defaults wherever runs restart at anchors."""
