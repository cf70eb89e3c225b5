"""Sequences of image files: a folder, or a glob pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgetrack.box import Box
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.media._groundtruth import ground_truth_for
from edgetrack.media._images import IMAGE_SUFFIXES, read_image
from edgetrack.media._source import FrameSource, check_size
from edgetrack.media._types import Frame

_IMAGE_FOLDERS = ("img", "imgs")
_MAGIC = re.compile(r"[*?\[]")


class ImageSource(FrameSource):
    """Image files in the order given; each is read when its turn comes."""

    def __init__(self, name: str, paths: Sequence[Path], ground_truth_folders: list[Path]) -> None:
        self.name = name
        self.length = len(paths)
        self.fps = None
        self.paths = tuple(paths)
        self._ground_truth = ground_truth_for(ground_truth_folders, len(paths))
        self.size = self._first_size()

    @property
    def ground_truth(self) -> list[Box | None] | None:
        return self._ground_truth

    def _first_size(self) -> tuple[int, int] | None:
        try:
            height, width = read_image(self.paths[0], 0).shape[:2]
        except SourceInterruptedError:
            return None
        return width, height

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            image = read_image(path, index)
            try:
                check_size(image.shape[1], image.shape[0], "the image")
            except SourceError as error:
                raise SourceInterruptedError(f"frame {index} ({path}): {error}") from error
            yield image


def natural_key(path: Path) -> list[list[tuple[int, int, str]]]:
    """Sorts `frame2` before `frame10`, and `frame02` after `frame2`, folder by folder."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in path.parts
    ]


def _images_among(paths: Iterator[Path]) -> list[Path]:
    chosen = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(chosen, key=natural_key)


def open_folder(folder: Path) -> ImageSource:
    """The images of a folder, or of its sub-folder `img` or `imgs` where it has one with images.

    Raises:
        SourceError: no images, or a ground truth file that does not fit them.
    """
    candidates = [folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()] + [folder]
    for candidate in candidates:
        try:
            paths = _images_among(candidate.iterdir())
        except OSError as error:
            raise SourceError(f"folder {candidate} cannot be listed: {error.strerror or error}") from error
        if paths:
            return _sequence(candidate, paths)
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    raise SourceError(
        f"folder {folder} holds no images; expected files ending in {endings}, there or in its folder img"
    )


def _sequence(folder: Path, paths: list[Path]) -> ImageSource:
    folder = folder.absolute()
    if folder.name in _IMAGE_FOLDERS:
        return ImageSource(folder.parent.name, paths, [folder.parent, folder])
    return ImageSource(folder.name or "frames", paths, [folder])


def is_pattern(text: str) -> bool:
    """Whether the text has wildcards."""
    return _MAGIC.search(text) is not None


def open_pattern(pattern: str) -> ImageSource:
    """The images that a glob pattern matches, such as `frames/*.jpg`.

    Raises:
        SourceError: it matches no images, or a ground truth file does not fit them.
    """
    path = Path(pattern).expanduser()
    fixed = next(index for index, part in enumerate(path.parts) if is_pattern(part))
    root = Path(*path.parts[:fixed])
    try:
        paths = _images_among(root.glob(str(Path(*path.parts[fixed:]))))
    except (OSError, ValueError) as error:
        raise SourceError(f"pattern {pattern!r} cannot be searched: {error}") from error
    if not paths:
        raise SourceError(
            f"pattern {pattern!r} matches no images; expected something such as 'frames/*.jpg', in quotes so that the "
            "shell leaves it alone"
        )
    folders = {p.parent for p in paths}
    if len(folders) == 1:
        return _sequence(folders.pop(), paths)
    return ImageSource(root.absolute().name or "frames", paths, [])
