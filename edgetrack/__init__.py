"""edgetrack: export, run and measure single-object trackers on real devices.

    tracker = edgetrack.load("out/smat-openvino-fp32")
    tracker.init(frame, box)              # frame: uint8 HxWx3 as OpenCV reads it (BGR); box: x, y, w, h in pixels
    for frame in video:
        result = tracker.update(frame)    # result.box, result.score, result.lost, result.timing

Importing this package loads nothing heavy; `load` imports the one backend that the bundle needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetrack import errors
from edgetrack.box import Box
from edgetrack.errors import EdgetrackError

if TYPE_CHECKING:
    from edgetrack.api import bench, compare, evaluate, export
    from edgetrack.runtime.multi import MultiTracker, load_many
    from edgetrack.runtime.session import Result, Timing, Tracker, load

__version__ = "0.2.0"

__all__ = [
    "Box",
    "EdgetrackError",
    "MultiTracker",
    "Result",
    "Timing",
    "Tracker",
    "__version__",
    "bench",
    "compare",
    "errors",
    "evaluate",
    "export",
    "load",
    "load_many",
]


_LATE = {
    **dict.fromkeys(("bench", "compare", "evaluate", "export"), "edgetrack.api"),
    **dict.fromkeys(("MultiTracker", "load_many"), "edgetrack.runtime.multi"),
    **dict.fromkeys(("Result", "Timing", "Tracker", "load"), "edgetrack.runtime.session"),
}


def __getattr__(name: str) -> Any:
    # numpy and OpenCV cost 0.3 s: `edgetrack --help` must not pay for them.
    if name in _LATE:
        from importlib import import_module

        try:
            return getattr(import_module(_LATE[name]), name)
        except ImportError as error:
            from edgetrack.system.opencv import missing_opencv

            raise missing_opencv(error) or error from error
    raise AttributeError(f"module 'edgetrack' has no attribute {name!r}")
