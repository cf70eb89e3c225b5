"""Names of devices: `cpu`, `cuda:0`, `npu`, `hetero:gpu,cpu`. The targets' table says which there are
(`edgetrack.capabilities`); any other name is a device profile's."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

_DEVICE = r"[a-z]{2,16}(?::[a-z0-9.,]{1,64})?"
_NVIDIA = r"(?:cuda|tensorrt)(?::([0-9]{1,2}))?"
DeviceName = Annotated[
    str,
    msgspec.Meta(pattern=rf"^{_DEVICE}\Z", description="a device such as cpu, cuda:0 or npu"),
]
"""Where a bundle runs on one machine: a kind, and behind a colon which one of it; `cuda` is `cuda:0`."""
ProfileName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", description="lower-case letters, digits and '-'")
]
EXAMPLES = ("cpu", "cuda:0")
"""For messages; the others are single targets'."""


def reads_as_device(name: str) -> bool:
    """Whether it has a device's form, and not that of a precision such as bf16."""
    return re.fullmatch(_DEVICE, name) is not None


def cuda_index(name: str) -> int | None:
    """N of `cuda:N` and `tensorrt:N`, 0 for `cuda`, None for what is no NVIDIA GPU."""
    match = re.fullmatch(_NVIDIA, name)
    return int(match[1] or 0) if match else None


def is_cuda(name: str) -> bool:
    """Whether it is an NVIDIA GPU."""
    return cuda_index(name) is not None
