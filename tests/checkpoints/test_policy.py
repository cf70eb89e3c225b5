"""Files made to harm: no code runs, nothing is imported, and every failure is a `CheckpointError`."""

from __future__ import annotations

import asyncio
import builtins
import functools
import importlib
import operator
import os
import pickle
import runpy
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from edgetrack.checkpoints import read_checkpoint
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


def test_partials_of_a_trainer_are_inert(tmp_path: Path) -> None:
    saved = {
        "hyper_parameters": {"optimizer": functools.partial(torch.optim.AdamW, lr=1e-4)},
        "net": {"w": torch.ones(1)},
    }
    torch.save(saved, tmp_path / "lightning.ckpt")
    found = read_checkpoint(tmp_path / "lightning.ckpt", key="net")
    assert found.tensors["w"].tolist() == [1.0]
    assert "functools.partial" in found.placeholders


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
