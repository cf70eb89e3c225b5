"""Live sources: cameras, streams and GStreamer pipelines; each is opened again when it breaks."""

from __future__ import annotations

import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal

from edgetrack.errors import BackendMissingError, EdgetrackError, SourceError, SourceInterruptedError
from edgetrack.media.frames import Frame, FrameSource, ReadOptions, check_size, parse_options, parse_size
from edgetrack.media.videos import SLACK_FRAMES, Capture, open_capture
from edgetrack.presentation.sanitize import hide_passwords
from edgetrack.presentation.table import counted
from edgetrack.system.clock import Clock, MonotonicClock
from edgetrack.system.opencv import find_opencv

VideoReader = Literal["FFMPEG", "GSTREAMER", "V4L2"]
"""What OpenCV reads by, as it names it; a field of `OpenCvBuild` in lower case."""
_NAMES: dict[VideoReader, str] = {"FFMPEG": "FFmpeg", "GSTREAMER": "GStreamer", "V4L2": "V4L2"}
_TIMED_SINCE: dict[VideoReader, tuple[int, int]] = {"FFMPEG": (4, 5), "GSTREAMER": (4, 7)}
"""The versions of OpenCV from which on these take time-outs; before, and V4L2, they have their own, of 10 to 30 s."""
_STREAM = re.compile(r"(?i)(rtsps?|https?|udp)://\S+")
_DEVICE = re.compile(r"/dev/(video\d{1,3}|v4l/by-(id|path)/[^?]+)")
_PIPELINES = ("gst", "csi", "libcamera")
_MOST_CAMERAS = 256
# What OpenCV wants at the end; it waits rather than drops, since who reads decides what is dropped.
_SINK = "videoconvert ! video/x-raw,format=BGR ! appsink sync=false max-buffers=2 drop=false"
_WAITS_S = (0.0, 0.5, 1.0, 2.0)
_LONGEST_WAIT_S = 4.0


@dataclass(frozen=True)
class Address:
    """How a live source is opened.

    Attributes:
        name: as it was given, without passwords.
        what: OpenCV's name or index for it.
        reader: what must read it; None where the system has one for cameras.
        advice: what the user reads where it cannot be opened.
        size, fps, fourcc: what a camera is set to, and must then say that it is.
        instead: what to type where this OpenCV lacks the reader.
    """

    name: str
    what: str | int
    reader: VideoReader | None
    advice: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    fourcc: str | None = None
    instead: str = ""


def parse_address(spec: str) -> Address | None:
    """What `edgetrack.media.open_source` says of live sources; None where the text names none.

    Raises:
        SourceError: it begins as one and is none.
    """
    scheme, colon, rest = spec.partition(":")
    if _STREAM.fullmatch(spec):
        return _stream(spec)
    if colon and scheme in _PIPELINES:
        return _pipeline(scheme, rest, spec)
    path, _, query = spec.partition("?")
    if _DEVICE.fullmatch(path):
        return _camera(path, query, spec)
    number = path.removeprefix("camera:")
    if number.isascii() and number.isdecimal() and (colon or not query):
        if len(number) > len(str(_MOST_CAMERAS)) or int(number) >= _MOST_CAMERAS:
            raise SourceError(f"camera {number[:20]} was asked for; expected an index from 0 to {_MOST_CAMERAS - 1}")
        return _camera(int(number), query, spec)
    return None


def _stream(spec: str) -> Address:
    name = hide_passwords(spec)
    return Address(
        name,
        spec,
        "FFMPEG",
        f"{name} cannot be opened: nobody answers there in time, its path or password is another, or it is of a kind "
        f"that this OpenCV cannot decode; look at it with `ffprobe '{name}'`",
        instead=f"or read it by GStreamer: \"gst:uridecodebin uri='{name}'\"",
    )


def _camera(what: str | int, query: str, spec: str) -> Address:
    wrong = f"{spec!r} is no camera; expected camera:0?size=1280x720&fps=30&fourcc=MJPG, each option at most once"
    parsers = {"size": _pixels, "fps": _rate, "fourcc": _four_letters}
    name = f"camera {what}" if isinstance(what, int) else what
    return Address(
        f"camera:{what}" if isinstance(what, int) else what,
        what,
        "V4L2" if sys.platform == "linux" else None,
        f"{name} cannot be opened; expected the index of a camera that is connected and free: `ls "
        "/dev/video*` lists them; for a folder or file of that name write ./NAME",
        **parse_options(query, parsers, wrong),
    )


def _pipeline(scheme: str, rest: str, spec: str) -> Address:
    name = hide_passwords(spec)
    if scheme == "gst":
        if not rest.strip():
            raise SourceError("gst: has no pipeline; expected such as 'gst:videotestsrc ! videoconvert'")
        pipeline = rest if re.search(r"\bappsink\b", rest) else f"{rest} ! {_SINK}"
    else:
        pipeline = (_csi if scheme == "csi" else _libcamera)(*_camera_of(rest), spec)
    launched = shlex.quote(hide_passwords(pipeline.replace(_SINK, "fakesink")))
    return Address(
        name,
        pipeline,
        "GSTREAMER",
        f"{name} cannot be opened: an element is missing, the camera is not there or not free, or the pipeline does "
        f"not link; see what it says by itself: gst-launch-1.0 {launched}",
    )


