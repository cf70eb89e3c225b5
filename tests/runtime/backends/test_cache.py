"""What is kept between runs: taken by key and hash, and only from where nobody else can write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetrack.runtime.backends.cache import CompiledCache

KEY = {"graph": "ab", "version": "1", "threads": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache with one compiled graph in it."""
    cache = tmp_path / "cache"
    CompiledCache(cache, "openvino", "compiled graph").keep("a.blob", b"code", KEY)
    return cache


def read(root: Path, key: dict[str, object] | None = None) -> bytes | None:
    return CompiledCache(root, "openvino", "compiled graph").read("step", "a.blob", key or KEY)  # type: ignore[arg-type]


def test_what_was_kept_is_found_by_its_key(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(root) == b"code"
    assert {path.stat().st_mode & 0o777 for path in (root / "openvino").iterdir()} == {0o600}
    assert not caplog.records
    for name, value in (("graph", "cd"), ("version", "2"), ("threads", 1)):
        assert read(root, {**KEY, name: value}) is None
        assert f"was built by or for another: {name} " in caplog.records[-1].getMessage()
    assert CompiledCache(root, "openvino", "compiled graph").read("step", "b.blob", KEY) is None


def open_the_folder(root: Path) -> None:
    (root / "openvino").chmod(0o770)


def open_the_cache(root: Path) -> None:
    root.chmod(0o707)


def open_above_the_cache(root: Path) -> None:
    root.parent.chmod(0o777)


def open_the_blob(root: Path) -> None:
    (root / "openvino" / "a.blob").chmod(0o620)


def open_the_record(root: Path) -> None:
    (root / "openvino" / "a.json").chmod(0o602)


def link_the_blob(root: Path) -> None:
    blob = root / "openvino" / "a.blob"
    blob.rename(root / "a.blob")
    blob.symlink_to(root / "a.blob")


def swap_the_blob(root: Path) -> None:
    (root / "openvino" / "a.blob").write_bytes(b"another's code")


def spoil_the_record(root: Path) -> None:
    (root / "openvino" / "a.json").write_bytes(b"[" * 100_000)


def pipe_for_the_record(root: Path) -> None:
    (root / "openvino" / "a.json").unlink()
    os.mkfifo(root / "openvino" / "a.json")


TRICKS = [open_the_folder, open_the_cache, open_above_the_cache, open_the_blob, open_the_record, link_the_blob,
          swap_the_blob, spoil_the_record, pipe_for_the_record]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_what_another_may_have_written_is_not_taken(root: Path, trick: Callable[[Path], None]) -> None:
    trick(root)
    assert read(root) is None


@pytest.mark.parametrize("trick", TRICKS[:3])
def test_a_folder_that_others_can_write_is_said_once_and_nothing_is_put_there(
    root: Path, trick: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    trick(root)
    for _ in range(3):
        cache = CompiledCache(root, "openvino", "compiled graph")
        assert cache.folder is None
        cache.keep("b.blob", b"code", KEY)
    assert not (root / "openvino" / "b.blob").exists()
    (said,) = caplog.records
    assert "compiled graphs are not cached: " in said.getMessage()
    assert "chmod 700" in said.getMessage()


@pytest.mark.skipif(os.geteuid() != 0, reason="ONLY AS ROOT: files are given to another user")
@pytest.mark.parametrize("name", ["", "openvino", "openvino/a.blob", "openvino/a.json"])
def test_what_belongs_to_another_is_not_taken(root: Path, name: str) -> None:
    os.chown(root / name, 12345, -1)
    assert read(root) is None


def test_a_shared_folder_with_the_sticky_bit_may_lie_above(root: Path) -> None:
    root.parent.chmod(0o1777)
    assert read(root) == b"code"


def test_a_cache_that_cannot_be_made_or_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert CompiledCache(tmp_path / "file", "openvino", "engine").folder is None
    cache = CompiledCache(tmp_path, "openvino", "engine")
    (tmp_path / "openvino").rmdir()
    (tmp_path / "openvino").touch()
    cache.keep("a.blob", b"code", KEY)
    assert [
        "engines are not cached" in r.getMessage() or "is not cached" in r.getMessage() for r in caplog.records
    ] == [
        True,
        True,
    ]
    assert CompiledCache(None, "openvino", "engine").read("step", "a", KEY) is None
