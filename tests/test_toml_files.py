"""TOML files that anyone may have written."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import RecipeError, UsageError
from edgetrack.toml_files import LARGEST, read_toml


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    count: int = 0


def test_a_file_becomes_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "x"\ncount = 3\n')
    assert read_toml(tmp_path / "a.toml", Thing, "thing") == Thing("x", 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a thing of schema 1: .*name"),
        (b'name = "x"\nother = 1\n', "is not a thing of schema 1: .*other"),
        (b'name = "x"\ncount = "3"\n', "is not a thing of schema 1: .*int"),
        (b"name = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"\x00", "is not TOML"),
        (b"x = " + b"[" * 5000, "is not TOML"),
        (b"x = " + b"9" * 5000, "is not TOML"),
        (b"#" * (LARGEST + 1), "is larger than 64 KB"),
    ],
)
def test_what_is_none_is_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=rf"(?s)a\.toml {words}.*; see the docs") as caught:
        read_toml(path, Thing, "thing", error=RecipeError, advice="see the docs")
    assert str(path) in str(caught.value)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"thing .*a\.toml cannot be read: No such file"):
        read_toml(tmp_path / "a.toml", Thing, "thing")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_toml(tmp_path, Thing, "thing")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        assert isinstance(read_toml(path, Thing, "thing"), Thing)
