"""The trackers' networks in PyTorch, with the official parameter names. One folder each, named as its recipe."""
