"""A pickle machine that can only build data: lists, dicts, numbers, text, and references to tensors.

`pickletools.genops` (which only splits a pickle into opcodes) feeds it. Python's unpickler is not used, so there is
no import, no call, no attribute, no `__setstate__` and no recursion. What the pickle would call becomes a reference to
a tensor, a plain dict, or an `Inert`.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch

from edgetrack.checkpoints.policy import Global, GlobalKind, classify, refusal, shown
from edgetrack.errors import CheckpointError, UnsafeCheckpointError


class Inert:
    """What stands for an object of an unknown class: it takes any state and any items, and keeps none of it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(frozen=True)
class StorageRef:
    """A storage the pickle refers to: `numel` elements of `dtype`, None if the type `name` is not supported."""

    key: str
    numel: int
    dtype: torch.dtype | None
    name: str

    @property
    def element(self) -> torch.dtype:
        """The dtype; CheckpointError if the type is not supported."""
        if self.dtype is None:
            supported = "float16/32/64, bfloat16, int8/16/32/64, uint8 and bool"
            raise CheckpointError(f"it is kept in a {shown(self.name)}, and only {supported} tensors can be read")
        return self.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes; CheckpointError if the type is not supported."""
        return self.numel * self.element.itemsize


@dataclass(frozen=True)
class TensorRef:
    """A tensor the pickle describes: sizes, strides and offset count elements and are not checked yet."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def malformed(what: str) -> CheckpointError:
    """The error for a pickle that no writer of weights produces."""
    return CheckpointError(f"damaged or not a weights file: {what}. Download or copy it again")


def describe(value: object) -> str:
    """What kind of value this is, for a message; never its contents."""
    if isinstance(value, Inert):
        return f"an object of {shown(value.name)}"
    if isinstance(value, Global):
        return f"the name {shown(value.qualified)}"
    if isinstance(value, TensorRef):
        return "a tensor"
    return "None" if value is None else f"a {type(value).__name__}"


def _too_much(limit: int, what: str) -> CheckpointError:
    return CheckpointError(
        f"its pickle has more than {limit} {what}, too many for weights. Save the state dict alone with torch.save"
    )


MAX_PICKLE_BYTES = 16 * 2**20
"""Largest pickle that is interpreted; a weights file of 1000 tensors with its optimizer state has less than 1 MiB."""

MAX_OPERATIONS = 1_000_000
"""Of all pickles of a file; 2000 tensors with their optimizer's state take about 250,000."""

MAX_STORAGES = 20_000
MAX_UNKNOWN = 1000
_MAX_NAME = 512
_MAX_LINE = 4096
_MAX_INT = 2**63 - 1
_MAX_INT_KEY = 2**60
_MAX_DIMENSIONS = 64


