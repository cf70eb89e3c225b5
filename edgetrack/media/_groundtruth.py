"""Ground truth that lies beside a sequence's images, as OTB, GOT-10k, LaSOT and TrackingNet write it."""

from __future__ import annotations

from pathlib import Path

from edgetrack.box import Box
from edgetrack.errors import SourceError

NAMES = ("groundtruth.txt", "groundtruth_rect.txt")


def read_ground_truth(path: Path) -> list[Box | None]:
    """One box per row: x, y, w, h in pixels, separated by commas, tabs, semicolons or spaces.

    A row of NaN, or one without a positive width and height, is None: the target is absent.

    Raises:
        SourceError: the file cannot be read, or a row is not four numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"ground truth {path} cannot be read as text: {error}") from error
    return [_row(line, path, number) for number, line in enumerate(text.rstrip().splitlines(), 1)]


def _row(line: str, path: Path, number: int) -> Box | None:
    try:
        x, y, w, h = (float(part) for part in line.replace(",", " ").replace(";", " ").split())
    except ValueError:
        raise SourceError(
            f"line {number} of {path} is {line[:80]!r}; expected four numbers x,y,w,h in pixels, or nan,nan,nan,nan "
            "for a frame without the target"
        ) from None
    box = Box(x, y, w, h)
    return box if box.is_finite and w > 0 and h > 0 else None


def ground_truth_for(folders: list[Path], frames: int) -> list[Box | None] | None:
    """The first ground truth file in these folders, one entry per frame; None where there is none.

    A file with a single row, as the test sets of GOT-10k and TrackingNet have, speaks of the first frame alone.

    Raises:
        SourceError: it cannot be read, or has neither one row nor one row per frame.
    """
    path = next((folder / name for folder in folders for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    boxes = read_ground_truth(path)
    if len(boxes) == 1:
        boxes += [None] * (frames - 1)
    if len(boxes) != frames:
        raise SourceError(
            f"{path} has {len(boxes)} rows for {frames} images; expected one row per image, or one row for the first; "
            "give the images that it speaks of, or rename the file to go without it"
        )
    return boxes
