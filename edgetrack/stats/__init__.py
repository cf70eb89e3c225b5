"""The statistics of all verbs: bounds of quantiles, bootstrap, rank tests, group-sequential designs, verdicts."""
