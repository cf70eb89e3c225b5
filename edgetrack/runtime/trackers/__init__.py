"""The trackers' per-frame procedures, one file each, found by the name in the bundle's manifest."""
