"""Where words go: results to stdout, progress and warnings to stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console

from edgetrack.presentation.progress import Verbosity, shown_progress, verbosity
from edgetrack.presentation.sanitize import log_line

T = TypeVar("T")
# A pipe or file has no width: nothing in it is folded.
PIPE_WIDTH = 1_000_000
_STEERS = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]|#(?=#\\w*\\[)")


class _Console(Console):
    """Text is shown as it is, a string as one line: a bundle may be called `car[a]`, or after an escape sequence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        lines = (log_line(one) if isinstance(one, str) else one for one in objects)
        super().print(*lines, **{"soft_wrap": True, **options})

    def on_broken_pipe(self) -> None:
        # rich would end the process with 1; cli.main ends it as a shell expects.
        raise BrokenPipeError


def stdout() -> Console:
    """For results that people read."""
    return _Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def stderr(*, failure: bool = False) -> Console:
    """For progress and warnings, which `--quiet` leaves out, and for the reason of a failure, which it does not."""
    quiet = not failure and verbosity() is Verbosity.QUIET
    return _Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH, quiet=quiet)


def print_json(value: Any) -> None:
    """A msgspec struct or plain data as indented JSON on stdout."""
    from edgetrack.io import encode_json

    write_json(encode_json(value, indent=2, order="deterministic") + b"\n")


def write_json(data: bytes) -> None:
    """JSON on stdout, the same values with what would steer a terminal or a CI system escaped."""
    sys.stdout.write(_STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()))


def print_text(text: str, *, err: bool = False) -> None:
    """Lines of a result on stdout, or of remarks on stderr."""
    console = stderr() if err else stdout()
    for line in text.split("\n"):
        console.print(line)


@contextmanager
def stages(title: str) -> Iterator[Callable[[str], None]]:
    """Show the stages of a long step on stderr."""
    with shown_progress(stderr()) as progress:
        progress(title, 0, 0)
        yield lambda stage: progress(f"{title}: {stage}", 0, 0)


def progress_bar(title: str | Callable[[], str]) -> Callable[[Iterable[T], int | None], Iterable[T]]:
    """Show on stderr how far an iteration has come, under a title, which may change."""

    def wrap(items: Iterable[T], total: int | None) -> Iterable[T]:
        with shown_progress(stderr()) as progress:
            for number, item in enumerate(items, 1):
                progress(title if isinstance(title, str) else title(), number, total or 0)
                yield item

    return wrap


def human_size(size: float) -> str:
    """Bytes as MiB (2**20), with one digit."""
    return f"{size / 2**20:.1f} MiB"
