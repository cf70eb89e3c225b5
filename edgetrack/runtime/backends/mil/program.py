"""An ML program, checked as it is read: operations in order, each of values before it; constants and their file.

A program is data from outside. What it says of names, types, shapes and places in the weight file is compared with what
is there before anything is allocated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgetrack.arrays import Array
from edgetrack.bundle.integrity import LIMITS, is_file_name
from edgetrack.runtime.backends.mil.package import main_block, read_file, read_spec, refuse, specification_file

_TYPES = {1: "bool", 10: "float16", 11: "float32", 21: "int8", 22: "int16", 23: "int32", 31: "uint8", 32: "uint16"}
"""Numbers of MIL's types; what else there is (64 bits, 8-bit floats, sub-bytes) no export of ours holds."""
_TEXT = 2
_BLOBS = {"float16": 1, "float32": 2, "uint8": 3, "int8": 4, "int16": 6, "uint16": 7, "int32": 14}
"""The same in the weight file, which numbers them otherwise."""
_RECORD = struct.Struct("<IIQQ")
"""Mark, type, bytes, offset of the data; with what is reserved 64 bytes."""
_RECORD_BYTES, _MARK = 64, 0xDEADBEEF
_FOLDER = "@model_path/"
_MOST_DIMENSIONS = 16


