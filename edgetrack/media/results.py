"""The boxes of a run, as files that survive its end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.media._outputs import claim, suffix_of

BOX_SUFFIXES = (".txt", ".csv", ".json")
SCHEMA = 1


@dataclass(frozen=True)
class BoxRecord:
    """One frame's result.

    Attributes:
        frame: number of the frame, from 0.
        box: top-left corner and size in pixels.
        score: the tracker's confidence, or None where it gives none.
        lost: whether the tracker says that it has lost the target.
        track_ms: time from frame to box in milliseconds, or None where it was not taken.
        diagnostics: what the tracker mixed, mixture -> part -> share; empty for most.
    """

    frame: int
    box: Box
    score: float | None
    lost: bool
    track_ms: float | None
    diagnostics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class BoxWriter:
    """Writes one record after another: `.txt` (x,y,w,h per line, as the toolkits read it), `.csv` or `.json`.

    Lines go to `<path>.partial` and are flushed one by one; closing gives the file its name. When the `with` block
    fails, what was written still gets the final name (a JSON file is completed), and the error goes on; a block that
    fails before the first record leaves nothing. A killed process leaves the `.partial` file.

    JSON: `{"schema": 1, "source": ..., "boxes": [{"frame", "box": [x, y, w, h], "score", "lost", "track_ms"}]}`, and
    `"diagnostics": {mixture: {part: share}}` in a row that has any; the other formats leave them out.
    Numbers that are not finite are null in JSON, empty in CSV and `nan` in text.
    """

    def __init__(self, path: str | Path, *, source: str = "", overwrite: bool = False) -> None:
        """Open the file.

        Args:
            path: where to write; the ending decides the format. Its folder is made where it is missing.
            source: what the boxes belong to; kept in JSON.
            overwrite: replace an existing file, and one left by a killed run.

        Raises:
            UsageError: another ending, an existing file, or a place that cannot be written to.
        """
        self.path = Path(path)
        self.count = 0
        """Records written so far."""
        self._suffix = suffix_of(self.path, BOX_SUFFIXES, "boxes")
        self._partial = self.path.with_name(self.path.name + ".partial")
        claim(self.path, self._partial, overwrite=overwrite)
        try:
            self._file = self._partial.open("w" if overwrite else "x", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self._put(self._head(source))

    def write(self, record: BoxRecord) -> None:
        """Add one record; it is with the operating system when this returns.

        Raises:
            ValueError: the writer is closed.
        """
        if self._suffix == ".txt":
            line = ",".join(f"{value:.4f}" for value in record.box) + "\n"
        elif self._suffix == ".csv":
            line = _csv_row(record)
        else:
            line = (",\n" if self.count else "\n") + _json_row(record)
        self._put(line)
        self.count += 1

    def close(self) -> None:
        """Complete the file and give it its final name. May be called more than once."""
        if self._file.closed:
            return
        with self._file:
            if self._suffix == ".json":
                self._put("\n]}\n")
            os.fsync(self._file.fileno())
        self._partial.replace(self.path)

    def __enter__(self) -> BoxWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self.count:
            self.close()
        elif not self._file.closed:
            self._file.close()
            self._partial.unlink()

    def _head(self, source: str) -> str:
        heads = {
            ".txt": "",
            ".csv": "frame,x,y,w,h,score,lost,track_ms\n",
            ".json": f'{{"schema": {SCHEMA}, "source": {json.dumps(source)}, "boxes": [',
        }
        return heads[self._suffix]

    def _put(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def _finite(value: float | None, digits: int) -> float | None:
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def _csv_row(record: BoxRecord) -> str:
    numbers = [*(_finite(value, 4) for value in record.box), _finite(record.score, 6)]
    cells = ["" if number is None else repr(number) for number in numbers]
    time = _finite(record.track_ms, 4)
    return ",".join([str(record.frame), *cells, str(int(record.lost)), "" if time is None else repr(time)]) + "\n"


def _json_row(record: BoxRecord) -> str:
    row: dict[str, object] = {
        "frame": record.frame,
        "box": [_finite(value, 4) for value in record.box],
        "score": _finite(record.score, 6),
        "lost": bool(record.lost),
        "track_ms": _finite(record.track_ms, 4),
    }
    if record.diagnostics:
        row["diagnostics"] = {
            name: {part: _finite(share, 6) for part, share in parts.items()}
            for name, parts in record.diagnostics.items()
        }
    return json.dumps(row, allow_nan=False)
