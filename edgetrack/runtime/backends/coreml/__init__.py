"""Core ML on Apple devices."""
