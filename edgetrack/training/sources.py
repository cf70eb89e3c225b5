"""From `--data` to a catalog: training packs (tar shards) and folders of images.

A shard is an uncompressed tar file of images with an `index.json`:

    {"shard", "count", "entries": [{"file", "source", "seq", "video", "frame", "width", "height", "box", "second",
    "text"}]}

`seq` is one object, `video` the clip it comes from, `frame` its number there, `box` x, y, w, h in pixels or null;
`second` (optional) names the thermal, depth or event image of the moment, `text` (optional) says what the object is.
Nothing is unpacked: members are read where they are. A shard is not trusted: names, sizes and the index are checked
first.

DATA/                     a folder, given as --data
  street/                 one object followed through one video
    img/000001.jpg ...    or visible/, rgb/, color/, imgs/, or the images right in street/
    infrared/000001.jpg   second images, as many; or thermal/, ir/, depth/, event/, aux/
    nlp.txt               a sentence on the object, or lines ATTRIBUTE=PHRASE
    groundtruth.txt       a row x,y,w,h in pixels for each image; nan,nan,nan,nan where the object is hidden
  textures/*.jpg          a folder without groundtruth.txt: images without a box
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from edgetrack.box import Box
from edgetrack.decoding import decode_json
from edgetrack.errors import SourceError
from edgetrack.io import open_regular, read_text
from edgetrack.media import IMAGE_SUFFIXES, ground_truth_for, natural_key
from edgetrack.training.catalog import LARGEST_PICTURE, Catalog, Labelled, Picture, build_catalog, implausible, merge

INDEX = "index.json"
LARGEST_INDEX = 64 * 2**20
MOST_MEMBERS = 500_000
IMAGE_FOLDERS = ("img", "imgs", "visible", "rgb", "color")
SECOND_FOLDERS = ("infrared", "thermal", "ir", "depth", "event", "aux")
TEXT = "nlp.txt"


class ShardEntry(msgspec.Struct, frozen=True):
    """One image of a shard."""

    file: str
    seq: str
    video: str
    frame: int
    width: int
    height: int
    box: tuple[float, float, float, float] | None
    source: str = ""
    second: str | None = None
    text: str = ""


class ShardIndex(msgspec.Struct, frozen=True):
    """What a shard holds."""

    shard: str
    count: int
    entries: list[ShardEntry]


def read_shard(path: Path) -> Catalog:
    """The catalog of one shard.

    Raises:
        SourceError: not an uncompressed tar file, no index or a wrong one, a member with a name that leads outside or
            that is no plain file, or more than 5 % of its pictures unusable.
    """
    try:
        members = _members(path)
        index = _index(path, members)
    except (tarfile.TarError, OSError, ValueError, ArithmeticError, RecursionError) as error:
        raise SourceError(f"shard {path} cannot be read as an uncompressed tar file: {error}") from error
    return build_catalog(str(path), _shard_pictures(path, index, members))


def _shard_pictures(path: Path, index: ShardIndex, members: dict[str, tarfile.TarInfo]) -> Iterator[Labelled | str]:
    for entry in sorted(index.entries, key=lambda e: (e.seq, e.frame)):
        pictures = [_member(path, file, members) for file in (entry.file, entry.second) if file is not None]
        if missing := [picture for picture in pictures if isinstance(picture, str)]:
            yield missing[0]
            continue
        picture, *second = (picture for picture in pictures if isinstance(picture, Picture))
        box = None if entry.box is None else Box(*entry.box)
        if box is not None and (reason := implausible(box, entry.width, entry.height)):
            yield f"{picture.name}: {reason}"
        else:
            picture = picture._replace(second=second[0] if second else None)
            yield Labelled(picture, entry.seq, entry.video, box, entry.text)


def _member(path: Path, file: str, members: dict[str, tarfile.TarInfo]) -> Picture | str:
    """An image of a shard, or that it is not there."""
    name = f"{path.name}:{file[:200]}"
    if (member := members.get(file)) is None:
        return f"{name} is in the index, not in the shard"
    return Picture(str(path.absolute()), member.offset_data, member.size, name)


def _members(path: Path) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    size = path.stat().st_size
    with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            _check_member(path, member, size)
            if member.name in members or len(members) >= MOST_MEMBERS:
                raise SourceError(f"shard {path} holds {member.name[:200]!r} twice, or more than {MOST_MEMBERS} files")
            members[member.name] = member
    return members


def _check_member(path: Path, member: tarfile.TarInfo, size: int) -> None:
    parts = PurePosixPath(member.name).parts
    if not member.isreg() or member.sparse is not None:
        raise SourceError(f"shard {path} holds {member.name[:200]!r}, which is not a plain file; expected images only")
    if not parts or parts[0] == "/" or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise SourceError(f"shard {path} holds the name {member.name[:200]!r}, which leads outside; it was not read")
    limit = LARGEST_INDEX if member.name == INDEX else LARGEST_PICTURE
    if member.size > limit or member.offset_data + member.size > size:
        raise SourceError(
            f"shard {path} states {member.size} bytes for {member.name[:200]!r}, more than the file holds or than the "
            f"limit of {limit}; copy the shard again"
        )


def _index(path: Path, members: dict[str, tarfile.TarInfo]) -> ShardIndex:
    member = members.get(INDEX)
    if member is None:
        raise SourceError(f"shard {path} holds no {INDEX}; docs/train.md shows the format")
    with open_regular(path) as file:
        file.seek(member.offset_data)
        data = file.read(member.size)
    index = decode_json(
        data, ShardIndex, lambda words: SourceError(f"the {INDEX} of shard {path} is not what it should be: {words}")
    )
    if index.count != len(index.entries) or len({e.file for e in index.entries}) > len(members):
        raise SourceError(
            f"the {INDEX} of shard {path} states {index.count} images and lists {len(index.entries)}; copy it again"
        )
    return index


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
    if _images(folder):
        return build_catalog(str(folder), _folder_pictures(folder, folder.name))
    children = sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)
    found = (item for child in children for item in _folder_pictures(child, f"{folder.name}/{child.name}"))
    return build_catalog(str(folder), found)


def _images(folder: Path) -> list[Path]:
    return _images_in(*(folder / name for name in IMAGE_FOLDERS), folder)


def _images_in(*places: Path) -> list[Path]:
    """The images of the first folder that has any."""
    for place in places:
        if place.is_dir():
            found = [p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
            if found:
                return sorted(found, key=natural_key)
    return []


def _folder_pictures(folder: Path, name: str) -> Iterator[Labelled | str]:
    images = _images(folder)
    boxes = ground_truth_for([folder, images[0].parent], len(images)) if images else None
    seconds = _images_in(*(folder / place for place in SECOND_FOLDERS))
    if seconds and len(seconds) != len(images):
        raise SourceError(
            f"{folder} has {len(images)} images and {len(seconds)} second ones in {seconds[0].parent.name}; expected "
            "one for each: remove those without a partner"
        )
    text = read_text(folder / TEXT, error=SourceError).strip() if images and (folder / TEXT).is_file() else ""
    others: Sequence[Path | None] = seconds or [None] * len(images)
    for image, second, box in zip(images, others, boxes or [None] * len(images), strict=True):
        if boxes is not None and box is None:
            continue  # the object is hidden in this frame
        # Without the image's size only what no image can hold is caught here; decoding catches the rest.
        reason = None if box is None else implausible(box, 1 << 20, 1 << 20)
        other = None if second is None else _picture(second)
        picture = f"{image}: {reason}" if reason is not None else _picture(image)
        if isinstance(picture, str) or isinstance(other, str):
            yield picture if isinstance(picture, str) else str(other)
        else:
            yield Labelled(picture._replace(second=other), name, name, box, text)


def _picture(image: Path) -> Picture | str:
    """An image file, or why it cannot be one."""
    try:
        length = image.stat().st_size
    except OSError as error:
        return f"{image} cannot be read: {error.strerror}"
    if not 0 < length <= LARGEST_PICTURE:
        return f"{image}: it has {length} bytes; expected 1 to {LARGEST_PICTURE}"
    return Picture(str(image.absolute()), 0, length, str(image))
