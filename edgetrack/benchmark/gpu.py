"""What a benchmark on an NVIDIA GPU adds: is the GPU there, who else is on it, and PyTorch at its best beside eager."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from edgetrack.benchmark.cautions import Code
from edgetrack.benchmark.gpu_watch import GpuWatch, Watch, is_gpu
from edgetrack.benchmark.lineup import Contestant
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.record import Caution
from edgetrack.capabilities import Target
from edgetrack.errors import DeviceUnavailableError

_BUSY_PERCENT = 5
FAST_HINT = "fp16"
"""The hint of the reference that is PyTorch's best: half precision, channels last, one CUDA graph."""


def on_device(
    contestants: Sequence[Contestant], reference: Target | None, device: str, watch: Watch = GpuWatch
) -> list[Contestant]:
    """The contestants as they are measured on a device: on a GPU with a second reference, and with its warnings.

    Args:
        contestants: with their references.
        reference: the row that they are measured against; None where they are not.
        device: of all of them; nothing changes on the CPU.
        watch: opens the GPU's driver.
    """
    if not is_gpu(device):
        return list(contestants)
    found = _cautions(device, watch)
    every = list(contestants) if reference is None else with_fast_reference(contestants, reference)
    return [replace(contestant, cautions=(*contestant.cautions, *found)) for contestant in every]


def require_gpu(device: str, machine: MachineRecord, watch: Watch = GpuWatch) -> None:
    """Refuse a GPU on a machine without NVIDIA's driver, before anything is exported for it.

    Raises:
        DeviceUnavailableError: neither the machine's record nor NVML has one.
    """
    if machine.nvidia_present:
        return
    try:
        with closing(watch(device)):
            return
    except OSError as error:
        raise DeviceUnavailableError(
            f"device {device!r}: no NVIDIA driver was found here ({error}); measure on the machine that has the GPU, "
            "or leave --device out"
        ) from error


def _cautions(device: str, watch: Watch) -> tuple[Caution, ...]:
    """Who else is on the GPU, before any of our processes is."""
    try:
        with closing(watch(device)) as gpu:
            others, load, used = gpu.processes(), gpu.load_percent(), gpu.used_mb()
    except OSError as error:
        return (Code.NO_GPU_MEMORY.caution(str(error)),)
    if others or (load is not None and load > _BUSY_PERCENT):
        busy = "" if load is None else f", busy for {load:.0f} % of the time"
        return (Code.GPU_SHARED.caution(f"{device}: {len(others)} other processes, {used:.0f} MB in use{busy}"),)
    return ()


def with_fast_reference(contestants: Sequence[Contestant], target: Target) -> list[Contestant]:
    """Beside each eager reference, the same network as fast as PyTorch goes on a GPU without a compiler."""
    taking_part = {contestant.label for contestant in contestants}
    eager = [c for c in contestants if c.manifest.target == target.name and c.hint is None]
    twins = [replace(c, hint=FAST_HINT, reference=c.label) for c in eager]
    return [*contestants, *(twin for twin in twins if twin.label not in taking_part)]
