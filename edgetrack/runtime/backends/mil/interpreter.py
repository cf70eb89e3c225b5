"""A package's program, ready to be computed: its memory bounded, constants unfolded, values freed after their use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from edgetrack.arrays import Array
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.mil.evaluation import FOLDED, check, evaluate, fold, references, widened
from edgetrack.runtime.backends.mil.package import read_spec, refuse, signatures
from edgetrack.runtime.backends.mil.program import Operation, Program, read_program
from edgetrack.system.machine import memory_mib

_MIB = 1 << 20
_COPIES = 3
"""Of an operation's inputs and outputs, while it is computed."""
Observer = Callable[[Operation, Mapping[str, Array]], None]


class PackageInterpreter:
    """A program that is computed from images (H, W, 3) and arrays, as the package's description takes them."""

    def __init__(self, package: Path) -> None:
        """Read a package.

        Raises:
            BundleIntegrityError: it cannot be read, or holds what is not known here.
            BundleError: its values do not fit into the memory that is free.
            BackendMissingError: coremltools is missing.
        """
        self.inputs, self.outputs = signatures(read_spec(package))
        program = read_program(package)
        self._images = {name for name, (dtype, _) in self.inputs.items() if dtype == "uint8"}
        self._types = {port.name: port.dtype for port in program.inputs}
        found = {port.name: port.shape for port in program.inputs}
        stated = {name: self._inside(name, shape) for name, (_, shape) in self.inputs.items()}
        if found != stated or set(self.outputs) - set(program.outputs):
            refuse(package, f"its program takes {found} and gives {list(program.outputs)}, not what it describes")
        check(program)
        _require_memory(package, program)
        self._constants = {name: widened(value) for name, value in fold(program).items()}
        self._operations = [one for one in program.operations if not one.kind.startswith(FOLDED)]
        self._spent = _last_uses(self._operations, set(self.outputs))

    def _inside(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, shape[2], *shape[:2]) if name in self._images else shape

    def run(self, given: Mapping[str, Array], watch: Observer | None = None) -> dict[str, Array]:
        """Compute the outputs.

        Args:
            given: every input by name; images uint8 (H, W, 3), BGR.
            watch: shown each operation when it is computed, with the values that are held then.

        Raises:
            BundleIntegrityError: an operation cannot be computed, or does not give what the program declares.
        """
        values = dict(self._constants)
        for name, kind in self._types.items():
            value = given[name].transpose(2, 0, 1)[None] if name in self._images else given[name]
            values[name] = value.astype(kind)
        for operation, spent in zip(self._operations, self._spent, strict=True):
            values.update(evaluate(operation, values))
            if watch is not None:
                watch(operation, values)
            for name in spent:
                del values[name]
        return {name: values[name] for name in self.outputs}


def beyond(package: Path, fed: Iterable[Mapping[str, Array]], limit: float) -> list[str]:
    """The operations of a package that take or give a number larger than `limit` where it is fed so; by name, in order.

    Raises:
        BundleError: as `PackageInterpreter` does.
    """
    interpreter = PackageInterpreter(package)
    found: dict[str, None] = {}

    def watch(operation: Operation, values: Mapping[str, Array]) -> None:
        names = {*references(operation), *(port.name for port in operation.outputs)}
        if any(values[name].size and float(np.abs(values[name]).max()) > limit for name in names):
            found[operation.name] = None

    for given in fed:
        interpreter.run(given, watch)
    return list(found)


def _last_uses(operations: Iterable[Operation], kept: set[str]) -> list[list[str]]:
    """For each operation the values that none after it takes."""
    seen, found = set(kept), []
    for operation in reversed(list(operations)):
        names = {*references(operation), *(port.name for port in operation.outputs)}
        found.append(sorted(names - seen))
        seen |= names
    return found[::-1]


def _require_memory(package: Path, program: Program) -> None:
    """Refuse a program whose values do not fit into the memory that is free, from what it declares."""
    ports = [*program.inputs, *(port for operation in program.operations for port in operation.outputs)]
    sizes = {port.name: 4 * math.prod(port.shape) for port in ports}
    held = 4 * sum(value.size for value in program.constants.values()) + sum(
        sizes[port.name] for port in program.inputs
    )
    most = held
    uses = _last_uses(program.operations, set(program.outputs))
    for operation, spent in zip(program.operations, uses, strict=True):
        own = sum(sizes[port.name] for port in operation.outputs)
        taken = sum(sizes[name] for name in references(operation))
        held += own
        most = max(most, held + (_COPIES - 1) * (own + taken))
        held -= sum(sizes[name] for name in spent)
    _, available = memory_mib()
    if available is not None and most > available * _MIB:
        raise BundleError(
            f"{package.name} takes {most // _MIB} MiB in the reference interpreter, and {available} MiB are free here"
        )
