"""What the benchmark and its worker processes say to each other: one JSON object per line, tagged by `type`."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from edgetrack import json_lines
from edgetrack.benchmark.roofline import Roofline
from edgetrack.box import Box
from edgetrack.errors import WorkerError

Kind = Literal["track", "camera", "paced", "burst", "soak"]


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Open a bundle as `edgetrack.load` does and follow the box through the first frames of the source.

    `source` is as `open_source` takes it, `box` (x, y, w, h) in pixels of its first frame; frames kept decoded in
    memory are at most `keep_frames` and `keep_mb` (of 2**20 bytes).
    """

    bundle: str
    device: str
    threads: int
    hint: str | None
    source: str
    box: Box
    keep_frames: int
    keep_mb: float


class LoadRoofline(msgspec.Struct, frozen=True, tag="load-roofline"):
    """Prepare the search for the machine's roof."""

    precision: str
    threads: int


class Memory(msgspec.Struct, frozen=True, tag="memory"):
    """Track `frames` frames as they come from the source and tell the peak memory; asked before any slice."""

    frames: int


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Track from the first frame on: `unrecorded` frames, then until `seconds` and `frames` are both reached.

    `track` takes frames that lie decoded in memory, `camera` reads and decodes each one from the source.
    """

    kind: Kind
    seconds: float
    frames: int
    unrecorded: int


class Pace(msgspec.Struct, frozen=True, tag="pace"):
    """Frames that lie decoded in memory arrive at `fps`, for `seconds` and at least `frames` of them.

    None as `fps` sends each when the one before it is done. `fresh` starts the tracker anew, with `unrecorded` frames
    before; else it goes on where the last such request ended.
    """

    fps: float | None
    seconds: float
    frames: int
    unrecorded: int
    fresh: bool


class Burst(msgspec.Struct, frozen=True, tag="burst"):
    """`streams` trackers at once on decoded frames, each until `seconds` and `frames` are both reached."""

    streams: int
    seconds: float
    frames: int
    unrecorded: int


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Search for the roof for about `seconds`."""

    seconds: float


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """`load_ms` from the bundle's path to a tracker, `first_ms` of `init` and the first `update`."""

    load_ms: float
    first_ms: float
    threads: int
    versions: dict[str, str]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The roof can be searched for."""


class Peak(msgspec.Struct, frozen=True, tag="peak"):
    """Peak resident memory in MB of 2**20 bytes, and what the process holds of its GPU."""

    peak_rss_mb: float
    gpu_mb: float | None = None


class Slice(msgspec.Struct, frozen=True, tag="slice"):
    """One entry per recorded frame, in milliseconds, in the order in which they ran.

    `read` is the time to get the frame from the source (for `track`: from memory) and `whole` runs from asking for
    the frame to having its box. `cpu_s` and `wall_s` are what the process computed and how long it took.
    """

    kind: Kind
    crop: list[float]
    graphs: list[float]
    decode: list[float]
    read: list[float]
    whole: list[float]
    cpu_s: float
    wall_s: float


class Paced(msgspec.Struct, frozen=True, tag="paced"):
    """One entry per frame that was begun, in milliseconds, in order of arrival.

    `queued` runs from a frame's arrival to when it was begun, `response` from its arrival to its box. `waiting` frames
    had arrived and were not begun when the time was over.
    """

    crop: list[float]
    graphs: list[float]
    decode: list[float]
    queued: list[float]
    response: list[float]
    waiting: int
    cpu_s: float
    wall_s: float


class Bursted(msgspec.Struct, frozen=True, tag="bursted"):
    """Milliseconds from box to box, per stream, and the seconds from the first start to the last end."""

    threads_each: int
    whole: list[list[float]]
    wall_s: float


class Rate(msgspec.Struct, frozen=True, tag="rate"):
    """The roof as far as it is known."""

    roofline: Roofline


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The request could not be done; `error` is the name of the exception's class."""

    error: str
    message: str


Request = Load | LoadRoofline | Memory | Run | Pace | Burst | Probe
Reply = Loaded | Ready | Peak | Slice | Paced | Bursted | Rate | Failure
AnyReply = TypeVar("AnyReply", Loaded, Ready, Peak, Slice, Paced, Bursted, Rate)

_REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def decode_request(line: bytes) -> Request:
    """The request of a line.

    Raises:
        WorkerError: it is none.
    """
    return json_lines.decode(line, _REQUESTS, lambda shown, why: WorkerError(f"{shown} is no request: {why}"))


def decode_reply(line: bytes) -> Reply:
    """The reply of a line.

    Raises:
        WorkerError: it is none.
    """
    return json_lines.decode(
        line, _REPLIES, lambda shown, why: WorkerError(f"broke its protocol: {shown} is no reply: {why}")
    )
