from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetrack.bundle import open_bundle, pack, unpack
from edgetrack.bundle.integrity import Limits
from edgetrack.errors import BundleError, BundleIntegrityError, EdgetrackError, UsageError


def test_packing_is_deterministic(bundle: Path, packed: Path, tmp_path: Path) -> None:
    os.utime(bundle / "template.xml", (0, 0))
    (bundle / "template.xml").chmod(0o600)
    with open_bundle(packed) as opened:
        again = pack(opened, tmp_path / "again.zip")
    with open_bundle(bundle) as opened:
        third = pack(opened, tmp_path / "new" / "third.zip")
    assert packed.read_bytes() == again.read_bytes() == third.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_unpacking_gives_the_bundle_back(bundle: Path, packed: Path, tmp_path: Path, tools: Any) -> None:
    folder = unpack(packed, tmp_path / "unpacked")
    assert tools.contents(folder) == tools.contents(bundle)
    with pytest.raises(UsageError, match="--overwrite"):
        unpack(packed, folder)
    assert open_bundle(unpack(packed, folder, overwrite=True))


def test_a_failed_unpacking_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[content.index(b"<net")] ^= 1
    packed.write_bytes(content)
    before = set(tmp_path.iterdir())
    with pytest.raises(BundleError):
        unpack(packed, tmp_path / "unpacked")
    with pytest.raises(UsageError, match="no such zip"):
        unpack(tmp_path / "absent.zip", tmp_path / "unpacked")
    assert set(tmp_path.iterdir()) == before


def test_a_zip_is_replaced_only_when_asked(bundle: Path, packed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("thesis.tex", "years")
    (tmp_path / "link.zip").symlink_to(packed)
    (tmp_path / "folder.zip").mkdir()
    with open_bundle(bundle) as opened:
        with pytest.raises(UsageError, match="--overwrite"):
            pack(opened, packed)
        for precious in ("other", "link", "folder"):
            with pytest.raises(UsageError, match="not a packed bundle"):
                pack(opened, tmp_path / f"{precious}.zip", overwrite=True)
        with pytest.raises(UsageError, match=r"ends in \.zip"):
            pack(opened, tmp_path / "made.tar")
        assert pack(opened, packed, overwrite=True) == packed
    with open_bundle(packed):
        assert zipfile.ZipFile(other).namelist() == ["thesis.tex"]


def test_a_failed_packing_keeps_what_was_there(bundle: Path, packed: Path) -> None:
    before, names = packed.read_bytes(), sorted(packed.parent.iterdir())
    with open_bundle(bundle) as opened:
        (bundle / "template.xml").write_text("<net seed='9'/>")
        with pytest.raises(BundleIntegrityError, match="was changed"):
            pack(opened, packed, overwrite=True)
        (bundle / "template.xml").unlink()
        with pytest.raises(BundleError, match="No such file"):
            pack(opened, packed, overwrite=True)
    assert packed.read_bytes() == before
    assert sorted(packed.parent.iterdir()) == names


def test_packing_beside_a_file(bundle: Path) -> None:
    with open_bundle(bundle) as opened, pytest.raises(EdgetrackError, match="cannot be written"):
        pack(opened, bundle / "parity.json" / "x.zip")


def test_a_zip_made_by_another_tool_is_read(bundle: Path, tmp_path: Path, tools: Any) -> None:
    path = tools.zip_of(bundle, tmp_path / "other.zip", extra={"step.mlpackage/": b""}, compression=8)
    with open_bundle(path) as opened:
        assert opened.manifest.tracker == "smat"


def as_link(info: zipfile.ZipInfo) -> None:
    if info.filename == "template.bin":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16


def as_device(info: zipfile.ZipInfo) -> None:
    if info.filename == "template.bin":
        info.external_attr = (stat.S_IFBLK | 0o777) << 16


@pytest.mark.parametrize("change", [as_link, as_device])
def test_links_and_devices_in_a_zip(bundle: Path, tmp_path: Path, tools: Any, change: Callable[..., None]) -> None:
    path = tools.zip_of(bundle, tmp_path / "hostile.zip", change)
    with pytest.raises(BundleIntegrityError, match="link or a special file"):
        open_bundle(path)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "a//b", "a\n", ".hidden", "a/", "evil.so\0.txt"]
)
def test_names_in_a_zip(bundle: Path, tmp_path: Path, tools: Any, name: str) -> None:
    def rename(info: zipfile.ZipInfo) -> None:
        if info.filename == "placeholder":
            info.filename = name

    path = tools.zip_of(bundle, tmp_path / "hostile.zip", rename, extra={"placeholder": b"x"})
    before = set(tmp_path.iterdir())
    with pytest.raises(BundleIntegrityError, match="not a name"):
        open_bundle(path)
    assert set(tmp_path.iterdir()) == before


def test_extra_and_missing_files_in_a_zip(bundle: Path, tmp_path: Path, tools: Any) -> None:
    with pytest.raises(BundleIntegrityError, match=r"'evil\.so' is not in the manifest"):
        open_bundle(tools.zip_of(bundle, tmp_path / "extra.zip", extra={"evil.so": b"x"}))
    (bundle / "template.bin").unlink()
    with pytest.raises(BundleIntegrityError, match="missing"):
        open_bundle(tools.zip_of(bundle, tmp_path / "missing.zip"))


