"""Whether two measurements may be compared: same machine, threads, speeds and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.box import Box
from edgetrack.errors import UsageError

_MACHINE = (
    "cpu_model", "architecture", "device_model", "physical_cores", "logical_cores", "usable_cores", "cpu_quota",
    "cpu_flags", "governor", "max_mhz", "gpus", "nvidia_driver", "l4t", "os", "kernel", "container", "python",
)  # fmt: skip
"""Fields of a machine's record that decide speed; not those that change from minute to minute."""
_PACKAGES = ("numpy", "opencv-python", "opencv-python-headless")
"""What crops and decodes, beside the backend's own packages. Not edgetrack: that may be what is compared."""

Traits = Mapping[str, str]


def traits(
    machine: MachineRecord,
    *,
    tracker: str,
    device: str,
    threads: int,
    scenario: str,
    source: str,
    size: Sequence[int],
    box: Box,
    versions: Mapping[str, str],
) -> Traits:
    """What has to be the same, by name, as text."""
    found = {f"machine: {name}": _text(getattr(machine, name)) for name in _MACHINE}
    found |= {f"version: {name}": version for name, version in versions.items()}
    found |= {f"version: {name}": machine.packages[name] for name in _PACKAGES if name in machine.packages}
    return {
        **found,
        "tracker": tracker,
        "device": device,
        "threads": str(threads),
        "scenario": scenario,
        "frames": f"{source} ({'x'.join(map(str, size))})",
        "box": ", ".join(f"{number:g}" for number in box),
    }


def traits_of(record: BenchRecord, result: BenchResult) -> Traits:
    """The same of a result in a benchmark's record."""
    return traits(
        record.machine,
        tracker=result.tracker,
        device=result.device,
        threads=result.threads,
        scenario=record.settings.scenario,
        source=record.source.spec,
        size=record.source.size,
        box=record.source.box,
        versions=result.versions,
    )


def speeds(result: BenchResult) -> str:
    """Which speeds a result has samples of."""
    samples = result.samples_ms
    return ", ".join(name for name in ("model", "track", "camera") if getattr(samples, name))


def differences(baseline: Traits, candidate: Traits) -> list[str]:
    """One line for each difference, baseline's value first."""
    names = dict.fromkeys((*baseline, *candidate))
    return [
        f"{name}: {baseline.get(name, 'none')} against {candidate.get(name, 'none')}"
        for name in names
        if baseline.get(name) != candidate.get(name)
    ]


def insist(found: Sequence[str], *, force: bool) -> None:
    """Refuse what is unlike.

    Raises:
        UsageError: there are differences, and `force` is not set; it lists them.
    """
    if found and not force:
        raise UsageError(
            "the two were not measured alike, so that their ratio says nothing of the bundles:\n  "
            + "\n  ".join(found)
            + "\ngive a bundle as --baseline, which is measured beside the other one, or --force"
        )


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
