"""Where words go: results to stdout, progress and warnings to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from edgetrack.presentation.sanitize import log_line

T = TypeVar("T")
# A pipe or file has no width: nothing in it is folded.
PIPE_WIDTH = 1_000_000


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


def stderr() -> Console:
    """For progress and warnings."""
    return _Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def folder_or_file(output: Path | None) -> tuple[Path | None, Path | None]:
    """The folder for runs, and the file for the result, that `--output` names: a name in .json is a file's."""
    is_file = output is not None and output.suffix == ".json"
    return (None, output) if is_file else (output, None)


def print_json(value: Any) -> None:
    """A msgspec struct or plain data as indented JSON on stdout."""
    from edgetrack.io import encode_json

    sys.stdout.write(encode_json(value, indent=2, order="deterministic").decode() + "\n")


@contextmanager
def stages(title: str) -> Iterator[Callable[[str], None]]:
    """Show the stages of a long step on stderr: a spinner on a terminal, a line each elsewhere."""
    console = stderr()
    if console.is_terminal:
        with console.status(title) as status:
            yield lambda stage: status.update(f"{title}: {stage}")
    else:
        yield lambda stage: console.print(f"{title}: {stage}", markup=False)


def progress_bar(title: str) -> Callable[[Iterable[T], int | None], Iterable[T]]:
    """A bar on stderr around an iteration; nothing where stderr is no terminal."""
    console = stderr()

    def wrap(items: Iterable[T], total: int | None) -> Iterable[T]:
        from rich.progress import track

        return track(items, title, total, console=console, transient=True, disable=not console.is_terminal)

    return wrap


def human_size(size: float) -> str:
    """Bytes as MiB (2**20), with one digit."""
    return f"{size / 2**20:.1f} MiB"
