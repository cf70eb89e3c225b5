"""How far two computations of the same tensor are apart, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.runtime.backends.base import CompiledGraph

Array = NDArray[np.generic]


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor against its reference. The test is |a - b| <= atol + rtol |b| everywhere, b the reference.

    `atol` is what was allowed in all, a share of the reference's largest magnitude included.

    Attributes:
        name: what was compared.
        ok: whether it passed; NaN and infinity never do.
        max_abs, mean_abs, q999_abs: largest, mean and 99.9 % quantile of |a - b|.
        reference_max: largest |b|.
        smallest_atol: the smallest atol that would have passed with this rtol.
    """

    name: str
    ok: bool
    atol: float
    rtol: float
    max_abs: float
    mean_abs: float
    q999_abs: float
    reference_max: float
    smallest_atol: float


def compare(name: str, found: Array, reference: Array, *, atol: float, rtol: float, peak: float = 0.0) -> Comparison:
    """Hold a tensor against its reference; both finite and of one shape, else it fails with infinite errors.

    Args:
        atol, rtol: absolute, and relative to each value of the reference.
        peak: relative to the largest magnitude in the reference.
    """
    a, b = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        worst = float("inf")
        return Comparison(
            name=name, ok=False, atol=atol, rtol=rtol, max_abs=worst, mean_abs=worst, q999_abs=worst,
            reference_max=worst, smallest_atol=worst,
        )  # fmt: skip
    error = np.abs(a - b)
    largest = float(np.abs(b).max(initial=0.0))
    atol += peak * largest
    excess = float((error - rtol * np.abs(b)).max(initial=0.0))
    return Comparison(
        name=name,
        ok=excess <= atol,
        atol=atol,
        rtol=rtol,
        max_abs=float(error.max(initial=0.0)),
        mean_abs=float(error.mean()) if error.size else 0.0,
        q999_abs=float(np.quantile(error, 0.999)) if error.size else 0.0,
        reference_max=largest,
        smallest_atol=max(0.0, excess),
    )


def run_graph(graph: CompiledGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph on given inputs; the outputs are copies."""
    for name, buffer in graph.inputs.items():
        np.copyto(buffer, inputs[name], casting="no")
    graph.run()
    return {name: buffer.copy() for name, buffer in graph.outputs.items()}