def _camera_of(rest: str) -> tuple[str, str]:
    name, _, query = rest.partition("?")
    return name, query


def _csi(sensor: str, query: str, spec: str) -> str:
    wrong = f"{spec!r} is no camera; expected csi:0?size=1280x720&fps=30&flip=0, each option at most once, flip 0 to 7"
    found = parse_options(query, {"size": _pixels, "fps": _whole(1, 1000), "flip": _whole(0, 7)}, wrong)
    if not re.fullmatch(r"[0-9]{1,2}", sensor):
        raise SourceError(wrong)
    width, height = found.get("size", (1280, 720))
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},format=NV12,"
        f"framerate={found.get('fps', 30)}/1 ! nvvidconv flip-method={found.get('flip', 0)} ! "
        f"video/x-raw,format=BGRx ! {_SINK}"
    )


def _libcamera(camera: str, query: str, spec: str) -> str:
    wrong = (
        f"{spec!r} is no camera; expected libcamera:0 for the first one, or libcamera:NAME as `cam --list` has it, and "
        "?size=1280x720&fps=30, each option at most once"
    )
    found = parse_options(query, {"size": _pixels, "fps": _whole(1, 1000)}, wrong)
    if camera != "0" and not re.fullmatch(r"(?!\d+$)[\w./@:,-]+", camera):
        raise SourceError(wrong)
    source = "libcamerasrc" if camera == "0" else f'libcamerasrc camera-name="{camera}"'
    width, height = found.get("size", (1280, 720))
    rate = f",framerate={found['fps']}/1" if "fps" in found else ""
    return f"{source} ! video/x-raw,width={width},height={height}{rate} ! {_SINK}"


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return parse


def _pixels(text: str) -> tuple[int, int]:
    width, height = parse_size(text)
    if min(width, height) < 1:
        raise ValueError(text)
    check_size(width, height, "the source's size")
    return width, height


def _rate(text: str) -> float:
    if not 0 < float(text) <= 1000:
        raise ValueError(text)
    return float(text)


def _four_letters(text: str) -> str:
    if not re.fullmatch(r"[ -~]{4}", text):
        raise ValueError(text)
    return text


