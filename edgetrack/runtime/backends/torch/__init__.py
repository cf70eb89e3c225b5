"""Eager PyTorch, the reference."""
