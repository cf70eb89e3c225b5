"""Bundles on data sets: layouts, metrics, resumable runs (one pass, from anchors, under a clock), comparisons."""
