"""Where and in which arithmetic a training computes, and how crops get there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.training.settings import Precision


class Machine(NamedTuple):
    """A device and the precision of convolutions and matrix products on it."""

    device: torch.device
    precision: Precision

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 where it is precise enough, float32 elsewhere; or float32 everywhere."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def find_device(name: str | None) -> torch.device:
    """`cpu`, `cuda:0` and the like; None: the first GPU, else the CPU.

    Raises:
        UsageError: not a device's name.
        DeviceUnavailableError: it is not on this machine.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r} is not a device; expected cpu or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} cannot be trained on; expected cpu or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailableError(
            f"device {name!r} is not on this machine: PyTorch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; use --device cpu, or install a CUDA build of torch"
        )
    return device


def to_images(crops: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) BGR to float32 (B, 3, H, W) RGB, 0..1, channels last in memory."""
    batch = torch.as_tensor(crops).to(device, non_blocking=True)
    return batch.flip(3).permute(0, 3, 1, 2).float() / 255.0
