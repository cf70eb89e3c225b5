"""The lock file."""

from __future__ import annotations

import json

import pytest

from edgetrack.errors import EdgetrackError
from edgetrack.hub.lock import LockedBundle, add_to_lock, read_lock

ONE = LockedBundle(name="a", sha256="1" * 64, size=5)


def test_entries_are_kept_in_order_and_the_same_ones_give_the_same_bytes(tmp_path) -> None:
    path = tmp_path / "deep" / "lock.json"
    assert read_lock(path).bundles == {}
    for address in ("https://b.org/x", "https://a.org/x", "https://b.org/x"):
        add_to_lock(path, address, ONE)
    assert list(json.loads(path.read_text())["bundles"]) == ["https://a.org/x", "https://b.org/x"]
    other = tmp_path / "other.json"
    for address in ("https://a.org/x", "https://b.org/x"):
        add_to_lock(other, address, ONE)
    assert path.read_bytes() == other.read_bytes()
    assert read_lock(path).bundles["https://a.org/x"] == ONE


def test_a_hash_is_never_replaced(tmp_path) -> None:
    path = tmp_path / "lock.json"
    add_to_lock(path, "https://a.org/x", ONE)
    with pytest.raises(EdgetrackError, match="was given sha256 1111"):
        add_to_lock(path, "https://a.org/x", LockedBundle(name="a", sha256="2" * 64, size=5))
    assert read_lock(path).bundles == {"https://a.org/x": ONE}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2}',
        '{"bundles": {"https://a.org/x": {"name": "a", "sha256": "zz", "size": 1}}}',
        '{"bundles": {}, "more": 1}',
        "\udcff",
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_is_said(tmp_path, text) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(EdgetrackError, match=r"lock\.json is "):
        read_lock(path)
