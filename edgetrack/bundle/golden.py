"""A bundle's golden record: inputs of every graph with the outputs that were proven for them."""

from __future__ import annotations

import math

from edgetrack.arrays import Array
from edgetrack.bundle.reader import Bundle, read_npz
from edgetrack.errors import BundleError

GOLDEN_FILE = "golden.npz"
_LARGEST_ITEM, _LARGEST_HEADER, _MOST_SAMPLES = 8, 4096, 64


def read_golden(bundle: Bundle) -> dict[str, Array]:
    """The golden record, `sample/graph/in|out/tensor` -> array, compared with the manifest before it is unpacked.

    Raises:
        BundleError: the record is missing or malformed, or holds what no graph of the manifest takes or gives.
    """
    elements = {
        f"{graph.name}/{side}/{tensor.name}": math.prod(tensor.shape)
        for graph in bundle.manifest.graphs
        for side, tensors in (("in", graph.inputs), ("out", graph.outputs))
        for tensor in tensors
    }
    samples = set()

    def check(entry: str, size: int) -> None:
        sample, _, tensor = entry.partition("/")
        samples.add(sample)
        if tensor not in elements:
            raise BundleError(
                f"{GOLDEN_FILE} holds an entry {entry!r}; expected sample/graph/in|out/tensor, of the manifest's graphs"
            )
        if size > elements[tensor] * _LARGEST_ITEM + _LARGEST_HEADER or len(samples) > _MOST_SAMPLES:
            raise BundleError(
                f"{GOLDEN_FILE} holds {size} bytes of {entry!r}, {len(samples)} samples so far; the manifest's tensor "
                f"has {elements[tensor]} elements, and at most {_MOST_SAMPLES} samples are read; export it again"
            )

    return read_npz(bundle.path(GOLDEN_FILE), check)
