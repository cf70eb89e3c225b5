"""The trackers' networks in PyTorch, with the official parameter names. One file per tracker, same name as its recipe."""
