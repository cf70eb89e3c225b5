"""How verbs tell what happens now: a bar on a terminal, elsewhere one line every half minute."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgetrack.presentation.sanitize import log_line, printable

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Is told what happens now, the number of that step, from 1, and how many steps there are, 0 where nobody knows."""
HEARTBEAT_S = 30
_HEARTBEAT = re.compile(r"after \d+ s: (.*)")


def no_progress(what: str, step: int, total: int) -> None:
    """Tell nobody."""


@contextmanager
def shown_progress(
    console: Console, *, refresh: bool = True, over: threading.Event | None = None
) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere, such as in a log, a line every 30 seconds that says what happens then.

    Args:
        console: where to, stderr.
        refresh: whether the bar moves between steps, too. False while something is measured: a display that refreshes
            itself takes processor time.
        over: what the heartbeat waits for between lines, and what ends it; tests give their own clock so.
    """
    if not console.is_terminal:
        yield from _heartbeat(console, over or threading.Event())
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


def heartbeat(line: str) -> str | None:
    """What another process's heartbeat says happens there; None for any other line."""
    found = _HEARTBEAT.fullmatch(line)
    return None if found is None else found[1]


def _heartbeat(console: Console, over: threading.Event) -> Iterator[Progress]:
    now = "starting"

    def note(what: str, step: int, total: int) -> None:
        nonlocal now
        now = f"{step}/{total} {what}" if total else what

    def beat() -> None:
        seconds = HEARTBEAT_S
        while not over.wait(HEARTBEAT_S):
            line = log_line(f"after {seconds} s: {now}")
            console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
            seconds += HEARTBEAT_S

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield note
    finally:
        over.set()
        thread.join()
