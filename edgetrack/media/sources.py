"""Where frames come from: synthetic scenes, videos, folders and patterns of images, cameras."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.errors import SourceError
from edgetrack.media.folders import is_pattern, open_folder, open_pattern
from edgetrack.media.frames import Frame, FrameSource, ReadOptions
from edgetrack.media.raster import VIEWS
from edgetrack.media.scenes import load_scene
from edgetrack.media.videos import VIDEO_SUFFIXES, CameraSource, VideoSource

__all__ = ["FrameSource", "open_source"]

_KINDS = (
    "a video file, a folder of images, a pattern such as 'frames/*.jpg', a camera such as 0, "
    "or a scene such as synthetic:drift"
)
_MOST_DIGITS = 9


class SyntheticSource(FrameSource):
    """A scene of `edgetrack.media.scenes`, with its exact ground truth, as one of `VIEWS` shows it."""

    def __init__(self, rest: str) -> None:
        name, _, query = rest.partition("?")
        options, self._view = _scene_options(query, f"synthetic:{rest}")
        self._scene = load_scene(name, frames=options.get("frames"), size=_size_of(options), seed=options.get("seed"))
        self.name = f"synthetic:{name}"
        self.length = self._scene.length
        self.fps = self._scene.fps
        self.size = (self._scene.width, self._scene.height)

    @cached_property
    def ground_truth(self) -> list[Box | None]:
        return [self._scene.box(index) for index in range(self._scene.length)]

    def __iter__(self) -> Iterator[Frame]:
        return (self._scene.frame(index, view=self._view) for index in range(self._scene.length))

    def deep(self) -> Iterator[Array]:
        if self._view != "depth":
            return iter(self)
        return (self._scene.depth(index) for index in range(self._scene.length))


def _size_of(options: dict[str, int]) -> tuple[int, int] | None:
    return (options["width"], options["height"]) if "width" in options else None


def _scene_options(query: str, spec: str) -> tuple[dict[str, int], str]:
    options, view = dict[str, int](), VIEWS[0]
    wrong = (
        f"{spec!r} is not a scene; expected synthetic:NAME?frames=150&size=640x360&seed=0&view=colour, each option at "
        f"most once, and one of the views {', '.join(VIEWS)}"
    )
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        if len({key for key, _ in pairs}) != len(pairs):
            raise SourceError(wrong)
        for key, value in pairs:
            if key == "size":
                options["width"], options["height"] = (int(part) for part in value.lower().split("x"))
            elif key in ("frames", "seed"):
                options[key] = int(value)
            elif key == "view" and value in VIEWS:
                view = value
            else:
                raise SourceError(f"{wrong}; {key!r} is none of them")
    except ValueError:
        raise SourceError(wrong) from None
    return options, view


def open_source(spec: str | Path | int, options: ReadOptions = ReadOptions()) -> FrameSource:  # noqa: B008 - frozen
    """Open what frames are to be read from.

    Args:
        spec: one of: `synthetic:NAME[?frames=N&size=WxH&seed=N&view=thermal]`; a video file; a folder of images, in
            natural order (its sub-folder `img` or `imgs` where it has one); a glob pattern of images; a camera as an
            int, as digits or as `camera:N`. A `Path` is always a file or folder; write `./0` for a folder that is
            called 0. The `groundtruth.txt` or `groundtruth_rect.txt` of a sequence is read where it lies with the
            images or beside their `img`.
        options: how the frames are read.

    Raises:
        SourceError: nothing there, no images, a video or camera that cannot be opened, ground truth that does not fit.
        UnknownNameError: no such scene.
        UsageError: a scene's length or size outside its range.
    """
    if isinstance(spec, int):
        return _camera(spec, options)
    if isinstance(spec, str):
        if spec.startswith("synthetic:"):
            return SyntheticSource(spec.removeprefix("synthetic:"))
        digits = spec.removeprefix("camera:")
        if digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS:
            return _camera(int(digits), options)
        if not spec.strip() or spec.startswith("camera:"):
            raise SourceError(f"{spec!r} is no source; expected {_KINDS}")
    return _open_path(spec, options)


def _camera(index: int, options: ReadOptions) -> CameraSource:
    if isinstance(index, bool) or not 0 <= index <= 255:
        raise SourceError(f"camera {index} was asked for; expected an index from 0 to 255")
    return CameraSource(index, options)


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
    if device := re.fullmatch(r"/dev/video([0-9]+)", str(spec)):
        raise SourceError(f"{spec} is a camera's device; give its number: {device[1]}")
    if address := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):/", str(spec)):
        instead = (
            f"give the path alone: {re.sub('^//(localhost)?', '', str(spec).partition(':')[2])}"
            if address[1].lower() == "file"
            else f"record a clip with `ffmpeg -i {spec} -t 60 -c copy clip.mp4` and give that"
        )
        raise SourceError(f"{spec} is an address; {instead}; expected {_KINDS}")
    state = "is neither a file nor a folder" if exists else "does not exist"
    raise SourceError(f"{spec} {state}; expected {_KINDS}")
