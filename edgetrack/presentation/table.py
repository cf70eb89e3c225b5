"""The table of every verb, for a terminal, Markdown and plain text. A verb states columns, rows and notes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgetrack.presentation.sanitize import markdown_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

NONE = "-"
Cell = str | int | float | None
"""None is a figure that is not known, shown as a dash."""


@dataclass(frozen=True)
class Column:
    """A column; `digits` is the number of decimals of its numbers, None shows them as they are."""

    title: str
    digits: int | None = None
    align: Literal["left", "right"] = "right"

    def text(self, cell: Cell) -> str:
        """A cell as it is shown."""
        return cell if isinstance(cell, str) else number(cell, self.digits)


@dataclass(frozen=True)
class Table:
    """Columns, rows of as many cells, and notes of one line each, which go below.

    Cells and notes may hold text from outside: every output escapes it.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def cells(self) -> list[list[str]]:
        """The rows as printable text."""
        return [
            [printable(column.text(cell)) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]

    def rich(self) -> RichTable:
        """The table without its notes, for a terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(box=None, pad_edge=False)
        for column in self.columns:
            drawn.add_column(Text(printable(column.title)), justify=column.align, no_wrap=True)
        for row in self.cells():
            drawn.add_row(*map(Text, row))
        return drawn

    def show(self, console: Console) -> None:
        """Print the table and its notes."""
        console.print(self.rich())
        for note in self.notes:
            console.print(printable(note), markup=False, highlight=False, soft_wrap=True)

    def markdown(self) -> str:
        """The table and its notes as GitHub's Markdown."""
        rules = ["---:" if column.align == "right" else "---" for column in self.columns]
        texts = [[column.title for column in self.columns], *self.cells()]
        head, *rows = [list(map(markdown_text, row)) for row in texts]
        lines = [f"| {' | '.join(row)} |" for row in (head, rules, *rows)]
        if self.notes:
            lines += ["", *(f"- {markdown_text(note)}" for note in self.notes)]
        return "\n".join(lines)

    def plain(self) -> str:
        """The table and its notes as text in columns."""
        texts = [[printable(column.title) for column in self.columns], *self.cells()]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = [
            "  ".join(
                text.ljust(width) if column.align == "left" else text.rjust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            ).rstrip()
            for row in texts
        ]
        return "\n".join([*lines, *map(printable, self.notes)])


def number(value: float | None, digits: int | None = None) -> str:
    """A number with that many decimals; a dash for None."""
    if value is None:
        return NONE
    return str(value) if digits is None else f"{value:.{digits}f}"


def counted(count: float | None, noun: str) -> str:
    """`1 sequence`, `2 sequences`, `- usable cores` where the number is not known."""
    return f"{NONE if count is None else count} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def span(interval: Sequence[float] | None, digits: int = 2) -> str:
    """An interval such as `0.45-0.52`; a dash for None."""
    return NONE if interval is None else f"{interval[0]:.{digits}f}-{interval[1]:.{digits}f}"
