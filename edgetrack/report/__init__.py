"""One page from the results of benchmarks, evaluations and comparisons."""
