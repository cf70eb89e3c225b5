"""Devices: what each is expected to be, and running on one that is reached over SSH."""
