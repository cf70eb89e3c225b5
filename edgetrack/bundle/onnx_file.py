"""What an ONNX file may hold, read from its bytes before any library loads it.

The `onnx` package is not on devices, and libraries resolve references to other files while they load: some versions of
ONNX Runtime read them at any path. So the few fields that matter here are read by the wire format of protocol buffers
(https://protobuf.dev/programming-guides/encoding, numbers from onnx.proto3, IR version 13). Weights are passed over.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from edgetrack.bundle.integrity import is_file_name, open_plain
from edgetrack.errors import BundleError, BundleIntegrityError

MAX_ONNX_BYTES = (2 << 30) - 1
"""Protocol buffers are no longer; larger models keep their weights in files beside them."""
MAX_FIELDS = 1_000_000
"""Of the parts that are read; the largest of a known tracker has 60,000."""
MAX_DEPTH = 12
CONTROL_FLOW = frozenset({"Loop", "If", "Scan", "SequenceMap"})
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_EXTERNAL = 1

# Message -> number of a field -> the message it holds; what is not listed is passed over.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}


class _Field(NamedTuple):
    number: int
    number_value: int
    start: int
    end: int


class _Place(NamedTuple):
    """Which node a message belongs to, and whether the family declares its operator."""

    name: str
    declared: bool


def check_onnx(path: Path, operators: Collection[str] = ()) -> tuple[Path, ...]:
    """Check an ONNX file before it is loaded.

    Refused are data in files outside its folder or behind links, control flow, functions of its own, and operators of
    other domains than ONNX's and ONNX Runtime's: the first read what they like, a loop may grow without end, and the
    last are run by code that nobody here has seen.

    Args:
        path: the file; no link.
        operators: those that the tracker's family needs all the same: `Loop`, or `domain::Name` of another domain.

    Returns:
        The files beside it that hold data of its tensors, sorted.

    Raises:
        BundleIntegrityError: not ONNX, or it holds one of these; the message names graph, node and tensor.
        OSError: it cannot be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not 0 < size <= MAX_ONNX_BYTES:
            raise BundleIntegrityError(f"{path.name} has {size} bytes; an ONNX file has 1 to {MAX_ONNX_BYTES}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Walk(path, data, frozenset(operators)).files()
            except (ValueError, IndexError, UnicodeDecodeError) as error:
                raise BundleIntegrityError(
                    f"{path.name} is no ONNX file, or damaged ({error}); make it again"
                ) from None


class _Walk:
    """One pass over a file's messages, the outer before the inner."""

    def __init__(self, path: Path, data: mmap.mmap, operators: frozenset[str]) -> None:
        self.path, self.data, self.operators = path, data, operators
        self.budget = MAX_FIELDS
        self.found: set[Path] = set()

    def files(self) -> tuple[Path, ...]:
        graphs = 0
        pending = [("Model", 0, len(self.data), 0, _Place("", False))]
        while pending:
            kind, start, end, depth, place = pending.pop()
            if depth > MAX_DEPTH:
                raise ValueError(f"messages in more than {MAX_DEPTH} levels")
            fields = list(self._fields(start, end))
            here = self._judge(kind, fields, place)
            inner = _MESSAGES.get(kind, {})
            for field in fields:
                if field.number in inner:
                    if field.end < 0:
                        raise ValueError(f"field {field.number} of {kind} is no message")
                    pending.append((inner[field.number], field.start, field.end, depth + 1, here))
                    graphs += kind == "Model" and field.number == 7
        if graphs != 1:
            raise ValueError(f"{graphs} graphs")
        return tuple(sorted(self.found))

    def _judge(self, kind: str, fields: list[_Field], place: _Place) -> _Place:
        """Check one message; returns the place of the messages inside it."""
        if kind == "Node":
            return self._judge_node(fields)
        if kind == "Function":
            raise self._refused(f"holds a function of its own, {self._text(fields, 1)!r}; inline it (onnx.inliner)")
        if kind == "Training":
            raise self._refused("holds a training graph; export the network for inference")
        if kind == "Attribute" and not place.declared and any(field.number in (6, 11) for field in fields):
            raise self._refused(f"{place.name} holds a graph of its own, which this tracker's family does not need")
        if kind == "Tensor":
            self._judge_tensor(fields, place.name)
        return place

    def _judge_node(self, fields: list[_Field]) -> _Place:
        operator, domain = self._text(fields, 4), self._text(fields, 7)
        name = self._text(fields, 3) or ", ".join(self._texts(fields, 2)) or "without a name"
        where = f"node {name!r} ({operator})"
        plain = domain in _DOMAINS
        declared = (operator if plain else f"{domain}::{operator}") in self.operators
        if plain and operator in CONTROL_FLOW and not declared:
            raise self._refused(f"{where} is control flow, which this tracker's family does not need")
        if not plain and not declared:
            raise self._refused(f"{where} is of domain {domain!r}; only operators of ONNX and ONNX Runtime are run")
        return _Place(where, declared)

    def _judge_tensor(self, fields: list[_Field], where: str) -> None:
        entries = [field for field in fields if field.number == 13]
        external = any(field.number == 14 and field.number_value == _EXTERNAL for field in fields)
        if not entries and not external:
            return
        stated = {}
        for entry in entries:
            if entry.end < 0:
                raise ValueError("external data that is no message")
            pair = list(self._fields(entry.start, entry.end))
            stated[self._text(pair, 1)] = self._text(pair, 2)
        tensor = f"tensor {self._text(fields, 8)!r}" + (f" of {where}" if where else "")
        self.found.add(self._beside(stated.get("location", ""), tensor))

    def _beside(self, location: str, tensor: str) -> Path:
        """The file that holds a tensor's data: plain, and below the folder of this one."""
        if not is_file_name(location):
            raise self._refused(
                f"{tensor} has its data in {location!r}; only files beside it are read: save the model in one file"
            )
        file = self.path.parent / location
        try:
            with open_plain(file):
                pass
        except (OSError, BundleError) as error:
            raise self._refused(f"{tensor} has its data in {location!r}, which cannot be read: {error}") from None
        if file.resolve() != self.path.parent.resolve() / location:
            raise self._refused(f"{tensor} has its data in {location!r}, behind a link; copy the files themselves")
        return file

    def _refused(self, what: str) -> BundleIntegrityError:
        return BundleIntegrityError(f"graph {self.path.name}: {what}")

    def _text(self, fields: list[_Field], number: int) -> str:
        return (self._texts(fields, number) or [""])[-1]

    def _texts(self, fields: list[_Field], number: int) -> list[str]:
        """Values of a text field; in what is shown, a kilobyte is enough."""
        found = []
        for field in fields:
            if field.number == number:
                if not 0 <= field.end - field.start <= 4096:
                    raise ValueError(f"a name of {field.end - field.start} bytes")
                found.append(self.data[field.start : field.end].decode("utf-8"))
        return found

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        """The fields of a message between two positions; `end` of one is -1 where it holds a number."""
        at = start
        while at < end:
            self.budget -= 1
            if self.budget < 0:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = self._varint(at, end)
                yield _Field(number, value, at, -1)
                continue
            if wire == 2:
                length, at = self._varint(at, end)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if number == 0 or length > end - at:
                raise ValueError("a field that reaches beyond its message")
            yield _Field(number, 0, at, at + length if wire == 2 else -1)
            at += length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1, at
            shift += 7
        raise ValueError("a number that does not end")
