"""A backend without a network, for tests."""
