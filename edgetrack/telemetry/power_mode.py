"""Which power mode a Jetson is in and whether its clocks are fixed: asked, never changed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgetrack.telemetry.reading import read_number

Run = Callable[..., "subprocess.CompletedProcess[str]"]
_TIMEOUT_S = 10.0


class PowerMode(msgspec.Struct, frozen=True):
    """`name` as nvpmodel calls it, such as MAXN or 15W; null means that it could not be read."""

    name: str | None = None
    jetson_clocks: bool | None = None


UNKNOWN = PowerMode()


def parse_nvpmodel(text: str) -> str | None:
    """The mode's name in what `nvpmodel -q` prints; `MODE_15W` is `15W`."""
    found = re.search(r"NV Power Mode:[ \t]*([\w-]{1,64})", text)
    return found[1].removeprefix("MODE_") if found else None


def parse_jetson_clocks(text: str) -> bool | None:
    """Whether what `jetson_clocks --show` prints has each core that is on, and the GPU, at one frequency."""
    cores = re.findall(r"^cpu\d+:.*?Online=1.*?MinFreq=(\d+) MaxFreq=(\d+)", text, re.MULTILINE)
    gpu = re.findall(r"^GPU MinFreq=(\d+) MaxFreq=(\d+)", text, re.MULTILINE)
    return all(low == high for low, high in (*cores, *gpu)) if cores else None


def read_power_mode(root: Path = Path("/"), run: Run = subprocess.run) -> PowerMode:
    """Ask nvpmodel and jetson_clocks; where the latter wants root, the processor's limits tell.

    Args:
        root: the folder that holds sys.
        run: starts a command as `subprocess.run` does.
    """
    fixed = parse_jetson_clocks(_output(run, ("jetson_clocks", "--show")))
    return PowerMode(parse_nvpmodel(_output(run, ("nvpmodel", "-q"))), _fixed(root) if fixed is None else fixed)


def _fixed(root: Path) -> bool | None:
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))
    limits = [(read_number(path / "scaling_min_freq"), read_number(path / "scaling_max_freq")) for path in policies]
    known = [(low, high) for low, high in limits if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None


def _output(run: Run, command: Sequence[str]) -> str:
    try:
        done = run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""
