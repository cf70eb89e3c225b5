"""How each family of trackers is trained: one file each, found by name (`edgetrack.training.method`)."""
