"""What a training says of itself: log.json with everything, log.csv for spreadsheets, curves.png for eyes."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any

import msgspec

from edgetrack.errors import CheckpointError
from edgetrack.io import replace_whole
from edgetrack.training.settings import Settings

JSON, CSV, PICTURE = "log.json", "log.csv", "curves.png"


class Row(msgspec.Struct, frozen=True):
    """Means over the steps since the last row; `ao` is that of the held-aside sequences, where it was taken.

    `hit` is the share of positive pairs whose highest score lies within one cell of the target, `seconds` the time
    spent so far.
    """

    step: int
    search_size: int
    seconds: float
    lr: float | None = None
    loss: float | None = None
    focal: float | None = None
    l1: float | None = None
    giou: float | None = None
    iou: float | None = None
    hit: float | None = None
    pairs_per_s: float | None = None
    ao: float | None = None


class Piece(msgspec.Struct, frozen=True):
    """One run of the command: from which step, on which data and machine."""

    from_step: int
    data: list[str]
    catalog: str
    held_aside: list[str]
    skipped: list[str]
    device: str
    threads: int
    workers: int
    start: str
    versions: dict[str, str]


class Journal(msgspec.Struct):
    """The whole log."""

    settings: Settings
    schema: int = 1
    pieces: list[Piece] = []
    rows: list[Row] = []
    validations: list[dict[str, Any]] = []

    def cut(self, step: int) -> None:
        """Forget what was written after `step`, as a resumed training will do it again."""
        self.pieces = [piece for piece in self.pieces if piece.from_step <= step]
        self.rows = [row for row in self.rows if row.step <= step]
        self.validations = [entry for entry in self.validations if entry["step"] <= step]

    def write(self, folder: Path) -> None:
        """Both files, each replaced as a whole."""
        replace_whole(folder / JSON, msgspec.json.format(msgspec.json.encode(self), indent=1))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(Row.__struct_fields__)
        table.writerows([_cell(value) for value in msgspec.structs.astuple(row)] for row in self.rows)
        replace_whole(folder / CSV, text.getvalue().encode())


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def read_journal(folder: Path) -> Journal | None:
    """The log in a folder; None where there is none.

    Raises:
        CheckpointError: it is not one that this version wrote.
    """
    path = folder / JSON
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a training log: {error}. Move it away, or use --restart") from error


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(journal: Journal, path: Path) -> None:
    """Loss and its terms, IoU and hits, AO of the held-aside sequences over steps, as a PNG of 1200x450 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, journal.rows, ("loss", "focal", "l1", "giou"))
    left.set_yscale("log")
    _lines(right, journal.rows, ("iou", "hit", "ao"))
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.suptitle(f"training of {journal.settings.tracker}")
    figure.savefig(path)


def _lines(axes: Any, rows: list[Row], names: tuple[str, ...]) -> None:
    for name in names:
        points = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
        axes.plot([p[0] for p in points], [p[1] for p in points], label=name, marker="o" if name == "ao" else None)
