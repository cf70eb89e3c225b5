"""Ablations: a tracker's configurations exported, measured in one interleaved run, evaluated; one table."""
