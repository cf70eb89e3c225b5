"""ML programs, as Core ML packages hold them: read and interpreted with NumPy; a reference, not Core ML."""
