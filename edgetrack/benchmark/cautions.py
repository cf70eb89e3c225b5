"""Warnings that go with a measurement: a closed list, each with what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.record import Caution, Latencies

NOISY_CV = 0.15
"""Standard deviation over mean of the track latencies above which a machine counts as noisy."""
_BUSY_SHARE = 0.5


class Code(enum.Enum):
    """All warnings; the value is the advice."""

    FEW_SAMPLES = "measure more frames: raise --iterations or --duration"
    NOISY = "end other programs and measure again, or raise --rounds; compare medians, not extremes"
    BUSY_MACHINE = "wait until the machine is idle and measure again"
    GOVERNOR = "fix the clock: sudo cpupower frequency-set -g performance"
    TOO_MANY_THREADS = "ask for no more threads than usable cores: lower --threads"
    UNTRAINED_WEIGHTS = "speed and memory hold for any weights, boxes and scores do not: export with --weights"
    REFERENCE_WEIGHTS_DIFFER = "nothing to do for speed: it does not depend on the weights' values"
    NO_REFERENCE = "pip install 'edgetrack[export]', so that one can be made, or give a bundle with --reference"
    NO_ROOFLINE = "the detail says what is missing; where it is the count of operations, export the bundle again"
    NEVER_RESTED = "its process kept computing while others were measured: measure it alone"

    def caution(self, detail: str) -> Caution:
        """This warning for one case."""
        return Caution(self.name.lower().replace("_", "-"), detail, self.value)


def of_machine(machine: MachineRecord, threads: int) -> Iterator[Caution]:
    """What about the machine makes figures doubtful, as it was before the first frame."""
    cores = machine.usable_cores
    if cores is not None and threads > cores:
        yield Code.TOO_MANY_THREADS.caution(f"{threads} threads on {cores} usable cores")
    load = machine.load_average[0] if machine.load_average else 0.0
    if cores is not None and load > _BUSY_SHARE * cores:
        yield Code.BUSY_MACHINE.caution(f"load average {load:.1f} on {cores} cores before the start")
    if machine.governor is not None and machine.governor != "performance":
        yield Code.GOVERNOR.caution(f"the frequency governor is {machine.governor}")


def of_latencies(latencies: Latencies) -> Iterator[Caution]:
    """What the samples themselves warn of."""
    for name, speed in {"track": latencies.track, "camera": latencies.camera}.items():
        missing = [p for p in ("p90", "p95", "p99") if speed is not None and getattr(speed, p) is None]
        if speed is not None and missing:
            yield Code.FEW_SAMPLES.caution(f"too few frames for the {', '.join(missing)} of {name}")
    cv = latencies.track.cv
    if cv is not None and cv > NOISY_CV:
        yield Code.NOISY.caution(f"track latency varies by more than {NOISY_CV:.0%} (standard deviation over mean)")
