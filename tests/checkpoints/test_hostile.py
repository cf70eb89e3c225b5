"""Files made to harm: no code runs, nothing is imported, and every failure is a `CheckpointError`."""

from __future__ import annotations

import asyncio
import builtins
import functools
import importlib
import io
import operator
import os
import pickle
import pickletools
import runpy
import socket
import struct
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgetrack.checkpoints import read_checkpoint
from edgetrack.checkpoints.interpreter import MAX_PICKLE_BYTES, Interpreter
from edgetrack.checkpoints.policy import classify
from edgetrack.errors import CheckpointError, UnsafeCheckpointError

Writer = Callable[..., Path]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.arguments

    def __call__(self) -> None:
        """Not called: pickle wants the function of a reduction, which may be a `Call` itself, to be callable."""


def touch(marker: Path) -> str:
    return f"touch {marker}"


def run_python(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


BY_REDUCE: dict[str, Callable[[Path], object]] = {
    "os.system": lambda m: Call(os.system, touch(m)),
    "builtins.eval": lambda m: Call(eval, run_python(m)),
    "builtins.exec": lambda m: Call(exec, run_python(m)),
    "builtins.open": lambda m: Call(open, str(m), "w"),
    "builtins.__import__": lambda m: Call(__import__, "os"),
    "builtins.getattr": lambda m: Call(Call(getattr, Call(__import__, "os"), "system"), touch(m)),
    "subprocess.Popen": lambda m: Call(subprocess.Popen, ["touch", str(m)]),
    "subprocess.check_output": lambda m: Call(subprocess.check_output, ["touch", str(m)]),
    "torch.hub.load": lambda m: Call(torch.hub.load, str(m.parent), "evil"),
    "torch.load": lambda m: Call(torch.load, str(m)),
    "runpy.run_path": lambda m: Call(runpy.run_path, str(m)),
    "importlib.import_module": lambda m: Call(importlib.import_module, "antigravity"),
    "functools.partial": lambda m: Call(functools.partial, os.system, touch(m)),
    "operator.attrgetter": lambda m: Call(operator.attrgetter, "system"),
    "types.new_class": lambda m: Call(types.new_class, "C"),
    "socket.create_connection": lambda m: Call(socket.create_connection, ("localhost", 1)),
    "threading.Thread": lambda m: Call(threading.Thread),
    "asyncio.run": lambda m: Call(asyncio.run, None),
    "numpy.load": lambda m: Call(np.load, str(m)),
    "torch.storage._load_from_bytes": lambda m: {"net": {"w": torch.ones(1)}},
    "sys.setrecursionlimit": lambda m: Call(sys.setrecursionlimit, 5),
    "in a list item": lambda m: {"net": {"w": [1.0]}, "list": [1, (2, {"a": Call(os.system, touch(m))})]},
    "as a state": lambda m: {"s": types.SimpleNamespace(x=Call(os.system, touch(m)))},
}

OPCODES: dict[str, Callable[[str], bytes]] = {
    "REDUCE": lambda c: b"cos\nsystem\n(V" + c.encode() + b"\ntR.",
    "INST": lambda c: b"(V" + c.encode() + b"\nios\nsystem\n.",
    "OBJ": lambda c: b"(cos\nsystem\nV" + c.encode() + b"\no.",
    "NEWOBJ": lambda c: b"\x80\x02cos\nsystem\n(V" + c.encode() + b"\nt\x81.",
    "NEWOBJ_EX": lambda c: b"\x80\x04cos\nsystem\n(V" + c.encode() + b"\nt}\x92.",
    "STACK_GLOBAL": lambda c: b"\x80\x04\x8c\x02os\x8c\x06system\x93(V" + c.encode() + b"\ntR.",
    "STACK_GLOBAL dotted": lambda c: (
        b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93(V" + c.encode() + b"\ntR."
    ),
    "dotted from a placeholder": lambda c: b"\x80\x04\x8c\x03lib\x8c\x09os.system\x93(V" + c.encode() + b"\ntR.",
    "dotted globals": lambda c: b"\x80\x04\x8c\x03lib\x8c\x11f.__globals__.get\x93(V" + c.encode() + b"\ntR.",
    "python 2": lambda c: b"c__builtin__\neval\n(V" + c.encode() + b"\ntR.",
    "posix": lambda c: b"cposix\nsystem\n(V" + c.encode() + b"\ntR.",
    "numpy runstring": lambda c: b"cnumpy.testing._private.utils\nrunstring\n(V" + c.encode() + b"\n}tR.",
    "runstring elsewhere": lambda c: b"cany.package\nrunstring\n(V" + c.encode() + b"\n}tR.",
    "numpy f2py": lambda c: b"cnumpy.f2py.crackfortran\nmyeval\n(V" + c.encode() + b"\ntR.",
    "through a memo": lambda c: b"\x80\x02cos\nsystem\nq\x000]h\x00(V" + c.encode() + b"\ntR.",
    "only named": lambda c: b"cos\nsystem\n.",
    "call of a placeholder's result": lambda c: b"clib.x\nmake\n(tR(V" + c.encode() + b"\ntR.",
    "call of text": lambda c: b"Vos.system\n(V" + c.encode() + b"\ntR.",
    "extension registry": lambda c: b"\x80\x02\x82\x01.",
}


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    made = {f"{name}, protocol {p}": pickle.dumps(make(marker), p) for name, make in BY_REDUCE.items() for p in (2, 4)}
    return made | {name: make(touch(marker)) for name, make in OPCODES.items()}


NAMES = sorted(hostile_pickles(Path("marker")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_code_is_refused_and_not_run(
    tmp_path: Path, torch_zip: Writer, torch_legacy: Writer, name: str, container: str
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "hubconf.py").write_text(f"def evil():\n    {run_python(marker)}\n")
    pickled = hostile_pickles(marker)[name]
    if container == "bare":
        path = tmp_path / "bare.pkl"
        path.write_bytes(pickled if pickled[0] == 0x80 else b"\x80\x02" + pickled)
    else:
        path = (torch_zip if container == "zip" else torch_legacy)(pickled)
    with pytest.raises(UnsafeCheckpointError, match=r"Nothing of it was run or imported\. .*safetensors") as caught:
        read_checkpoint(path, key="net")
    assert not marker.exists()
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


def test_the_message_names_the_global(torch_zip: Writer) -> None:
    with pytest.raises(UnsafeCheckpointError, match=r"it names posix\.system, which is code to run"):
        read_checkpoint(torch_zip(pickle.dumps(Call(os.system, "true"))))


def test_the_hostile_files_would_have_worked(tmp_path: Path) -> None:
    """The same pickles do touch the marker in Python's own unpickler, so the tests above test something."""
    for name in ("REDUCE", "INST", "OBJ", "STACK_GLOBAL", "os.system, protocol 2", "builtins.exec, protocol 4"):
        marker = tmp_path / name.replace(" ", "_")
        pickle.loads(hostile_pickles(marker)[name])
        assert marker.exists(), name


def test_state_and_items_reach_nothing(tmp_path: Path, torch_zip: Writer) -> None:
    """BUILD, APPEND, SETITEM and NEWOBJ on a class that exists and would act on each of them."""
    calls: list[str] = []

    class Acting:
        def __new__(cls, *_: object) -> Acting:
            calls.append("new")
            return super().__new__(cls)

        def __setstate__(self, state: object) -> None:
            calls.append("setstate")

        def append(self, item: object) -> None:
            calls.append("append")

        def __setitem__(self, key: object, item: object) -> None:
            calls.append("setitem")

    module = types.ModuleType("acting_module")
    module.Acting = Acting  # type: ignore[attr-defined]
    sys.modules["acting_module"] = module
    pickled = b"\x80\x02}X\x01\x00\x00\x00acacting_module\nActing\n)\x81K\x01aK\x01K\x02s}X\x01\x00\x00\x00xK\x01sbs."
    try:
        pickle.loads(pickled)
        assert calls == ["new", "append", "setitem", "setstate"]
        calls.clear()
        with pytest.raises(CheckpointError, match=r"an object of acting_module\.Acting"):
            read_checkpoint(torch_zip(pickled))
    finally:
        del sys.modules["acting_module"]
    assert calls == []


@pytest.mark.parametrize("module", ["antigravity", "edgetrack_absent_module", "this"])
def test_naming_a_module_does_not_import_it(torch_zip: Writer, module: str) -> None:
    before = set(sys.modules)
    with pytest.raises(CheckpointError):
        read_checkpoint(torch_zip(f"c{module}\nThing\n.".encode()))
    assert set(sys.modules) == before


HARMLESS_NAMES = [
    ("lib.train.admin.settings", "Settings"),
    ("lib.train.admin.local", "EnvironmentSettings"),
    ("lib.train.admin.stats", "AverageMeter"),
    ("lib.config.types", "Box"),
    ("easydict", "EasyDict"),
    ("collections", "defaultdict"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("pathlib", "PosixPath"),
    ("numpy.core.multiarray", "scalar"),
    ("torch.optim.adamw", "AdamW"),
    ("torch.nn.modules.linear", "Linear"),
    ("numpy.random._pickle", "__randomstate_ctor"),
]


@pytest.mark.parametrize(("module", "name"), HARMLESS_NAMES)
def test_classes_of_trainers_are_placeholders(module: str, name: str) -> None:
    assert not classify(module, name).known


@pytest.mark.parametrize("name", [name for name in dir(builtins) if callable(getattr(builtins, name))])
def test_builtins_are_plain_types_or_refused(name: str) -> None:
    plain = (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, object, range, set, slice, str, tuple)
    if getattr(builtins, name) in plain:
        assert classify("builtins", name).known
    else:
        with pytest.raises(UnsafeCheckpointError):
            classify("builtins", name)


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
