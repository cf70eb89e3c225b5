"""Files changed at random give the same tensors or a `CheckpointError`."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgetrack.checkpoints import read_checkpoint
from edgetrack.checkpoints.interpreter import Interpreter
from edgetrack.errors import CheckpointError

Writer = Callable[..., Path]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


GOOD = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2]), "c": torch.ones(3).half()}


def good_bytes(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(GOOD)
    buffer = io.BytesIO()
    torch.save(GOOD, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def good_pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(good_bytes("zip"))) as archive:
        return archive.read("archive/data.pkl")


GOOD_BYTES = {kind: good_bytes(kind) for kind in ("zip", "legacy", "safetensors")}
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


def changed(data: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(data))] = value
    return bytes(damaged[: len(data) - int(cut * len(data))])


class TestFuzz:
    @FUZZ
    @given(changes=CHANGES, cut=st.sampled_from([0.0, 0.0, 0.01, 0.5]))
    def test_zip_gives_the_same_tensors_or_an_error(
        self, tmp_path: Path, changes: list[tuple[float, int]], cut: float
    ) -> None:
        path = tmp_path / "fuzzed.pth"
        path.write_bytes(changed(GOOD_BYTES["zip"], changes, cut))
        try:
            found = read_checkpoint(path).tensors
        except CheckpointError:
            return
        assert list(found) == list(GOOD)
        assert all(torch.equal(found[name], GOOD[name]) for name in GOOD)

    @FUZZ
    @given(kind=st.sampled_from(["legacy", "safetensors"]), changes=CHANGES, cut=st.sampled_from([0.0, 0.0, 0.01, 0.5]))
    def test_formats_without_checksums(
        self, tmp_path: Path, kind: str, changes: list[tuple[float, int]], cut: float
    ) -> None:
        path = tmp_path / "fuzzed.pth"
        path.write_bytes(changed(GOOD_BYTES[kind], changes, cut))
        try:
            found = read_checkpoint(path).tensors
        except CheckpointError:
            return
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())

    @pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
    def test_every_truncation(self, tmp_path: Path, kind: str) -> None:
        data = GOOD_BYTES[kind]
        path = tmp_path / "cut.pth"
        for length in range(0, len(data), 1 if len(data) < 400 else 7):
            path.write_bytes(data[:length])
            with pytest.raises(CheckpointError):
                read_checkpoint(path)

    @FUZZ
    @given(changes=CHANGES)
    def test_changed_pickles_with_a_good_checksum(self, torch_zip: Writer, changes: list[tuple[float, int]]) -> None:
        with zipfile.ZipFile(io.BytesIO(GOOD_BYTES["zip"])) as archive:
            data = {f"archive/data/{number}": archive.read(f"archive/data/{number}") for number in range(3)}
        path = torch_zip(changed(good_pickle(), changes, 0), data)
        try:
            found = read_checkpoint(path).tensors
        except CheckpointError:
            return
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())

    @FUZZ
    @given(
        parts=st.lists(
            st.one_of(
                st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]),
                st.sampled_from(
                    [TENSOR, b"ccollections\nOrderedDict\n", b"ca\nB\n", b"X\x01\x00\x00\x00a", b"K\x01", b"("]
                ),
                st.binary(max_size=4),
            ),
            max_size=40,
        )
    )
    @example(parts=[b"(", b"K\x01", b"0", b"0", b"t", b"."])
    def test_random_opcodes(self, parts: list[bytes]) -> None:
        try:
            Interpreter(io.BytesIO(b"".join(parts) + b".")).run()
        except CheckpointError:
            return

    @FUZZ
    @given(
        data=st.binary(max_size=300),
        head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x10" + b"\0" * 7 + b"{"]),
    )
    def test_garbage(self, tmp_path: Path, data: bytes, head: bytes) -> None:
        (tmp_path / "garbage.pth").write_bytes(head + data)
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "garbage.pth")
