"""What an export needs of the machine's memory, said before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import psutil

from edgetrack.errors import UsageError
from edgetrack.system.machine import memory_mib

COPIES = 5
"""The published network, the one that ships, PyTorch's trace, the file as it is written, and the proof's copy.

SPMTrack's L, 1.42 GiB of weights, took 7.8 GiB at most on its way to ONNX, its proof included.
"""
BASE_MIB = 650
"""PyTorch, the converter and the proof's runtime without a network, in the export of a tiny one."""
_MIB = 2**20


def needed_mib(weight_bytes: int) -> int:
    """About the most memory that an export of so many bytes of weights holds, in MiB."""
    return BASE_MIB + COPIES * weight_bytes // _MIB


def require_memory(weight_bytes: int, tell: Callable[[str], None] = lambda doubt: None) -> None:
    """Refuse what this machine cannot hold, and tell where it can, but other programs are in its way.

    Args:
        weight_bytes: of the network in FP32; 0 where it is not known.
        tell: called with a line of text where less is free than is needed.

    Raises:
        UsageError: the machine's memory and swap together are less than what is needed.
    """
    if not weight_bytes:
        return
    needed, (total, available) = needed_mib(weight_bytes), memory_mib()
    weights = f"{_gib(weight_bytes // _MIB)} of weights: about {_gib(needed)} of memory are needed"
    if total is not None and needed > total + psutil.swap_memory().total // _MIB:
        raise UsageError(
            f"{weights}, and this machine has {_gib(total)}; export on one with more, or give this one more swap"
        )
    if available is not None and needed > available:
        tell(f"doubt: {weights}, and {_gib(available)} are free; end other programs, or this one may be killed")


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
