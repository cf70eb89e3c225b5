"""One operation of an ML program computed, its result compared with what the program declares; what is constant, ahead.

Arithmetic: inputs of float16 are widened, an operation is computed in float32 throughout, and its result is rounded to
the type that the program declares for it: once an operation, after its sums.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import numpy as np

from edgetrack.arrays import Array
from edgetrack.errors import BundleIntegrityError
from edgetrack.runtime.backends.mil import layers  # noqa: F401
from edgetrack.runtime.backends.mil.operators import OPERATORS
from edgetrack.runtime.backends.mil.program import Operand, Operation, Program, Reference

FOLDED = "constexpr_"
"""How operations are called whose value is constant: weights that are stored in fewer bits."""
_MIXING = ("cast", FOLDED)
"""Operations that take other types of floats than they give."""


def check(program: Program) -> None:
    """Compare a program with the table of operators, before anything is computed.

    Raises:
        BundleIntegrityError: an operation is none of them, lacks an input or has a foreign one, or mixes floats.
    """
    types = {port.name: port.dtype for port in program.inputs}
    types |= {port.name: port.dtype for operation in program.operations for port in operation.outputs}
    if foreign := sorted({operation.kind for operation in program.operations} - OPERATORS.keys()):
        raise BundleIntegrityError(
            f"the reference interpreter does not know the operation {', '.join(foreign)}; it knows those that "
            f"edgetrack exports: {', '.join(sorted(OPERATORS))}"
        )
    for operation in program.operations:
        try:
            inspect.signature(OPERATORS[operation.kind].compute).bind(**operation.operands)
        except TypeError as error:
            _refuse(operation, error)
        if not operation.kind.startswith(_MIXING):
            floats = {_type_of(operand, types) for operand in _flat(operation)} | {operation.outputs[0].dtype}
            if len(mixed := sorted(kind for kind in floats if kind.startswith("float"))) > 1:
                _refuse(operation, f"it mixes {' and '.join(mixed)}")


def evaluate(operation: Operation, values: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The values that an operation gives, by name, in their declared types.

    Args:
        operation: one of a program that was checked.
        values: those that it refers to.

    Raises:
        BundleIntegrityError: it cannot be computed, or is not of the declared shape.
    """
    operator, first = OPERATORS[operation.kind], operation.outputs[0]
    operands = {name: _resolved(operand, values) for name, operand in operation.operands.items()}
    try:
        with np.errstate(all="ignore"):
            if operator.shape is not None and (shape := tuple(operator.shape(**operands))) != first.shape:
                _refuse(operation, f"it gives {list(shape)} and declares {list(first.shape)}")
            found = operator.compute(**operands)
    except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
        _refuse(operation, error)
    results = list(map(np.asarray, found)) if isinstance(found, list) else [np.asarray(found)]
    if len(results) != len(operation.outputs):
        _refuse(operation, f"it gives {len(results)} values and declares {len(operation.outputs)}")
    for port, result in zip(operation.outputs, results, strict=True):
        declared = np.dtype(port.dtype)
        if result.shape != port.shape or (result.dtype.kind == "f") != (declared.kind == "f"):
            _refuse(
                operation,
                f"it gives {result.dtype} {list(result.shape)} and declares {port.dtype} {list(port.shape)}",
            )
        with np.errstate(over="ignore"):  # beyond float16's largest lies infinity, as on a device
            yield port.name, result.astype(declared, copy=False)


def fold(program: Program) -> dict[str, Array]:
    """All constants of a program by name, with those that are stored in fewer bits unfolded.

    Raises:
        BundleIntegrityError: one cannot be.
    """
    found = dict(program.constants)
    for operation in program.operations:
        if operation.kind.startswith(FOLDED):
            if operation.kind not in OPERATORS:
                _refuse(operation, "the reference interpreter does not know how its weights are stored")
            if any(isinstance(operand, Reference) for operand in _flat(operation)):
                _refuse(operation, "it is computed from what is no constant")
            found |= evaluate(operation, {})
    return found


def widened(value: Array) -> Array:
    """Numbers as they are computed with: float32 in place of float16."""
    return value.astype(np.float32) if value.dtype == np.float16 else value


def references(operation: Operation) -> Iterator[str]:
    """The names of the values that an operation is computed from."""
    for operand in _flat(operation):
        if isinstance(operand, Reference):
            yield operand.name


def _flat(operation: Operation) -> Iterator[Operand]:
    for operand in operation.operands.values():
        yield from operand if isinstance(operand, tuple) else (operand,)


def _type_of(operand: Operand, types: Mapping[str, str]) -> str:
    if isinstance(operand, Reference):
        return types[operand.name]
    return str(operand.dtype) if isinstance(operand, np.ndarray) else ""


def _resolved(operand: Operand, values: Mapping[str, Array]) -> Array | str | tuple[Array, ...]:
    if isinstance(operand, Reference):
        return widened(values[operand.name])
    if isinstance(operand, tuple):
        return tuple(widened(values[one.name] if isinstance(one, Reference) else one) for one in operand)
    return widened(operand) if isinstance(operand, np.ndarray) else operand


def _refuse(operation: Operation, why: object) -> None:
    raise BundleIntegrityError(
        f"operation {operation.name!r} ({operation.kind}) of the ML program cannot be computed: {why}; "
        "export the bundle again"
    )
