"""Warnings that go with a measurement: a closed list, each with what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

import msgspec

from edgetrack.benchmark.latency import Latency
from edgetrack.presentation.table import counted
from edgetrack.system.machine import MachineRecord
from edgetrack.system.sampler import Expectation
from edgetrack.system.timeline import Timeline, find_throttling, highest_clock

NOISY_CV = 0.15
"""Standard deviation over mean of the track latencies above which a machine counts as noisy."""
_BUSY_SHARE = 0.5
_NEAR_CLOCK = 0.95


class BenchWarning(msgspec.Struct, frozen=True):
    """Something to know before a figure is trusted; `code` is a name of `WarningCode`, with dashes."""

    code: str
    detail: str
    advice: str


class WarningCode(enum.Enum):
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
    GPU_SHARED = "end the other programs on the GPU (nvidia-smi lists them) and measure again"
    NO_GPU_MEMORY = "pip install 'edgetrack[gpu]'; where that does not help, nothing to do for speed"
    NEVER_RESTED = "its process kept computing while others were measured: measure it alone"
    THROTTLED = "cool the device, or state the figures as those of a hot one; the timeline has temperatures"
    CLOCK_CHANGED = "fix the clocks before a comparison: sudo jetson_clocks, or the performance governor"
    CLOCK_BELOW_PROFILE = "look at power mode, supply and cooling; the profile states what the device reaches"
    POWER_MODE = "set it for a comparison: sudo nvpmodel -p --verbose lists the modes, -m NUMBER sets one"
    CLOCKS_NOT_FIXED = "fix them for a comparison: sudo jetson_clocks"
    TELEMETRY_MISSING = "nothing to do for speed; energy, throttling or temperatures are not known without it"
    DEADLINES_MISSED = "lower --fps, or use a faster target or precision; queued_ms in the record says what waited"
    MEMORY_GROWS = "repeat it for longer: a leak goes on, a pool that fills does not"

    def warning(self, detail: str) -> BenchWarning:
        """This warning for one case."""
        return BenchWarning(self.name.lower().replace("_", "-"), detail, self.value)


def of_machine(machine: MachineRecord, threads: int) -> Iterator[BenchWarning]:
    """What about the machine makes figures doubtful, as it was before the first frame."""
    cores = machine.usable_cores
    if cores is not None and threads > cores:
        yield WarningCode.TOO_MANY_THREADS.warning(f"{counted(threads, 'thread')} on {counted(cores, 'usable core')}")
    load = machine.load_average[0] if machine.load_average else 0.0
    if cores is not None and load > _BUSY_SHARE * cores:
        yield WarningCode.BUSY_MACHINE.warning(f"load average {load:.1f} on {counted(cores, 'core')} before the start")
    if machine.governor is not None and machine.governor != "performance":
        yield WarningCode.GOVERNOR.warning(f"the frequency governor is {machine.governor}")


def of_latencies(track: Latency, camera: Latency | None) -> Iterator[BenchWarning]:
    """What the samples themselves warn of."""
    for name, speed in {"track": track, "camera": camera}.items():
        missing = [p for p in ("p90", "p95", "p99") if speed is not None and getattr(speed, p) is None]
        if speed is not None and missing:
            yield WarningCode.FEW_SAMPLES.warning(f"too few frames for the {', '.join(missing)} of {name}")
    cv = track.cv
    if cv is not None and cv > NOISY_CV:
        yield WarningCode.NOISY.warning(
            f"track latency varies by more than {NOISY_CV:.0%} (standard deviation over mean)"
        )


def of_device(timeline: Timeline, expected: Expectation) -> Iterator[BenchWarning]:
    """What differs from the device's profile before anything is timed."""
    mode = timeline.power_mode
    if expected.power_modes and mode.name not in expected.power_modes:
        wanted = " or ".join(expected.power_modes)
        yield WarningCode.POWER_MODE.warning(
            f"the power mode is {mode.name or 'unknown'}, the profile expects {wanted}"
        )
    if expected.jetson_clocks and mode.jetson_clocks is not True:
        state = "not fixed" if mode.jetson_clocks is False else "fixed or not, which could not be read"
        yield WarningCode.CLOCKS_NOT_FIXED.warning(f"the clocks are {state}; the profile expects jetson_clocks")
    for missing in timeline.missing:
        yield WarningCode.TELEMETRY_MISSING.warning(f"{missing.source}: {missing.reason}")


def of_run(timeline: Timeline, candidate: str, kinds: Sequence[str], expected: Expectation) -> Iterator[BenchWarning]:
    """What the sensors say about one candidate's rounds."""
    codes = {"throttled": WarningCode.THROTTLED, "clock-changed": WarningCode.CLOCK_CHANGED}
    for found in find_throttling(timeline, candidate, kinds):
        yield codes[found.kind].warning(found.detail)
    windows = [w for w in timeline.windows if w.candidate == candidate and w.kind in kinds]
    clocks = expected.clocks_in(timeline.power_mode.name)
    for what, mhz, gpu in (("processor", clocks.cpu_mhz, False), ("GPU", clocks.gpu_mhz, True)):
        reached = highest_clock(timeline, windows, gpu=gpu)
        if mhz is not None and reached is not None and reached < _NEAR_CLOCK * mhz:
            yield WarningCode.CLOCK_BELOW_PROFILE.warning(f"{what} at {reached:.0f} MHz, the profile states {mhz:.0f}")