class PickleStream(Protocol):
    """What a pickle is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class _Bounded:
    """A stream that gives at most `MAX_PICKLE_BYTES`, so that a stated length cannot ask for absurd memory."""

    def __init__(self, stream: PickleStream) -> None:
        self._stream = stream
        self._left = MAX_PICKLE_BYTES

    def read(self, size: int) -> bytes:
        return self._count(self._stream.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._count(self._stream.readline(_MAX_LINE))

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise CheckpointError(f"its pickle is longer than {MAX_PICKLE_BYTES} bytes, too long for a weights file")
        return data


class Interpreter:
    """Replays one pickle after another from a stream; `unknown` and `storages` gather what they name, in order."""

    def __init__(self, stream: PickleStream) -> None:
        self.unknown: dict[str, None] = {}
        self.storages: dict[str, StorageRef] = {}
        self._stream = stream
        self._operations_left = MAX_OPERATIONS
        self._reset()

    def _reset(self) -> None:
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """The value of the next pickle, and the stream left behind it; raises CheckpointError."""
        self._reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools warns of odd escapes in protocol 0 text
            self._replay()
        return self.pop()

    def _replay(self) -> None:
        try:
            for opcode, argument, _ in pickletools.genops(_Bounded(self._stream)):  # type: ignore[arg-type]
                self._operations_left -= 1
                if self._operations_left < 0:
                    raise _too_much(MAX_OPERATIONS, "operations")
                if opcode.name == "STOP":
                    break
                handler = _HANDLERS.get(opcode.name)
                if handler is None:
                    raise malformed(f"the pickle opcode {opcode.name} is never part of one")
                handler(self, argument)
        except ValueError as error:
            raise malformed(f"its pickle cannot be read ({shown(str(error))})") from error

    def push(self, value: object) -> None:
        self._stack.append(value)

    def pop(self) -> object:
        if not self._stack:
            raise malformed("its pickle takes a value that is not there")
        return self._stack.pop()

    def top(self) -> object:
        if not self._stack:
            raise malformed("its pickle uses a value that is not there")
        return self._stack[-1]

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop_mark(self) -> list[object]:
        if not self._marks:
            raise malformed("its pickle closes a group that was not opened")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.top()

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise malformed(f"its pickle recalls value {index}, which it never kept")
        self.push(self._memo[index])

    def find(self, module: object, name: object) -> Global:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise malformed("its pickle names a class by something else than text")
        if len(module) + len(name) > _MAX_NAME:
            raise malformed(f"its pickle names a class by {len(module) + len(name)} characters")
        found = classify(module, name)
        if not found.known:
            self.unknown[found.qualified] = None
            if len(self.unknown) > MAX_UNKNOWN:
                raise _too_much(MAX_UNKNOWN, "unknown classes")
        return found

    def extend(self, items: list[object]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise malformed(f"its pickle appends to {describe(target)}")

    def update(self, items: list[object]) -> None:
        target = self.top()
        if len(items) % 2:
            raise malformed("its pickle has a key without a value")
        if isinstance(target, dict):
            target.update(zip(map(_as_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise malformed(f"its pickle sets an item of {describe(target)}")

    def build(self) -> None:
        self.pop()
        if not isinstance(self.top(), (Inert, dict)):
            raise malformed(f"its pickle sets the state of {describe(self.top())}")

    def call(self, target: object, arguments: object) -> None:
        if not isinstance(target, Global):
            raise UnsafeCheckpointError(refusal(f"it calls {describe(target)} as if it were a function"))
        if not isinstance(arguments, tuple):
            raise malformed(f"its pickle calls {shown(target.qualified)} without a tuple of arguments")
        self.push(_CALLS[target.kind](target, arguments))

    def persistent(self, identity: object) -> None:
        """Push what the writer kept outside the pickle: a storage, or (legacy) the class of a module and its source."""
        if not (isinstance(identity, tuple) and identity and identity[0] in ("storage", "module")):
            raise malformed("its pickle refers to something outside that is not a storage")
        if identity[0] == "module" and len(identity) == 4 and isinstance(identity[1], Global):
            self.push(identity[1])
        else:
            self.push(self._storage(identity))

    def _storage(self, identity: tuple[object, ...]) -> StorageRef:
        if len(identity) < 5:
            raise malformed("its pickle refers to a storage without its properties")
        _, kind, key, _, numel, *view = identity
        if not (isinstance(kind, Global) and isinstance(key, str) and key.isascii() and key.isdigit()):
            raise malformed("its pickle refers to a storage without a type or a number")
        if not _is_count(numel) or any(part is not None for part in view):
            raise malformed(f"the length of storage {shown(key)} is no count, or it is a view of another storage")
        ref = StorageRef(key, numel, kind.dtype, kind.qualified)
        known = self.storages.setdefault(key, ref)
        if len(self.storages) > MAX_STORAGES:
            raise _too_much(MAX_STORAGES, "storages")
        if None not in (known.dtype, ref.dtype) and known.nbytes != ref.nbytes:
            raise malformed(f"storage {shown(key)} has two lengths, {known.nbytes} and {ref.nbytes} bytes")
        return ref


def _as_key(value: object) -> object:
    # Only keys that hash fast and apart: tuples hash by recursion in C, and a file can choose numbers that collide.
    hashed = value is None or isinstance(value, (str, bytes)) or (isinstance(value, int) and abs(value) < _MAX_INT_KEY)
    return value if hashed else Inert("a key")


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MAX_INT


def _tensor(_: Global, arguments: tuple[object, ...]) -> TensorRef:
    if len(arguments) < 4 or not isinstance(arguments[0], StorageRef):
        raise malformed("a tensor has no storage, offset, sizes and strides")
    (offset,) = _counts((arguments[1],))
    size, stride = _counts(arguments[2]), _counts(arguments[3])
    if len(size) != len(stride):
        raise malformed(f"a tensor has {len(size)} sizes and {len(stride)} strides")
    return TensorRef(arguments[0], offset, size, stride)


def _counts(values: object) -> tuple[int, ...]:
    if not (isinstance(values, tuple) and len(values) <= _MAX_DIMENSIONS and all(map(_is_count, values))):
        raise malformed("the sizes, strides and offset of a tensor are not counts of elements")
    return values


def _parameter(_: Global, arguments: tuple[object, ...]) -> TensorRef:
    if not (arguments and isinstance(arguments[0], TensorRef)):
        raise malformed("a parameter has no tensor")
    return arguments[0]


def _mapping(_: Global, arguments: tuple[object, ...]) -> dict[object, object]:
    pairs = arguments[0] if arguments else []
    if not isinstance(pairs, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise malformed("an ordered dict is not made of pairs")
    made = {_as_key(key): value for key, value in pairs}
    pairs.clear()  # a file that makes a thousand dicts of one list gets one, not a thousand times its memory
    return made


def _size(_: Global, arguments: tuple[object, ...]) -> tuple[object, ...]:
    if not (len(arguments) == 1 and isinstance(arguments[0], tuple)):
        raise malformed("a torch.Size is not made of one tuple")
    return arguments[0]


def _inert(target: Global, _: tuple[object, ...]) -> Inert:
    return Inert(target.qualified)


_CALLS: Mapping[GlobalKind, Callable[[Global, tuple[object, ...]], object]] = {
    GlobalKind.TENSOR: _tensor,
    GlobalKind.PARAMETER: _parameter,
    GlobalKind.MAPPING: _mapping,
    GlobalKind.SIZE: _size,
    GlobalKind.STORAGE: _inert,
    GlobalKind.INERT: _inert,
}


def _protocol(_: Interpreter, version: int) -> None:
    if version > 5:
        raise malformed(f"pickle protocol {version} does not exist")


def _global(machine: Interpreter, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(machine.find(module, name))


def _stack_global(machine: Interpreter, _: None) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.find(module, name))


def _instance(machine: Interpreter, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.call(machine.find(module, name), tuple(machine.pop_mark()))


def _object(machine: Interpreter, _: None) -> None:
    target, *arguments = machine.pop_mark() or [None]
    machine.call(target, tuple(arguments))


def _reduce(machine: Interpreter, _: None) -> None:
    arguments, target = machine.pop(), machine.pop()
    machine.call(target, arguments)


def _new_with_keywords(machine: Interpreter, _: None) -> None:
    machine.pop()
    _reduce(machine, None)


def _short_tuple(length: int) -> Callable[[Interpreter, Any], object]:
    def handler(machine: Interpreter, _: object) -> None:
        machine.push(tuple([machine.pop() for _ in range(length)][::-1]))

    return handler


def _set_item(machine: Interpreter, _: None) -> None:
    value, key = machine.pop(), machine.pop()
    machine.update([key, value])


def _dict(machine: Interpreter, _: None) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.update(items)


def _frozen_set(machine: Interpreter, _: None) -> None:
    machine.pop_mark()
    machine.push(Inert("builtins.frozenset"))


def _extension(_: Interpreter, code: int) -> None:
    raise UnsafeCheckpointError(refusal(f"it asks for the program's own extension {code}"))


_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_OTHER_LITERALS = ("FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")

_HANDLERS: Mapping[str, Callable[[Interpreter, Any], object]] = {
    **dict.fromkeys((*_INTEGERS, *_TEXTS, *_OTHER_LITERALS), Interpreter.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Interpreter.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Interpreter.get),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.pop_mark())),
    "PROTO": _protocol,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "MARK": lambda machine, _: machine.mark(),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push(Inert("builtins.set")),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": _short_tuple(1),
    "TUPLE2": _short_tuple(2),
    "TUPLE3": _short_tuple(3),
    "FROZENSET": _frozen_set,
    "DICT": _dict,
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    "BUILD": lambda machine, _: machine.build(),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    "NEWOBJ_EX": _new_with_keywords,
    "BINPERSID": lambda machine, _: machine.persistent(machine.pop()),
}
