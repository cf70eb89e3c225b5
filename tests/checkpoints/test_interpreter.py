"""Damaged pickles, tensors outside their storage, odd archives: each a `CheckpointError`."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetrack.checkpoints import read_checkpoint
from edgetrack.checkpoints.interpreter import MAX_PICKLE_BYTES, Interpreter
from edgetrack.errors import CheckpointError

Writer = Callable[..., Path]
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


class TestMalformedPickles:
    @pytest.mark.parametrize(
        "pickled",
        [
            b"",
            b".",
            b"}",
            b"a.",
            b"}a.",
            b")K\x01a.",
            b"]K\x01K\x02s.",
            b"}(K\x01u.",
            b"u.",
            b"t.",
            b"0.",
            b"2.",
            b"R.",
            b")R.",
            b"o.",
            b"(o.",
            b"h\x07.",
            b"q\x07.",
            b"Pmarker\n.",
            b"NQ.",
            b"(X\x07\x00\x00\x00storageNNNNtQ.",
            b"]}b.",
            b"K\x01K\x02\x93.",
            b"\x80\x09}.",
            b"\x97.",
            b"\x98.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x8b\xff\xff\xff\xff",
            b"\x8b\xff\xff\xff\x7f",
            b"T\xff\xff\xff\x7fabc",
            b"T\xff\xff\xff\xff",
            b"X\x02\x00\x00\x00\xff\xff.",
            b"Vbad \\u12\n.",
            b"S'unclosed\n.",
            b"I" + b"9" * 4000 + b"x\n.",
            b"I" + b"9" * 5000 + b"\n.",
            b"Fnot a number\n.",
            b"cno_second_line\n",
            b"ccollections\nOrderedDict\nK\x01\x85R.",
            b"ccollections\nOrderedDict\n]K\x01a\x85R.",
            b"ccollections\nOrderedDict\nNR.",
            b"ctorch\nSize\n)R.",
            b"(Vmodule\nNNNtQ.",
            b"(Vstorage\nNtQ.",
            TENSOR + b")R.",
            TENSOR + b"(K\x01K\x02))tR.",
            b"ctorch._utils\n_rebuild_parameter\n)R.",
            b"\xff",
        ],
    )
    def test_is_a_checkpoint_error(self, torch_zip: Writer, pickled: bytes) -> None:
        with pytest.raises(CheckpointError):
            read_checkpoint(torch_zip(pickled), key="net")

    @pytest.mark.parametrize(
        "pickled",
        [
            b"]" * 100_000 + b"a" * 99_999 + b".",
            b")" + b"\x85" * 100_000 + b".",
            b"})" + b"\x85" * 100_000 + b"K\x01s.",
            b"}" + b"}" * 50_000 + b"(" * 50_000 + b".",
            b"]r\xff\xff\xff\xff.",
            b"]p99999999999999999999\n.",
            b"}q\x00X\x03\x00\x00\x00neth\x00s.",
        ],
        ids=["lists", "tuples", "tuple as key", "marks", "memo", "long memo", "itself"],
    )
    def test_deep_or_absurd(self, torch_zip: Writer, pickled: bytes) -> None:
        with pytest.raises(CheckpointError):
            read_checkpoint(torch_zip(pickled), key="net")

    @pytest.mark.parametrize(
        ("pickled", "what"),
        [
            (b"\x80\x04N" + b"\x94" * 2_000_000 + b".", "1000000 operations"),
            (b"\x80\x04(" + b"}" * 2_000_000 + b"t.", "1000000 operations"),
            (b"\x80\x04" + b"(" * 2_000_000 + b".", "1000000 operations"),
            (b"".join(b"ca\nC%d\n" % number for number in range(2000)) + b".", "1000 unknown classes"),
            (b"ca\n" + b"C" * 600 + b"\n.", "601 characters"),
        ],
        ids=["memo", "dicts", "marks", "classes", "long name"],
    )
    def test_budgets(self, torch_zip: Writer, pickled: bytes, what: str) -> None:
        with pytest.raises(CheckpointError, match=what):
            read_checkpoint(torch_zip(pickled), key="net")

    def test_one_list_makes_one_dict(self) -> None:
        pairs = b"](" + b"K\x01K\x02\x86" * 2 + b"eq\x00"
        made = b"ccollections\nOrderedDict\nh\x00\x85R"
        value = Interpreter(io.BytesIO(b"\x80\x02" + pairs + b"0(" + made * 3 + b"l.")).run()
        assert value == [{1: 2}, {}, {}]

    def test_colliding_numbers_as_keys(self) -> None:
        entries = b"".join(pickle.dumps(number * (2**61 - 1), 2)[2:-1] + b"N" for number in range(1, 50_000))
        value = Interpreter(io.BytesIO(b"\x80\x02}(" + entries + b"u.")).run()
        assert isinstance(value, dict)
        assert len(value) == 49_999

    def test_too_long(self, torch_zip: Writer, torch_legacy: Writer) -> None:
        comment = b"B" + struct.pack("<I", MAX_PICKLE_BYTES) + bytes(MAX_PICKLE_BYTES) + b"."
        for path in (torch_zip(comment), torch_legacy(comment)):
            with pytest.raises(CheckpointError, match="pickle is longer than"):
                read_checkpoint(path)


class TestTensorsOutsideTheirStorage:
    DATA: dict[str, bytes] = {"archive/data/0": bytes(16)}  # noqa: RUF012 (never written to)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"offset": 1}, "leaves its storage of 4 elements"),
            ({"size": (2, 3)}, "leaves its storage"),
            ({"stride": (3, 1)}, "leaves its storage"),
            ({"stride": (2**62, 2**62)}, "leaves its storage"),
            ({"size": (2**62, 2**62), "stride": (0, 0)}, "more than the limit"),
            ({"size": (0, 4), "offset": 5}, "leaves its storage"),
            ({"offset": -1}, "not counts"),
            ({"stride": (-1, 1)}, "not counts"),
            ({"size": (-2, -2)}, "not counts"),
            ({"size": (2**70, 1)}, "not counts"),
            ({"size": (True, True)}, "not counts"),
            ({"size": (2.0, 2.0)}, "not counts"),
            ({"size": [2, 2]}, "not counts"),
            ({"size": (1,) * 65, "stride": (1,) * 65}, "not counts"),
            ({"size": (4,)}, "1 sizes and 2 strides"),
            ({"numel": 5}, "16 bytes instead of 20"),
            ({"numel": 3, "size": (1, 1)}, "16 bytes instead of 12"),
            ({"numel": -4}, "no count"),
            ({"kind": "DoubleStorage"}, "16 bytes instead of 32"),
            ({"kind": "QInt8Storage"}, r"torch\.QInt8Storage, and only"),
            ({"key": "7"}, "storage 7 is not in the archive"),
            ({"key": "../0"}, "without a type or a number"),
            ({"key": "/etc/passwd"}, "without a type or a number"),
            ({"key": ""}, "without a type or a number"),
            ({"key": "²"}, "without a type or a number"),
        ],
    )
    def test_is_refused(
        self, torch_zip: Writer, tensor_pickle: Callable[..., bytes], change: dict[str, object], message: str
    ) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(torch_zip(tensor_pickle(**change), self.DATA))

    def test_the_unchanged_one_is_read(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        assert read_checkpoint(torch_zip(tensor_pickle(), self.DATA)).tensors["w"].shape == (2, 2)

    @pytest.mark.parametrize(
        ("storages", "message"),
        [
            ([("0", 5, bytes(20))], "5 elements instead of 4"),
            ([("0", 4, bytes(15))], "ends inside storage 0"),
            ([("0", 2**62, b"")], "elements instead of 4"),
            ([], "storage 0 is not in the file"),
            ([("1", 4, bytes(16))], "that no tensor uses"),
        ],
    )
    def test_legacy(
        self,
        torch_legacy: Writer,
        tensor_pickle: Callable[..., bytes],
        storages: list[tuple[str, int, bytes]],
        message: str,
    ) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(torch_legacy(tensor_pickle(), storages))

    def test_absurd_length_in_legacy(self, torch_legacy: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        path = torch_legacy(tensor_pickle(numel=2**60), [("0", 2**60, bytes(16))])
        with pytest.raises(CheckpointError, match="ends inside storage 0"):
            read_checkpoint(path)

    def test_one_storage_of_two_lengths(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        both = tensor_pickle(kind="FloatStorage")[:-1] + tensor_pickle(kind="DoubleStorage")[2:]
        with pytest.raises(CheckpointError, match="two lengths, 16 and 32 bytes"):
            read_checkpoint(torch_zip(both, self.DATA))


class TestArchives:
    @pytest.mark.parametrize(
        "name",
        [
            "archive/../../evil",
            "/etc/passwd",
            "archive/data/../0",
            "archive\\data\\1",
            "archive//x",
            "archive/x/",
            "..",
        ],
    )
    def test_paths_out_of_it(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes], name: str) -> None:
        with pytest.raises(CheckpointError, match="leads out of the archive or is no file"):
            read_checkpoint(torch_zip(tensor_pickle(), {"archive/data/0": bytes(16), name: b"x"}))

    def test_two_folders(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        with pytest.raises(CheckpointError, match="more than one folder"):
            read_checkpoint(torch_zip(tensor_pickle(), {"archive/data/0": bytes(16), "other/x": b"x"}))

    @pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_compressed_bomb(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes], compression: int) -> None:
        path = torch_zip(tensor_pickle(numel=2**20), {"archive/data/0": bytes(2**22)}, compression)
        with pytest.raises(CheckpointError, match="is compressed"):
            read_checkpoint(path)

    def test_overlapping_members(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        path = torch_zip(tensor_pickle(), {f"archive/data/{number}": bytes(4000) for number in range(2)})
        data = bytearray(path.read_bytes())
        for entry in (at for at in range(len(data) - 46) if data[at : at + 4] == b"PK\x01\x02"):
            if b"/data/" in data[entry + 46 : entry + 60]:
                data[entry + 20 : entry + 28] = struct.pack("<II", 7000, 7000)
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="overlap"):
            read_checkpoint(path)

    def test_two_members_of_one_name(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        path = torch_zip(tensor_pickle(), {"archive/data/0": bytes(16), "archive/data/1": bytes(16)})
        path.write_bytes(path.read_bytes().replace(b"archive/data/1", b"archive/data/0"))
        with pytest.raises(CheckpointError, match="same name"):
            read_checkpoint(path)

    def test_encrypted(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        path = torch_zip(tensor_pickle(), {"archive/data/0": bytes(16)})
        data = bytearray(path.read_bytes())
        for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
            for at in [at for at in range(len(data)) if data[at : at + 4] == signature]:
                data[at + flags] |= 1
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="encrypted"):
            read_checkpoint(path)

    def test_a_changed_value_is_noticed(self, torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
        path = torch_zip(tensor_pickle(), {"archive/data/0": b"\x11" * 16})
        path.write_bytes(path.read_bytes().replace(b"\x11" * 16, b"\x11" * 15 + b"\x12"))
        with pytest.raises(CheckpointError, match="CRC"):
            read_checkpoint(path)

    def test_long_byte_order(self, torch_zip: Writer) -> None:
        with pytest.raises(CheckpointError, match="byteorder has 100 bytes"):
            read_checkpoint(torch_zip(b"\x80\x02}.", {"archive/byteorder": b"l" * 100}))
