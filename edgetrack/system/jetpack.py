"""What JetPack a Jetson has, what of it this Python sees, and what to type where that is not enough.

Jetson Linux (L4T) 35 is JetPack 5, 36 is 6, 38 and 39 are 7. Each has one Python that its TensorRT speaks to.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgetrack.resources import RunCommand, command_output
from edgetrack.system.jetson import PowerMode, read_power_mode
from edgetrack.system.machine import MachineRecord
from edgetrack.system.opencv import OpenCvBuild


class _Release(NamedTuple):
    jetpack: str
    python: tuple[int, int]
    extra: str


_RELEASES = {
    "35": _Release("5", (3, 8), ""),
    "36": _Release("6", (3, 10), "jetpack6"),
    "38": _Release("7", (3, 12), "jetpack7"),
    "39": _Release("7", (3, 12), "jetpack7"),
}
_LIBRARIES = ("libnvinfer10", "libnvinfer8")


class JetsonSoftware(msgspec.Struct, frozen=True, kw_only=True):
    """A Jetson's release and state.

    Attributes:
        l4t: of Jetson Linux, such as 36.4.0; null where it could not be read.
        jetpack: as its package says, such as 6.2.1, else the number that the release stands for.
        tensorrt: the version of the system's library; null where it is not installed.
        tensorrt_seen: whether this Python can import it.
        power: of nvpmodel and jetson_clocks.
        advice: what is missing, and what to type.
    """

    l4t: str | None
    jetpack: str | None
    tensorrt: str | None
    tensorrt_seen: bool
    power: PowerMode
    advice: tuple[str, ...]

    def __str__(self) -> str:
        clocks = {True: "clocks fixed", False: "clocks not fixed", None: "clocks unknown (jetson_clocks wants root)"}
        seen = "" if self.tensorrt_seen else ", not seen by this Python"
        return "; ".join((
            f"JetPack {self.jetpack or 'unknown'} (Jetson Linux {self.l4t or 'unknown'})",
            f"TensorRT {self.tensorrt}{seen}" if self.tensorrt else "no TensorRT",
            f"power mode {self.power.name or 'unknown'}, {clocks[self.power.jetson_clocks]}",
        ))  # fmt: skip


def find_jetson(
    machine: MachineRecord,
    opencv: OpenCvBuild,
    *,
    root: Path = Path("/"),
    run: RunCommand = subprocess.run,
    python: tuple[int, int] = sys.version_info[:2],
    sees: Callable[[str], bool] = lambda module: importlib.util.find_spec(module) is not None,
) -> JetsonSoftware | None:
    """Look at a Jetson; None on any other machine.

    Args:
        machine: its record.
        opencv: the one that this Python imports.
        root: the folder that holds sys.
        run: starts a command as `subprocess.run` does (dpkg-query, nvpmodel, jetson_clocks).
        python: this one's version.
        sees: whether a module can be imported.
    """
    if not machine.is_jetson:
        return None
    release = _RELEASES.get((machine.l4t or "").partition(".")[0])
    stated = _version(run, "nvidia-jetpack")
    library = next(filter(None, (_version(run, name) for name in _LIBRARIES)), None)
    found = JetsonSoftware(
        l4t=machine.l4t,
        jetpack=stated or (release.jetpack if release else None),
        tensorrt=library,
        tensorrt_seen=sees("tensorrt"),
        power=read_power_mode(root, run),
        advice=(),
    )
    return msgspec.structs.replace(found, advice=tuple(_advice(found, release, opencv, python)))


def _advice(found: JetsonSoftware, release: _Release | None, opencv: OpenCvBuild, python: tuple[int, int]) -> list[str]:
    advice = []
    if release is not None and not release.extra:
        advice.append(
            f"JetPack {release.jetpack}'s TensorRT speaks to Python {_dotted(release.python)} alone, and edgetrack "
            "needs 3.10: here ONNX bundles run on the processor; a board that can takes JetPack 6"
        )
    elif found.tensorrt is None:
        advice.append("JetPack's libraries are not installed; type: sudo apt-get install nvidia-jetpack")
    elif release is not None and python != release.python:
        advice.append(
            f"this is Python {_dotted(python)}, JetPack {release.jetpack}'s TensorRT speaks to "
            f"{_dotted(release.python)} alone; {_environment(release)}"
        )
    elif release is not None and not found.tensorrt_seen:
        advice.append(f"this Python does not see JetPack's TensorRT; {_environment(release)}")
    if opencv.version is not None and opencv.packages and not opencv.gstreamer:
        advice.append(
            f"OpenCV is {' and '.join(opencv.packages)} of a package index, without GStreamer, so cameras on CSI do "
            f"not open; type: pip uninstall {' '.join(opencv.packages)}, and sudo apt-get install python3-opencv if "
            "then there is none"
        )
    if found.power.jetson_clocks is False:
        advice.append("clocks are not fixed: before a measurement type sudo jetson_clocks")
    return advice


def _environment(release: _Release) -> str:
    version = _dotted(release.python)
    return (
        f"type: python{version} -m venv --system-site-packages ~/edgetrack && ~/edgetrack/bin/pip install "
        f"'edgetrack[{release.extra}]'"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _version(run: RunCommand, package: str) -> str | None:
    """Of an installed package of the system, without what Debian adds; None where there is none."""
    said = command_output(run, ("dpkg-query", "--show", "--showformat=${Version}", package))
    found = re.match(r"\d+(\.\d+)*", said)
    return found[0] if found else None
