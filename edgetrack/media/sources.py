"""Where frames come from: synthetic scenes, videos, folders and patterns of images, live sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.errors import SourceError
from edgetrack.media.folders import is_pattern, open_folder, open_pattern
from edgetrack.media.frames import Frame, FrameSource, ReadOptions, parse_options, parse_size
from edgetrack.media.live import LiveSource, parse_address
from edgetrack.media.raster import VIEWS
from edgetrack.media.scenes import load_scene
from edgetrack.media.videos import VIDEO_SUFFIXES, VideoSource
from edgetrack.presentation.sanitize import hide_passwords

__all__ = ["FrameSource", "open_source"]

_KINDS = (
    "a video file, a folder of images, a pattern such as 'frames/*.jpg', a scene such as synthetic:drift, or, to "
    "track, a live source: a camera such as 0, /dev/video0, an address such as rtsp://HOST/PATH, see docs/live.md"
)


class SyntheticSource(FrameSource):
    """A scene of `edgetrack.media.scenes`, with its exact ground truth, as one of `VIEWS` shows it."""

    def __init__(self, rest: str) -> None:
        name, _, query = rest.partition("?")
        options, self._view = _scene_options(query, f"synthetic:{rest}")
        self._scene = load_scene(name, **options)
        self.name = f"synthetic:{name}"
        self.length = self._scene.length
        self.fps = self._scene.fps
        self.size = (self._scene.width, self._scene.height)

    @cached_property
    def ground_truth(self) -> list[Box | None]:
        return [self._scene.box(index) for index in range(self._scene.length)]

    def truth_at(self, index: int) -> Box | None:
        return self._scene.box(index) if index < self._scene.length else None

    def __iter__(self) -> Iterator[Frame]:
        return (self._scene.frame(index, view=self._view) for index in range(self._scene.length))

    def deep(self) -> Iterator[Array]:
        if self._view != "depth":
            return iter(self)
        return (self._scene.depth(index) for index in range(self._scene.length))


def _scene_options(query: str, spec: str) -> tuple[dict[str, Any], str]:
    wrong = (
        f"{spec!r} is not a scene; expected synthetic:NAME?frames=150&size=640x360&seed=0&view=colour, each option at "
        f"most once, and one of the views {', '.join(VIEWS)}"
    )
    options = parse_options(query, {"size": parse_size, "frames": int, "seed": int, "view": _view}, wrong)
    return options, options.pop("view", VIEWS[0])


def _view(text: str) -> str:
    if text not in VIEWS:
        raise ValueError(text)
    return text


def open_source(
    spec: str | Path | int,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    *,
    live: bool = False,
) -> FrameSource:
    """Open what frames are to be read from.

    Args:
        spec: one of: `synthetic:NAME[?frames=N&size=WxH&seed=N&view=thermal]`; a video file; a folder of images, in
            natural order (its sub-folder `img` or `imgs` where it has one); a glob pattern of images; a live source. A
            `Path` is always a file or folder; write `./0` for a folder that is called 0. The `groundtruth.txt` or
            `groundtruth_rect.txt` of a sequence is read where it lies with the images or beside their `img`.

            Live sources: a camera as an int, as digits, as `/dev/videoN` or `/dev/v4l/by-id/NAME`, or as
            `camera:N[?size=WxH&fps=F&fourcc=MJPG]`; `rtsp://`, `http://`, `https://`, `udp://`; `gst:PIPELINE`, to
            which an appsink is added where it has none; `csi:N[?size=WxH&fps=N&flip=N]`, a Jetson's camera;
            `libcamera:0[?size=WxH&fps=N]` or `libcamera:NAME`.
        options: how the frames are read.
        live: whether a live source may be opened. Only what the user has typed may: a pipeline can write files, and
            a specification that comes out of a data set or a budget is somebody else's.

    Raises:
        SourceError: nothing there, no images, a video or live source that cannot be opened or is not wanted, ground
            truth that does not fit.
        BackendMissingError: a live source that this OpenCV cannot read.
        UnknownNameError: no such scene.
        UsageError: a scene's length or size outside its range.
    """
    if isinstance(spec, str) and spec.startswith("synthetic:"):
        return SyntheticSource(spec.removeprefix("synthetic:"))
    if isinstance(spec, int):
        spec = _index(spec)
    address = None if isinstance(spec, Path) else parse_address(spec)
    if address is not None:
        if not live:
            record = f", as `ffmpeg -i '{address.name}' -t 60 -c copy clip.mp4` makes one"
            raise SourceError(
                f"{address.name} is a live source, which cannot be read twice; `edgetrack track` takes it; here give a "
                f"recording of it{record if '://' in address.name else ''}"
            )
        return LiveSource(address, options)
    if isinstance(spec, str) and (not spec.strip() or spec.startswith("camera:")):
        raise SourceError(f"{spec!r} is no source; expected {_KINDS}")
    return _open_path(spec, options)


def _index(camera: int) -> str:
    if isinstance(camera, bool) or camera < 0:
        raise SourceError(f"camera {camera} was asked for; expected an index from 0 to 255")
    return f"camera:{camera}"


def _open_path(spec: str | Path, options: ReadOptions) -> FrameSource:
    try:
        path = Path(spec).expanduser()
        if path.is_dir():
            return open_folder(path, options)
        is_file, exists = path.is_file(), path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{str(spec)[:200]!r} is no source ({error}); expected {_KINDS}") from error
    if is_file:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            endings = " ".join(sorted(VIDEO_SUFFIXES))
            raise SourceError(
                f"{path} is not a video by its ending; expected one of {endings}; for images give their "
                "folder or a pattern"
            )
        return VideoSource(path, options)
    if not exists and isinstance(spec, str) and is_pattern(spec):
        return open_pattern(spec, options)
    if address := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):/", str(spec)):
        instead = "expected rtsp, http, https or udp"
        if address[1].lower() == "file":
            instead = f"give the path alone: {re.sub('^//(localhost)?', '', str(spec).partition(':')[2])}"
        raise SourceError(f"{hide_passwords(str(spec))} is an address of another kind; {instead}; expected {_KINDS}")
    state = "is neither a file nor a folder" if exists else "does not exist"
    raise SourceError(f"{hide_passwords(str(spec))} {state}; expected {_KINDS}")
