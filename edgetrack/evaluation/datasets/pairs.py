"""Second images of a sequence: thermal, depth or event images beside the colour images, one for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from edgetrack.arrays import Boxes
from edgetrack.errors import SequenceError
from edgetrack.media import FrameSource, ImageSource, open_source

Media = tuple[Path, ...] | str
"""Image files in order, or what `edgetrack.media.open_source` takes."""
Modality = Literal["thermal", "depth", "event"]


class SecondFiles(NamedTuple):
    """Where a sequence's second images are; nothing is read yet.

    Attributes:
        modality: what they show. A depth image has one channel of 8 or 16 bits, and is rendered in colours.
        frames: a folder of images, or, as text, what `edgetrack.media.open_source` takes.
        truth: their own file of boxes, where the data set has one for each modality.
    """

    modality: Modality
    frames: Path | str
    truth: Path | None = None


class SecondImages(NamedTuple):
    """The second images of a sequence, one for each of the first.

    Attributes:
        modality: see `SecondFiles`.
        media: image files in order, or what `edgetrack.media.open_source` takes.
        truth: float64 (frames, 4), as `Clip.truth`: the target in these images; None where it is that of the first.
    """

    modality: Modality
    media: Media
    truth: Boxes | None = None


def paired(first: list[Path], second: list[Path]) -> tuple[list[Path], list[Path]]:
    """Images of one length, each beside the one that was taken with it: by their order, as all toolkits read them.

    What one folder has more at its end is left out. Where the numbers in the names show that an image lacks in the
    middle, order would put all later ones beside the wrong partners.

    Raises:
        SequenceError: an image lacks in the middle.
    """
    count = min(len(first), len(second))
    a, b = (_numbers(images) for images in (first, second))
    aligned = a[:count] == b[:count]
    # Equally many under other numbers (from 0 and from 1) are in order; the same span with other gaps is not.
    if not aligned and (len(first) != len(second) or (a[0], a[-1]) == (b[0], b[-1])):
        at = next(index for index in range(count) if a[index] != b[index])
        raise SequenceError(
            f"{first[0].parent} has {len(first)} images and {second[0].parent} has {len(second)}, and from image "
            f"{at + 1} on ({first[at].name}, {second[at].name}) they are not of the same moments; copy the missing "
            "ones, or remove those without a partner"
        )
    return first[:count], second[:count]


def _numbers(images: Sequence[Path]) -> list[int | None]:
    """The last number in each name: 12 of v000012.jpg, 00012v.jpg and frame0012.bmp."""
    found = (re.findall(r"\d+", image.stem) for image in images)
    return [int(digits[-1]) if digits else None for digits in found]


def open_media(name: str, media: Media) -> FrameSource:
    """Frames of a sequence of that name.

    Raises:
        SourceError: they cannot be opened.
    """
    return open_source(media) if isinstance(media, str) else ImageSource(name, media, [])
