"""Training data of one's own, and the way from `--data` to a catalog.

DATA/                     given as --data
  street/                 one object followed through one video
    img/000001.jpg ...    or the images right in street/
    groundtruth.txt       a row x,y,w,h in pixels for each image; nan,nan,nan,nan where the object is hidden
  textures/*.jpg          a folder without groundtruth.txt: images without a box
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgetrack.box import Box
from edgetrack.errors import SourceError
from edgetrack.media import IMAGE_SUFFIXES, ground_truth_for, natural_key
from edgetrack.training.catalog import LARGEST_PICTURE, Catalog, Gathering, Picture, implausible, merge
from edgetrack.training.shards import read_shard

IMAGE_FOLDERS = ("img", "imgs")


def read_data(paths: Iterable[Path]) -> Catalog:
    """The catalog of all that `--data` names: tar shards, folders of shards, sequence folders, folders of those.

    Raises:
        SourceError: a path that does not exist or holds nothing to train on, or a collection that is too damaged.
    """
    return merge(_read(path) for path in paths)


def _read(path: Path) -> Catalog:
    if path.is_file():
        if path.suffix != ".tar":
            raise SourceError(f"{path} is not a training pack; expected a .tar shard or a folder (see docs/train.md)")
        return read_shard(path)
    if not path.is_dir():
        raise SourceError(f"{path} does not exist; give a .tar shard or a folder (see docs/train.md)")
    shards = sorted(path.glob("*.tar"))
    return merge(read_shard(shard) for shard in shards) if shards else read_folder(path)


def read_folder(folder: Path) -> Catalog:
    """The catalog of a sequence folder, or of a folder of them.

    Raises:
        SourceError: no images, ground truth with another number of rows, or more than 5 % unusable boxes.
    """
    gathering = Gathering(folder)
    if _images(folder):
        _add_sequence(gathering, folder, folder.name)
    else:
        for child in sorted(
            (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key
        ):
            _add_sequence(gathering, child, f"{folder.name}/{child.name}")
    return gathering.finish()


def _images(folder: Path) -> list[Path]:
    for place in (*(folder / name for name in IMAGE_FOLDERS), folder):
        if place.is_dir():
            found = [p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
            if found:
                return sorted(found, key=natural_key)
    return []


def _add_sequence(gathering: Gathering, folder: Path, name: str) -> None:
    images = _images(folder)
    if not images:
        return
    boxes = ground_truth_for([folder, images[0].parent], len(images))
    for image, box in zip(images, boxes or [None] * len(images), strict=True):
        if boxes is not None and box is None:
            continue  # the object is hidden in this frame
        _add(gathering, image, name, box)


def _add(gathering: Gathering, image: Path, name: str, box: Box | None) -> None:
    try:
        length = image.stat().st_size
    except OSError as error:
        gathering.skip(f"{image} cannot be read: {error.strerror}")
        return
    # Without the image's size only what no image can hold is caught here; decoding catches the rest.
    reason = None if box is None else implausible(box, 1 << 20, 1 << 20)
    if reason is not None or not 0 < length <= LARGEST_PICTURE:
        gathering.skip(f"{image}: {reason or f'it has {length} bytes; expected 1 to {LARGEST_PICTURE}'}")
        return
    gathering.add(Picture(str(image.absolute()), 0, length, str(image)), name, name, box)
