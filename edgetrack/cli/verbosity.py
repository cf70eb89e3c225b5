"""`--verbose`, `--quiet` and `--debug`, which every verb takes."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from edgetrack.cli.defaults import in_use
from edgetrack.cli.help import worded
from edgetrack.errors import UsageError

_PANEL = {
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every step to stderr as a line of its own.")
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")],
    "debug": Annotated[
        bool,
        typer.Option("--debug", envvar="EDGETRACK_DEBUG", help="Show the Python traceback of an error."),
    ],
}


def with_verbosity(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the three options added after its own.

    The returned function raises what the verb raises, and `UsageError` where both `--verbose` and `--quiet` are given.
    """

    @functools.wraps(verb)
    def run(*, verbose: bool, quiet: bool, debug: bool, **options: Any) -> None:
        from edgetrack.presentation.progress import Verbosity, set_verbosity  # 25 ms that --help need not wait for

        if verbose and quiet:
            raise UsageError("--verbose and --quiet contradict each other; give one of them")
        set_verbosity(Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL)
        if debug and (found := in_use()) is not None:
            print(f"edgetrack: defaults of {found}", file=sys.stderr)
        try:
            verb(**options)
        except Exception:
            if debug:
                traceback.print_exc(file=sys.stderr)
            raise

    own = inspect.signature(verb, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in _PANEL.items()
    ]
    positional = [worded(one).replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.parameters.values()]
    run.__signature__ = own.replace(parameters=[*positional, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {**verb.__annotations__, **_PANEL}
    return run