class Declared(NamedTuple):
    """A value's name, its type as NumPy names it, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Reference:
    """A value that an earlier operation, or the caller, gives."""

    name: str


Operand = Array | str | Reference | tuple["Array | Reference", ...]


@dataclass(frozen=True)
class Operation:
    """One step; `outputs` has at least one port, the first one's name is the operation's."""

    kind: str
    operands: Mapping[str, Operand]
    outputs: tuple[Declared, ...]

    @property
    def name(self) -> str:
        return self.outputs[0].name


@dataclass(frozen=True)
class Program:
    """What is computed; `constants` are those that operations take, by name."""

    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Array]


class _DefectError(ValueError):
    """What is wrong in a program, in words."""


def read_program(package: Path) -> Program:
    """Read the program of a package.

    Raises:
        BundleIntegrityError: it cannot be read or contradicts itself: a value used before it is there or defined twice,
            a type or shape that is none, a constant that does not fill its shape or lies outside its file.
        BackendMissingError: coremltools is missing.
    """
    spec = read_spec(package)
    reader = _Reader(specification_file(package).parent)
    try:
        return reader.program(spec)
    except (_DefectError, OSError) as error:
        refuse(package, error)


class _Reader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self._known: dict[str, Operand] = {}

    def program(self, spec: Any) -> Program:
        block = main_block(spec)
        inputs = tuple(self._define(value) for value in spec.mlProgram.functions["main"].inputs)
        operations = []
        for operation in block.operations:
            if operation.type == "const":
                self._constant(operation)
            else:
                operations.append(self._operation(operation))
        for name in block.outputs:
            self._operand(name)
        constants = {name: value for name, value in self._known.items() if isinstance(value, np.ndarray)}
        return Program(inputs, tuple(block.outputs), tuple(operations), constants)

    def _define(self, value: Any) -> Declared:
        port = _port(value)
        if port.name in self._known:
            raise _DefectError(f"value {port.name!r} is defined twice")
        self._known[port.name] = Reference(port.name)
        return port

    def _constant(self, operation: Any) -> None:
        if len(operation.outputs) != 1 or "val" not in operation.attributes:
            raise _DefectError("a constant has no value, or not one name")
        name = operation.outputs[0].name
        if name in self._known:
            raise _DefectError(f"value {name!r} is defined twice")
        self._known[name] = self._value(operation.attributes["val"], name)

    def _operation(self, operation: Any) -> Operation:
        if operation.blocks:
            raise _DefectError(f"an operation {operation.type!r} holds a block; control flow is not interpreted")
        if not operation.outputs:
            raise _DefectError(f"an operation {operation.type!r} gives no value")
        operands: dict[str, Operand] = {}
        for key, argument in operation.inputs.items():
            found = [self._bound(binding, key) for binding in argument.arguments]
            if len(found) == 1:
                operands[key] = found[0]
            elif any(isinstance(one, (str, tuple)) for one in found):
                raise _DefectError(f"input {key!r} of an operation {operation.type!r} is a list of texts")
            else:
                operands[key] = tuple(one for one in found if isinstance(one, (np.ndarray, Reference)))
        for key, value in operation.attributes.items():
            if key != "name":
                operands[key] = self._value(value, key)
        return Operation(operation.type, operands, tuple(self._define(output) for output in operation.outputs))

    def _bound(self, binding: Any, key: str) -> Operand:
        kind = binding.WhichOneof("binding")
        return self._value(binding.value, key) if kind == "value" else self._operand(binding.name)

    def _operand(self, name: str) -> Operand:
        if name not in self._known:
            raise _DefectError(f"value {name!r} is used before it is defined")
        return self._known[name]

    def _value(self, value: Any, name: str) -> Array | str:
        kind = value.WhichOneof("value")
        if value.type.tensorType.dataType == _TEXT:
            texts = value.immediateValue.tensor.strings.values
            if len(texts) != 1:
                raise _DefectError(f"{name!r} is {len(texts)} texts; one was expected")
            return str(texts[0])
        port = _port_of(name, value.type)
        if kind == "blobFileValue":
            return self._blob(port, value.blobFileValue.fileName, value.blobFileValue.offset)
        if kind != "immediateValue":
            raise _DefectError(f"constant {name!r} has no value")
        return _immediate(port, value.immediateValue.tensor)

    def _blob(self, port: Declared, file: str, offset: int) -> Array:
        data, size = self._file(file), _bytes_of(port)
        where = f"constant {port.name!r} at {offset} of the weight file"
        if offset % _RECORD_BYTES or offset + _RECORD_BYTES > len(data):
            raise _DefectError(f"{where}: the file has {len(data)} bytes, in records of {_RECORD_BYTES}")
        mark, kind, stored, start = _RECORD.unpack_from(data, offset)
        if (mark, kind) != (_MARK, _BLOBS.get(port.dtype)):
            raise _DefectError(f"{where}: no record of {port.dtype} lies there")
        if stored != size or start + stored > len(data):
            raise _DefectError(
                f"{where}: {stored} bytes from {start} of {len(data)} are no {port.dtype} {list(port.shape)}"
            )
        dtype = np.dtype(port.dtype).newbyteorder("<")
        return np.frombuffer(data, dtype, math.prod(port.shape), start).reshape(port.shape)

    def _file(self, name: str) -> bytes:
        if name not in self._files:
            inside = name.removeprefix(_FOLDER)
            if inside == name or not is_file_name(inside):
                raise _DefectError(f"the weight file {name!r} is none of the package")
            self._files[name] = read_file(self._folder / inside)
        return self._files[name]


def _port(value: Any) -> Declared:
    return _port_of(value.name, value.type)


def _port_of(name: str, kind: Any) -> Declared:
    tensor = kind.tensorType
    if kind.WhichOneof("type") != "tensorType" or tensor.dataType not in _TYPES:
        raise _DefectError(f"value {name!r} is no tensor of a known type")
    shape = tuple(dimension.constant.size for dimension in tensor.dimensions)
    fixed = all(dimension.WhichOneof("dimension") == "constant" for dimension in tensor.dimensions)
    port = Declared(name, _TYPES[tensor.dataType], shape)
    if not fixed or tensor.rank != len(shape) or len(shape) > _MOST_DIMENSIONS:
        raise _DefectError(f"value {name!r} of rank {tensor.rank} has the shape {list(shape)}, which is not fixed")
    if _bytes_of(port) > LIMITS.total_bytes:
        raise _DefectError(f"value {name!r} of {port.dtype} {list(shape)} is larger than {LIMITS.total_bytes} bytes")
    return port


def _bytes_of(port: Declared) -> int:
    return math.prod(port.shape) * np.dtype(port.dtype).itemsize


_FIELDS = {"floats": "float32", "ints": "int32", "bools": "bool", "longInts": "int64", "doubles": "float64"}


def _immediate(port: Declared, tensor: Any) -> Array:
    field = tensor.WhichOneof("value")
    if field == "bytes":
        found = np.frombuffer(_whole(tensor.bytes.values, port), np.dtype(port.dtype).newbyteorder("<"))
    elif field in _FIELDS:
        found = np.array(getattr(tensor, field).values, _FIELDS[field])
        if found.astype(port.dtype).astype(found.dtype).tobytes() != found.tobytes():
            raise _DefectError(f"constant {port.name!r} holds numbers that are no {port.dtype}")
    else:
        raise _DefectError(f"constant {port.name!r} has no value")
    if found.size != math.prod(port.shape):
        raise _DefectError(f"constant {port.name!r} has {found.size} values for {port.dtype} {list(port.shape)}")
    return found.astype(port.dtype).reshape(port.shape)


def _whole(data: bytes, port: Declared) -> bytes:
    if len(data) != _bytes_of(port):
        raise _DefectError(f"constant {port.name!r} has {len(data)} bytes for {port.dtype} {list(port.shape)}")
    return data
