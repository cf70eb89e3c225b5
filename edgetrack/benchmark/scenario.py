"""How frames come: back to back, at a camera's rate, to several trackers at once, or for a long time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from edgetrack.benchmark.messages import Kind
from edgetrack.errors import UsageError

ScenarioName = Literal["stream", "paced", "burst", "soak"]
SCENARIOS: tuple[ScenarioName, ...] = get_args(ScenarioName)
CAMERA_FPS = 30.0
_KINDS: dict[ScenarioName, tuple[Kind, ...]] = {
    "stream": ("track", "camera"),
    "paced": ("track", "camera", "paced"),
    "burst": ("track", "camera", "burst"),
    "soak": ("soak",),
}
_DURATION_S = {"stream": 6.0, "paced": 6.0, "burst": 6.0, "soak": 600.0}
_ROUNDS = 6
_WINDOWS = 20
_LONGEST_WINDOW_S = 60.0
_MOST_FPS = 10_000.0
_MOST_STREAMS = 64
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Scenario:
    """A way of sending frames.

    Attributes:
        name: one of `SCENARIOS`.
        fps: frames a second that arrive, `paced` and `soak`; None for a soak of frames back to back.
        streams: trackers that run at once, `burst`.
    """

    name: ScenarioName = "stream"
    fps: float | None = None
    streams: int = 1

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The slices that a contestant takes turns in."""
        return _KINDS[self.name]

    @property
    def compares(self) -> bool:
        """Whether contestants are held against PyTorch and the roof; a soak is about one bundle on one device."""
        return self.name != "soak"

    def rounds(self, duration_s: float) -> int:
        """Turns; a soak has windows of at most a minute in their place, at least 20."""
        return max(_WINDOWS, math.ceil(duration_s / _LONGEST_WINDOW_S)) if self.name == "soak" else _ROUNDS


STREAM = Scenario()


def choose_scenario(name: str, fps: float | None = None, streams: int | None = None) -> Scenario:
    """The scenario that was asked for, 30 fps where `paced` is given none, 2 streams where `burst` is.

    Raises:
        UsageError: no such scenario, or an option that it has no use for or that is out of its range.
    """
    found: ScenarioName | None = next((known for known in SCENARIOS if known == name), None)
    if found is None:
        raise UsageError(f"scenario {name!r} is not supported; expected one of: {', '.join(SCENARIOS)}")
    if fps is not None and found not in ("paced", "soak"):
        raise UsageError(f"--fps is for the scenarios paced and soak, not for {name}; leave it out")
    if streams is not None and found != "burst":
        raise UsageError(f"--streams is for the scenario burst, not for {name}; leave it out")
    if fps is not None and not 0 < fps <= _MOST_FPS:
        raise UsageError(f"--fps {fps}: expected frames a second above 0, up to {_MOST_FPS:g}")
    if streams is not None and not 1 <= streams <= _MOST_STREAMS:
        raise UsageError(f"--streams {streams}: expected 1 to {_MOST_STREAMS}")
    if found == "paced":
        fps = fps or CAMERA_FPS
    return Scenario(found, fps, streams or (2 if found == "burst" else 1))


def parse_duration(text: str | None, scenario: str) -> float:
    """Seconds from `30m`, `45s`, `1.5h` or a plain number of seconds; None is the scenario's own length.

    Raises:
        UsageError: it is none of these.
    """
    if text is None:
        return _DURATION_S.get(scenario, _DURATION_S["stream"])
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", text.strip())
    if not found:
        raise UsageError(f"--duration {text!r}: expected seconds, or a number with s, m or h, such as 45s or 30m")
    return float(found[1]) * _UNITS[found[2]]
