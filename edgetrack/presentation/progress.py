"""How verbs tell what happens now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgetrack.presentation.sanitize import printable

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Is told what happens now, the number of that step, from 1, and how many steps there are, 0 where nobody knows."""


def no_progress(what: str, step: int, total: int) -> None:
    """Tell nobody."""


@contextmanager
def shown_progress(console: Console, *, refresh: bool = True, lines: bool = True, every: int = 1) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere, such as in a log, a line for each step that begins.

    Args:
        console: where to, stderr.
        refresh: whether the bar moves between steps, too. False while something is measured: a display that refreshes
            itself takes processor time.
        lines: whether steps are logged where there is no terminal.
        every: log the first step and each multiple of this.
    """
    if not console.is_terminal:

        def log(what: str, step: int, total: int) -> None:
            if lines and (step % every == 0 or step <= 1):
                place = f"{step}/{total} " if total else ""
                console.print(f"{place}{printable(what)}", markup=False, highlight=False, soft_wrap=True)

        yield log
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=console, auto_refresh=refresh, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, step: int, total: int) -> None:
            bar.update(
                task, description=printable(what), completed=max(0, step - 1), total=total or None, refresh=not refresh
            )

        yield show
