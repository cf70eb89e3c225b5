"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetrack.errors import EdgetrackError
from edgetrack.files import replace_whole, write_whole


def test_parts_are_joined_and_the_old_file_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for text in (b"longer than the next", b"next"):
        replace_whole(path, text, memoryview(b"!"))
    assert path.read_bytes() == b"next!"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        replace_whole(path, b"half", "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(EdgetrackError, match=r"folder cannot be written: .*--output"):
        write_whole(tmp_path / "folder", b"text")
