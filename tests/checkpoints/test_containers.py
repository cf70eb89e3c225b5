"""Files that are no checkpoint, or too large a one: a `CheckpointError` that says what was found."""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetrack.checkpoints import read_checkpoint
from edgetrack.errors import CheckpointError, UnsafeCheckpointError

Writer = Callable[..., Path]
LEGACY = {"_use_new_zipfile_serialization": False}


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
            (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
            (b"\n  <html lang='en'>", "web page"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
            (b"epoch,loss\n1,0.5\n", "text.*epoch,loss"),
            (b"\x1b[31mred\x1b[0m" + b"a" * 20, "not a file that torch.save or safetensors wrote"),
            (b"\x1f\x8b\x08\x00rest", "gzip"),
            (b"x" * 257 + b"ustar\x00" + b"\x00" * 300, "tar archive"),
            (b"\x93NUMPY\x01\x00", "numpy"),
            (b"\x00\x01\x02\x03garbage", "start with 00 01 02 03"),
            (b"PK\x03\x04", "cut short"),
            (b"PK\x03\x04" + b"\x00" * 500, "cut short"),
            (b"\x80", "damaged"),
            (b"\x80\x02.", "damaged"),
            (b"\x80\x7f}.", "damaged"),
            (b"\x40\x00\x00\x00\x00\x00\x00\x00{", "cut short"),
            (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "without tensors"),
        ],
    )
    def test_content(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as caught:
            read_checkpoint(path, key="net")
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_bare_pickle(self, tmp_path: Path, protocol: int) -> None:
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": [1.0, 2.0]}, protocol))
        with pytest.raises(CheckpointError, match=r"a pickle that torch\.save did not write"):
            read_checkpoint(tmp_path / "w.pkl")

    def test_bare_pickle_with_code_is_unsafe(self, tmp_path: Path) -> None:
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(sys.exit, 2))
        with pytest.raises(UnsafeCheckpointError, match=r"sys\.exit"):
            read_checkpoint(tmp_path / "w.pkl")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file"):
            read_checkpoint(tmp_path / "absent.pth")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="a directory"):
            read_checkpoint(tmp_path)

    def test_device(self) -> None:
        with pytest.raises(CheckpointError, match="not a regular file"):
            read_checkpoint("/dev/null")

    @pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
    def test_impossible_path(self, path: str) -> None:
        with pytest.raises(CheckpointError):
            read_checkpoint(path)

    def test_zip_of_something_else(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "w.npz", a=np.ones(2))
        with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
            archive.writestr("weights/model.pth", b"123")
        for name, message in (("w.npz", "more than one folder|no data.pkl"), ("nested.zip", "no data.pkl")):
            with pytest.raises(CheckpointError, match=message):
                read_checkpoint(tmp_path / name)

    def test_torchscript(self, torch_zip: Writer) -> None:
        with pytest.raises(CheckpointError, match="TorchScript"):
            read_checkpoint(torch_zip(b"\x80\x02}.", {"archive/constants.pkl": b"\x80\x02)."}))

    def test_big_endian(self, torch_zip: Writer, torch_legacy: Writer) -> None:
        for path in (torch_zip(b"\x80\x02}.", {"archive/byteorder": b"big"}), torch_legacy(b"\x80\x02}.", [], False)):
            with pytest.raises(CheckpointError, match="big-endian"):
                read_checkpoint(path)

    def test_safetensors_with_a_huge_header(self, tmp_path: Path) -> None:
        header = b"{" + b" " * (5 << 20)
        (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError, match="whose header has 5242881 bytes; at most 4194304 are read"):
            read_checkpoint(tmp_path / "w.safetensors")

    def test_more_members_than_a_weights_file_has(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        path = torch_zip(tensor_pickle(), {f"archive/data/{number:01000}": b"" for number in range(4500)})
        with pytest.raises(CheckpointError, match="its directory claims"):
            read_checkpoint(path)

    def test_too_large(self, tmp_path: Path) -> None:
        torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="more than the limit of 3000"):
            read_checkpoint(tmp_path / "w.pth", max_bytes=3000)

    def test_too_large_once_expanded(self, tmp_path: Path) -> None:
        torch.save({"w": torch.zeros(1).expand(10**9)}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="tensors have 4000000000 bytes, more than the limit"):
            read_checkpoint(tmp_path / "w.pth", max_bytes=2**30)