@pytest.mark.parametrize("name", ["template.bin", "manifest.json"])
def test_the_same_name_twice(bundle: Path, tmp_path: Path, tools: Any, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        path = tools.zip_of(bundle, tmp_path / "twice.zip", extra={name: b"{}"})
    with pytest.raises(BundleIntegrityError, match="twice"):
        open_bundle(path)


def test_a_zip_with_the_folder_in_it(bundle: Path, tmp_path: Path, tools: Any) -> None:
    with pytest.raises(BundleError, match=r"one level too deep"):
        open_bundle(tools.zip_of(bundle.parent, tmp_path / "nested.zip"))


def test_a_manifest_that_is_too_long(bundle: Path, tmp_path: Path, tools: Any) -> None:
    (bundle / "manifest.json").write_bytes(b" " * ((4 << 20) + 1))
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(tools.zip_of(bundle, tmp_path / "long.zip", compression=8))


def patched(path: Path, marker: bytes, offset: int, value: bytes, name: str = "") -> Path:
    """Overwrite bytes at `offset` from the header `marker`, in the central directory that of the entry `name`."""
    content = bytearray(path.read_bytes())
    position = content.rindex(marker)
    while name and content[position + 46 : position + 46 + len(name)] != name.encode():
        position = content.rindex(marker, 0, position)
    content[position + offset : position + offset + len(value)] = value
    path.write_bytes(content)
    return path


DIRECTORY, END = b"PK\x01\x02", b"PK\x05\x06"


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, b"\x01\x00", "encrypted"),
        (10, struct.pack("<H", zipfile.ZIP_LZMA), "method 14"),
        (10, struct.pack("<H", zipfile.ZIP_DEFLATED), "cannot be read|was changed"),
        (16, b"\0\0\0\0", "CRC"),
        (20, struct.pack("<L", 100), "CRC"),  # packed size
        (24, struct.pack("<L", 100), "has 100 bytes where the manifest says 3000"),
        (24, struct.pack("<L", 0xF0000000), "at most|zip bomb|bytes"),
        (42, struct.pack("<L", 0x7FFFFFFF), "cannot be read"),  # where the entry is
    ],
)
def test_entries_that_lie(packed: Path, offset: int, value: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        open_bundle(patched(packed, DIRECTORY, offset, value, "template.bin"))


def test_a_size_that_unpacking_does_not_bear_out(bundle: Path, tmp_path: Path, tools: Any) -> None:
    tools.edit_manifest(bundle, lambda manifest: manifest["files"]["template.bin"].update(size=100))
    path = tools.zip_of(bundle, tmp_path / "lie.zip", compression=8)
    with pytest.raises(BundleError):
        open_bundle(patched(path, DIRECTORY, 24, struct.pack("<L", 100), "template.bin"), verify_files=False)


def test_a_directory_that_claims_gigabytes(packed: Path) -> None:
    patched(packed, END, 12, struct.pack("<L", 5 << 20))
    with packed.open("r+b") as file:
        end = file.read()[-22:]
        file.seek(6 << 20)
        file.write(end)
    with pytest.raises(BundleError, match="directory claims 5242880 bytes"):
        open_bundle(packed)


def test_a_zip_bomb(bundle: Path, tmp_path: Path, tools: Any) -> None:
    zeros = bytes(17 << 20)
    path = tools.zip_of(bundle, tmp_path / "bomb.zip", extra={"bomb": zeros}, compression=8)
    with pytest.raises(BundleError, match="zip bomb"):
        open_bundle(path)


def test_too_many_entries(bundle: Path, tmp_path: Path, tools: Any) -> None:
    path = tools.zip_of(bundle, tmp_path / "many.zip", extra={f"x{i}": b"" for i in range(20)})
    with pytest.raises(BundleError, match="27 entries in the zip; at most 20"):
        open_bundle(path, limits=Limits(files=20))


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_a_file_that_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.zip").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read as a zip"):
        open_bundle(tmp_path / "no.zip")


def test_an_onnx_file_is_told_where_to_begin(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(bytes(100))
    with pytest.raises(BundleError, match=r"no bundle yet; begin with: edgetrack recipe new --onnx net\.onnx"):
        open_bundle(tmp_path / "net.onnx")


def test_a_truncated_zip(packed: Path) -> None:
    content = packed.read_bytes()
    for length in range(0, len(content), 97):
        packed.write_bytes(content[:length])
        # golden.npz is a zip too: cut after it, the archive ends like one.
        with pytest.raises(BundleError, match=r"cannot be read as a zip|has no manifest\.json"):
            open_bundle(packed)


def test_an_empty_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    (tmp_path / "empty.zip").write_bytes(buffer.getvalue())
    with pytest.raises(BundleError, match=r"has no manifest\.json at its top"):
        open_bundle(tmp_path / "empty.zip")


def test_nothing_of_a_refused_zip_stays(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    content = bytearray(packed.read_bytes())
    content[content.index(b"<net")] ^= 1
    packed.write_bytes(content)
    with pytest.raises(BundleError):
        open_bundle(packed)
    assert list(temporary.iterdir()) == []
