"""Arrays and JSON of a bundle: read as what they say they are, or refused."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.bundle import read_json, read_npz
from edgetrack.errors import BundleError, BundleIntegrityError


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def npz(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path: Path, save: Callable[..., None]) -> None:
    arrays = {
        "crop": np.arange(192, dtype=np.uint8).reshape(8, 8, 3),
        "step/score": np.asfortranarray(np.float32([[1, np.nan], [3, 4]])),
        "scalar": np.array(True),
        "half": np.zeros((2, 0), np.float16),
        "zeros": np.zeros(20 << 20, np.int8),
    }
    save(tmp_path / "golden.npz", **arrays)
    read = read_npz(tmp_path / "golden.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


@pytest.mark.parametrize(
    "data",
    [
        npy(np.array([print], dtype=object), allow_pickle=True),
        npy(np.array(["text"])),
        npy(np.zeros(2, [("a", "f4")])),
        npy(np.complex64(1)),
        npy(np.zeros(4))[:-1],
        npy(np.zeros(4)) + b"\0",
        npy(np.zeros(4)).replace(b"\x01\x00", b"\x03\x00", 1),
        b"",
        b"\x93NUMPY",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", b"1234"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", b"1234"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10 ** 30)}"),
        header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {10**30})}}"),
        header("{'descr': (), 'fortran_order': False, 'shape': ()}"),
        header("{[]: 1}"),
        header("{1: 1, 'a': 2}"),
        header("("),
        header("-" * 9000 + "1"),
        header(" " * 20_000),
        header("__import__('os').abort()"),
    ],
)
def test_arrays_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BundleError, match=r"bad\.npz"):
        read_npz(npz(tmp_path / "bad.npz", ("a.npy", data)))


def test_an_npz_of_the_wrong_members(tmp_path: Path) -> None:
    one = npy(1)
    with pytest.raises(BundleIntegrityError, match="twice"):
        read_npz(npz(tmp_path / "twice.npz", ("a.npy", one), ("a.npy", one)))
    with pytest.raises(BundleIntegrityError, match="not a name"):
        read_npz(npz(tmp_path / "name.npz", ("a.txt", one)))
    with pytest.raises(BundleError, match="5000 entries"):
        read_npz(npz(tmp_path / "many.npz", *((f"{i}.npy", one) for i in range(5000))))


def test_an_npz_that_is_none(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "link").symlink_to("one.npy")
    os.mkfifo(tmp_path / "pipe")
    for name in ("one.npy", "link", "pipe", "absent", "."):
        with pytest.raises(BundleError):
            read_npz(tmp_path / name)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_npz_is_read_or_refused(pristine: Path, position: int, flip: int) -> None:
    content = bytearray((pristine / "golden.npz").read_bytes())
    content[position % len(content)] ^= flip
    path = pristine.parent / "changed.npz"
    path.write_bytes(content)
    try:
        arrays = read_npz(path)
    except BundleError:
        return
    # A changed length in the directory can hide an array; those that are read are whole.
    assert {array.size for array in arrays.values()} <= {2, 192}


def test_json_is_read_as_a_type(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    path.write_text('{"max_abs": 0.5}')
    assert read_json(path, dict[str, float]) == {"max_abs": 0.5}
    with pytest.raises(BundleError, match=r"parity\.json"):
        read_json(path, dict[str, int])
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(BundleError):
            read_json(path, dict[str, float])
    with pytest.raises(BundleError, match="No such file"):
        read_json(tmp_path / "absent", dict[str, float])


def test_a_json_that_is_too_long(tmp_path: Path) -> None:
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(BundleError, match="larger than"):
        read_json(tmp_path / "big.json", list[int])
