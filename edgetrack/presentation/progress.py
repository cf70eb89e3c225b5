"""How verbs tell what happens now: a bar on a terminal, elsewhere one line every half minute."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from edgetrack.presentation.sanitize import log_line, printable

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Is told what happens now, the number of that step, from 1, and how many steps there are, 0 where nobody knows."""
HEARTBEAT_S = 30
_EVERY_STEP = re.compile(r"\d+\.\d s: (?:(\d{1,15})/(\d{1,15}) )?(.*)")
_HEARTBEAT = re.compile(r"after \d+ s: (.*)")


class Verbosity(Enum):
    """How much a verb says beside its result."""

    QUIET = "errors"
    NORMAL = "remarks, and how far it is"
    VERBOSE = "every step"


_verbosity = Verbosity.NORMAL


def verbosity() -> Verbosity:
    """What this process was asked for."""
    return _verbosity


def set_verbosity(wanted: Verbosity) -> None:
    """Ask for more or less from now on."""
    global _verbosity
    _verbosity = wanted


def no_progress(what: str, step: int, total: int) -> None:
    """Tell nobody."""


@contextmanager
def shown_progress(
    console: Console, *, refresh: bool = True, over: threading.Event | None = None
) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere, such as in a log, a line every 30 seconds that says what happens then.

    Where every step was asked for, each is a line, of one that counts at most one a second; nothing where quiet is.

    Args:
        console: where to, stderr.
        refresh: whether the bar moves between steps, too. False while something is measured: a display that refreshes
            itself takes processor time.
        over: what the heartbeat waits for between lines, and what ends it; tests give their own clock so.
    """
    if verbosity() is not Verbosity.NORMAL:
        yield _every_step(console) if verbosity() is Verbosity.VERBOSE else no_progress
        return
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


def step_of(line: str) -> tuple[str, int, int] | None:
    """What another process's line under `Verbosity.VERBOSE` tells, as `Progress` takes it; None for any other line."""
    found = _EVERY_STEP.fullmatch(line)
    return None if found is None else (found[3], int(found[1] or 0), int(found[2] or 0))


def _every_step(console: Console) -> Progress:
    begun = time.monotonic()
    last, said = "", -1.0

    def show(what: str, step: int, total: int) -> None:
        nonlocal last, said
        seconds = time.monotonic() - begun
        if what != last or seconds - said >= 1 or (total and step == total):
            last, said = what, seconds
            line = log_line(f"{seconds:.1f} s: {step}/{total} {what}" if total else f"{seconds:.1f} s: {what}")
            console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    return show


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
