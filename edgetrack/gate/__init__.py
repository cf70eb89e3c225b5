"""The latency gate: a bundle held against a budget, with a verdict that is not a coin toss."""
