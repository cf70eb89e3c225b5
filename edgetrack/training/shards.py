"""Training packs: uncompressed tar files of images, each with an `index.json` that says what is in them.

    {"shard", "count", "entries": [{"file", "source", "seq", "video", "frame", "width", "height", "box"}]}

`seq` is one object, `video` the clip it comes from, `frame` its number there, `box` x, y, w, h in pixels or null.
Nothing is unpacked: members are read where they lie. A shard is read as hostile: names, sizes and the index are checked
first.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

import msgspec

from edgetrack.box import Box
from edgetrack.errors import SourceError
from edgetrack.training.catalog import LARGEST_PICTURE, Catalog, Gathering, Picture, implausible

INDEX = "index.json"
LARGEST_INDEX = 64 * 2**20
MOST_MEMBERS = 500_000


class Entry(msgspec.Struct, frozen=True):
    """One image of a shard."""

    file: str
    seq: str
    video: str
    frame: int
    width: int
    height: int
    box: tuple[float, float, float, float] | None
    source: str = ""


class Index(msgspec.Struct, frozen=True):
    """What a shard holds."""

    shard: str
    count: int
    entries: list[Entry]


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
    gathering = Gathering(path)
    for entry in sorted(index.entries, key=lambda e: (e.seq, e.frame)):
        member = members.get(entry.file)
        name = f"{path.name}:{entry.file[:200]}"
        if member is None:
            gathering.skip(f"{name} is in the index, not in the shard")
            continue
        box = None if entry.box is None else Box(*entry.box)
        reason = None if box is None else implausible(box, entry.width, entry.height)
        if reason is not None:
            gathering.skip(f"{name}: {reason}")
            continue
        picture = Picture(str(path.absolute()), member.offset_data, member.size, name)
        gathering.add(picture, entry.seq, entry.video, box)
    return gathering.finish()


def _members(path: Path) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    size = path.stat().st_size
    with tarfile.open(path, "r:") as archive:
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


def _index(path: Path, members: dict[str, tarfile.TarInfo]) -> Index:
    member = members.get(INDEX)
    if member is None:
        raise SourceError(f"shard {path} holds no {INDEX}; docs/train.md shows the format")
    with path.open("rb") as file:
        file.seek(member.offset_data)
        data = file.read(member.size)
    try:
        index = msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"the {INDEX} of shard {path} is not what it should be: {error}") from error
    if index.count != len(index.entries) or len({e.file for e in index.entries}) > len(members):
        raise SourceError(
            f"the {INDEX} of shard {path} states {index.count} images and lists {len(index.entries)}; copy it again"
        )
    return index
