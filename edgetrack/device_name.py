"""Names of devices: `cpu`, `cuda:N`, and Core ML's `gpu`, `ane` and `all`; any other name is a device profile's."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

_DEVICE = r"(?:cpu|gpu|ane|all|cuda(?::([0-9]{1,2}))?)"
DeviceName = Annotated[str, msgspec.Meta(pattern=rf"^{_DEVICE}\Z", description="cpu, cuda, cuda:N, gpu, ane or all")]
"""Where a bundle runs on one machine; `cuda` is `cuda:0`."""
ProfileName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", description="lower-case letters, digits and '-'")
]
EXAMPLES = ("cpu", "cuda:0")
"""For messages; the others are Core ML's alone."""


def is_device(name: str) -> bool:
    """Whether it names a part of a machine that bundles run on, and not a device profile."""
    return re.fullmatch(_DEVICE, name) is not None


def device_kind(name: str) -> str:
    """The name without the number: `cuda` for every `cuda:N`."""
    return name.partition(":")[0]


def cuda_index(name: str) -> int | None:
    """N of `cuda:N`, 0 for `cuda`, None for anything else."""
    match = re.fullmatch(_DEVICE, name)
    return int(match[1] or 0) if match and device_kind(name) == "cuda" else None


def is_cuda(name: str) -> bool:
    """Whether it is `cuda` or `cuda:N`."""
    return cuda_index(name) is not None