class LiveSource(FrameSource):
    """A live source; it stays open until `close`, and iterating again continues.

    Where a frame does not come, it is opened again: at once, then after 0.5, 1, 2, 4, 4 ... seconds, for
    `ReadOptions.reconnect_s` after the break. A stream that states its length is a recording: it ends, and is not
    live.
    """

    def __init__(
        self,
        address: Address,
        options: ReadOptions,
        *,
        clock: Clock | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Open it.

        Args:
            address: what `parse_address` has returned.
            options: its time-outs.
            clock: times the breaks.
            wait: waits so many seconds, or until `interrupt`.

        Raises:
            BackendMissingError: this OpenCV cannot read such a source.
            SourceError: it cannot be opened, or a camera cannot do what is asked of it.
        """
        import cv2

        self._address, self._options = address, options
        self._clock = clock or MonotonicClock()
        self._interrupted = threading.Event()
        self._wait = wait or self._interrupted.wait
        self.name = address.name
        self._frames = 0
        _require(address)
        self._capture = self._open()
        count = self._capture.number(cv2.CAP_PROP_FRAME_COUNT)
        self.length = None if count is None else int(count)
        self.live = self.length is None
        self.fps = self._capture.number(cv2.CAP_PROP_FPS)
        self.size = self._capture.frame_size()

    @property
    def notes(self) -> list[str]:
        if not self.breaks_s:
            return []
        total, longest = sum(self.breaks_s), max(self.breaks_s)
        return [
            f"{self.name} broke {counted(len(self.breaks_s), 'time')}: {total:.1f} s in all, at most {longest:.1f} s"
        ]

    def __iter__(self) -> Iterator[Frame]:
        while True:
            image = self._capture.read()
            if image is None:
                if self.length is not None:
                    self._end(self.length)
                    return
                image = self._recovered()
            if image.ndim != 3 or image.shape[2] not in (3, 4):
                raise SourceError(
                    f"{self.name} gives frames of shape {image.shape}; expected (height, width, 3): let the pipeline "
                    f"end in {_SINK}"
                )
            self._frames += 1
            yield image

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._capture.close()

    def _open(self) -> Capture:
        import cv2

        address, reader = self._address, self._address.reader
        api = cv2.CAP_ANY if reader is None else getattr(cv2, f"CAP_{reader}")
        if reader in _TIMED_SINCE and _version(cv2.__version__) >= _TIMED_SINCE[reader]:
            limit = round(1000 * self._options.timeout_s)
            parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
            capture = open_capture(address.what, address.advice, api, parameters)
        elif reader == "GSTREAMER":
            # Without time-outs it waits for ever for a pipeline that lacks an element.
            capture = _open_within(
                self._options.timeout_s, lambda: open_capture(address.what, address.advice, api), address.advice
            )
        else:
            capture = open_capture(address.what, address.advice, api)
        try:
            if reader is not None and capture.backend != reader:
                raise SourceError(f"{address.name} was opened by {capture.backend}, not by {_NAMES[reader]}")
            self._set(capture)
            if (size := capture.frame_size()) is not None:  # another one may answer after a break
                check_size(*size, what=address.name)
        except EdgetrackError:
            capture.close()
            raise
        return capture

    def _set(self, capture: Capture) -> None:
        """Set a camera as it was asked for; the format first, since it decides which sizes and rates there are."""
        import cv2

        address = self._address
        wanted: list[tuple[str, int, float]] = []
        if address.fourcc is not None:
            wanted.append(("fourcc", cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*address.fourcc)))
        if address.size is not None:
            wanted += [("width", cv2.CAP_PROP_FRAME_WIDTH, address.size[0])]
            wanted += [("height", cv2.CAP_PROP_FRAME_HEIGHT, address.size[1])]
        if address.fps is not None:
            wanted.append(("fps", cv2.CAP_PROP_FPS, address.fps))
        for _, prop, value in wanted:
            capture.choose(prop, value)
        # Read back when all are set: one may change another.
        for name, prop, value in wanted:
            given = capture.number(prop)
            if given is None or abs(given - value) > 0.01 * (value if name == "fps" else 0):
                shown = (_letters(given), _letters(value)) if name == "fourcc" else (given, value)
                raise SourceError(
                    f"{address.name} gives {name} {_text(shown[0])} where {_text(shown[1])} was asked for; `v4l2-ctl "
                    "--list-formats-ext` lists what it can do"
                )

    def _recovered(self) -> Frame:
        """The first frame after a break."""
        broken, limit = self._clock.now_ns(), self._options.reconnect_s
        self._capture.close()
        if limit > 0:
            self.on_event(
                f"{self.name} broke after {counted(self._frames, 'frame')}; it is tried again for {limit:g} s"
            )
        tries = 0
        for wait in chain(_WAITS_S, repeat(_LONGEST_WAIT_S)):
            if self._since(broken) + wait > limit or limit == 0:
                break
            self._wait(wait)
            if self._interrupted.is_set():
                break
            tries += 1
            try:
                self._capture = self._open()
            except SourceError:
                continue
            image = self._capture.read()
            if image is not None:
                self.breaks_s.append(self._since(broken))
                self.on_event(f"{self.name} is back after {self.breaks_s[-1]:.1f} s")
                return image
            self._capture.close()
        tried = f" and could not be opened again in {counted(tries, 'attempt')}" if tries else ""
        raise SourceInterruptedError(
            f"{self.name} gave no frame after {self._frames}{tried}; check that it is still connected, or give it more "
            "time with --reconnect"
        )

    def _end(self, length: int) -> None:
        """A recording has no more frames; its length may be an estimate."""
        if self._frames < min(length - SLACK_FRAMES, 0.9 * length):
            raise SourceInterruptedError(
                f"{self.name} ended early: frame {self._frames} cannot be read although it states {length} frames"
            )

    def _since(self, start: int) -> float:
        return (self._clock.now_ns() - start) / 1e9


def _open_within(seconds: float, opened: Callable[[], Capture], advice: str) -> Capture:
    """What `opened` returns or raises; where that takes longer, the error, and what it returns then is closed.

    Raises:
        SourceError: it takes longer.
    """
    found: list[Capture | BaseException] = []
    lock, given_up = threading.Lock(), threading.Event()

    def run() -> None:
        try:
            result: Capture | BaseException = opened()
        except BaseException as error:
            result = error
        with lock:
            if given_up.is_set() and isinstance(result, Capture):
                result.close()
            found.append(result)

    thread = threading.Thread(target=run, name="edgetrack-open", daemon=True)
    thread.start()
    thread.join(seconds)
    with lock:
        given_up.set()
        if not found:
            raise SourceError(f"{advice} (it did not start within {seconds:g} s)")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _require(address: Address) -> None:
    if address.reader is None:
        return
    build = find_opencv()
    if not getattr(build, address.reader.lower()):
        reader = _NAMES[address.reader]
        raise BackendMissingError(
            f"{address.name} is read by {reader}, which this OpenCV has not: {build}; take one that has it, such as "
            "the system's (apt-get install python3-opencv, and a virtual environment with --system-site-packages)"
            f"{', ' + address.instead if address.instead else ''}; `edgetrack doctor` shows what it has"
        )


def _version(text: str) -> tuple[int, int]:
    major, minor = (int(part) for part in text.split(".")[:2])
    return major, minor


def _letters(code: float | None) -> str | None:
    return None if code is None else int(code).to_bytes(4, "little").decode("latin-1")


def _text(value: Any) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
