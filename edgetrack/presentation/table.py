"""The table of every verb, for a terminal, Markdown and plain text. A verb states columns, rows and notes only.

No figure is ever cut. In a terminal that is too narrow, texts and titles are folded; then the columns that matter least
are left out, and a note names them; and where even that is too wide, each row becomes a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgetrack.presentation.sanitize import log_line, markdown_text, printable

if TYPE_CHECKING:
    from rich.console import Console

NONE = "-"
Cell = str | int | float | None
"""None is a figure that is not known, shown as a dash."""
_GAP = 2
_SHORTEST_TEXT = 20
"""Longer words of a text may be folded; figures fold between words, and an interval after its dash."""
_PIECES = re.compile(r"\S+?(?<=\d-)(?=[\d.])|\S+")
_BREAKS = "-_/.,:@="


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        digits: the number of decimals of its numbers; None shows them as they are.
        align: left for text, right for figures, which are never cut.
        drop: in a narrow terminal the columns with the highest go first; one with 0 stays.
    """

    title: str
    digits: int | None = None
    align: Literal["left", "right"] = "right"
    drop: int = 0

    def text(self, cell: Cell) -> str:
        """A cell as it is shown."""
        return cell if isinstance(cell, str) else number(cell, self.digits)


@dataclass(frozen=True)
class Table:
    """Columns, rows of as many cells, and notes of one line each, which go below. Without titles there is no head.

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

    def show(self, console: Console) -> None:
        """Print the table in the console's width, and its notes."""
        head, lines, notes = self._drawn(console.width)
        for part, style in ((head, "bold"), (lines, None), (notes, None)):
            for line in part:
                console.print(log_line(line), style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def markdown(self) -> str:
        """The table and its notes as GitHub's Markdown."""
        rules = ["---:" if column.align == "right" else "---" for column in self.columns]
        texts = [[column.title for column in self.columns], *self.cells()]
        head, *rows = [list(map(markdown_text, row)) for row in texts]
        lines = [f"| {' | '.join(row)} |" for row in (head, rules, *rows)]
        if self.notes:
            lines += ["", *(f"- {markdown_text(note)}" for note in self.notes)]
        return "\n".join(lines)

    def plain(self, width: int | None = None) -> str:
        """The table in that many columns of text, by default as many as it takes, and its notes."""
        head, lines, notes = self._drawn(width)
        return "\n".join(map(log_line, (*head, *lines, *notes)))

    def _drawn(self, width: int | None) -> tuple[list[str], list[str], list[str]]:
        """The head's lines, the rows' and the notes."""
        titles, cells, notes = [printable(column.title) for column in self.columns], self.cells(), list(self.notes)
        kept = list(range(len(self.columns)))
        while (widths := self._widths(kept, [titles, *cells], width)) is None:
            ranked = [index for index in kept if self.columns[index].drop]
            if not ranked:
                return [], list(self._blocks([titles[i] for i in kept], cells, kept, width or 0)), self._left_out(kept)
            kept.remove(max(ranked, key=lambda index: (self.columns[index].drop, index)))
        rows = [list(self._row(texts, kept, widths, at_end=texts is titles)) for texts in (titles, *cells)]
        head = rows[0] if any(titles) else []
        if len(kept) < len(self.columns):
            notes = self._left_out(kept)
        return head, [line for row in rows[1:] for line in row], notes

    def _left_out(self, kept: Sequence[int]) -> list[str]:
        gone = [column.title for index, column in enumerate(self.columns) if index not in kept]
        return [*([f"left out in this width: {', '.join(gone)}; --json has them"] if gone else []), *self.notes]

    def _widths(self, kept: Sequence[int], rows: Sequence[Sequence[str]], width: int | None) -> list[int] | None:
        """Of the columns that are kept; None where they do not fit. The widest give way first."""
        natural = [max(_cells(row[index]) for row in rows) for index in kept]
        if width is None:
            return natural
        least = [max(self._least(index, row[index]) for row in rows) for index in kept]
        widths = [max(low, min(wish, width)) for low, wish in zip(least, natural, strict=True)]
        room = width - _GAP * (len(kept) - 1)
        while sum(widths) > room:
            widest = max(range(len(kept)), key=lambda i: widths[i] if widths[i] > least[i] else 0)
            if widths[widest] <= least[widest]:
                return None
            widths[widest] -= 1
        return widths

    def _least(self, index: int, text: str) -> int:
        longest = max(map(_cells, _PIECES.findall(text)), default=0)
        return longest if self.columns[index].align == "right" else min(longest, _SHORTEST_TEXT)

    def _row(self, texts: Sequence[str], kept: Sequence[int], widths: Sequence[int], *, at_end: bool) -> Iterator[str]:
        folded = [_folded(texts[index], width) for index, width in zip(kept, widths, strict=True)]
        height = max(map(len, folded))
        blank = [[""] * (height - len(lines)) for lines in folded]
        columns = [gap + lines if at_end else lines + gap for lines, gap in zip(folded, blank, strict=True)]
        for line in zip(*columns, strict=True):
            parts = []
            for text, index, width in zip(line, kept, widths, strict=True):
                space = " " * (width - _cells(text))
                parts.append(text + space if self.columns[index].align == "left" else space + text)
            yield (" " * _GAP).join(parts).rstrip()

    @staticmethod
    def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], width: int) -> Iterator[str]:
        for row in rows:
            first, *others = (row[index] for index in kept)
            yield from _folded(first, width)
            for title, text in zip(titles[1:], others, strict=True):
                if text:
                    lines = _folded(f"{title} {text}".strip(), max(width - 4, 1))
                    yield from (f"{'    ' if index else '  '}{line}" for index, line in enumerate(lines))


def _cells(text: str) -> int:
    """Columns of a terminal that a text takes: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _folded(text: str, width: int) -> list[str]:
    """A text on lines of at most that many columns, broken between words, and within words that are longer."""
    if _cells(text) <= width:
        return [text]
    lines, end = [""], 0
    for match in _PIECES.finditer(text):
        glue = " " if match.start() > end and lines[-1] else ""
        end, piece = match.end(), match[0]
        if _cells(lines[-1] + glue + piece) <= width:
            lines[-1] += glue + piece
            continue
        if lines[-1]:
            lines.append("")
        *whole, rest = _broken(piece, width)
        lines[-1:] = [*whole, rest]
    return lines


def _broken(word: str, width: int) -> list[str]:
    parts = []
    while _cells(word) > width:
        fits = 1
        while _cells(word[: fits + 1]) <= width:
            fits += 1
        mark = max(word.rfind(sign, fits // 2, fits) for sign in _BREAKS)
        cut = mark + 1 if mark >= 0 else fits
        parts.append(word[:cut])
        word = word[cut:]
    return [*parts, word]


def show_all(tables: Iterable[Table], console: Console) -> None:
    """Print tables with a line between them."""
    for index, table in enumerate(tables):
        if index:
            console.print()
        table.show(console)


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and what is known of each, without a head."""
    return Table((Column("", align="left"), Column("", align="left")), list(pairs))


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
