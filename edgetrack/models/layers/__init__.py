"""Layers that several networks share; each file is one idea."""
