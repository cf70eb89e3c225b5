"""Writers of weights files, sound and otherwise, that the tests of `edgetrack.checkpoints` share."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def write_torch_zip(path: Path, pickled: bytes, members: Mapping[str, bytes], compression: int) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in {"archive/byteorder": b"little", **members}.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def torch_zip(tmp_path: Path) -> Callable[..., Path]:
    """torch_zip(pickled, {"archive/data/0": bytes, ...}) -> path of a file in torch's zip format."""

    def write(
        pickled: bytes, members: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
    ) -> Path:
        return write_torch_zip(tmp_path / "made.pth", pickled, members or {}, compression)

    return write


@pytest.fixture
def torch_legacy(tmp_path: Path) -> Callable[..., Path]:
    """torch_legacy(pickled, [(key, numel, bytes), ...]) -> path of a file in torch's format before 1.6."""

    def write(pickled: bytes, storages: list[tuple[str, int, bytes]] | None = None, little_endian: bool = True) -> Path:
        head = [LEGACY_MAGIC, 1001, {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}]
        keys = [key for key, _, _ in storages or []]
        tail = b"".join(struct.pack("<q", numel) + data for _, numel, data in storages or [])
        path = tmp_path / "made_legacy.pth"
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + pickled + pickle.dumps(keys, 2) + tail)
        return path

    return write


@pytest.fixture
def tensor_pickle() -> Callable[..., bytes]:
    """tensor_pickle(...) -> the pickle of {"w": tensor}, with any storage, offset, sizes and strides."""

    def write(
        *,
        kind: str = "FloatStorage",
        key: str = "0",
        numel: int = 4,
        offset: int = 0,
        size: tuple[int, ...] = (2, 2),
        stride: tuple[int, ...] = (2, 1),
    ) -> bytes:
        def value(item: object) -> bytes:
            return pickle.dumps(item, 2)[2:-1]  # without PROTO and STOP

        storage = (
            b"(" + value("storage") + f"ctorch\n{kind}\n".encode() + value(key) + value("cpu") + value(numel) + b"tQ"
        )
        arguments = b"(" + storage + value(offset) + value(size) + value(stride) + b"\x89}t"
        return b"\x80\x02}" + value("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."

    return write
