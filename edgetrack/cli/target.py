"""`edgetrack target`: the Python environments of targets whose packages cannot live with edgetrack's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli.help import Verb, VerbGroup, page
from edgetrack.cli.options import RestartOption
from edgetrack.cli.verbosity import with_verbosity

app = typer.Typer(
    cls=VerbGroup, help="Set up targets that need a Python environment of their own.", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """Set up targets that need a Python environment of their own."""


@app.command(cls=Verb, epilog=page("targets.md"))
@with_verbosity
def setup(
    name: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A target, see `edgetrack list --targets`.", autocompletion=complete.targets
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Run the commands. Without it they are printed.")] = False,
    python: Annotated[
        Path | None, typer.Option("--python", help="Interpreter to make it with. Default: a fitting one of PATH.")
    ] = None,
    restart: RestartOption = False,
) -> None:
    """Print the commands that make a target's own Python environment; --yes runs those that are not done."""
    from edgetrack.capabilities import find_target
    from edgetrack.cli.console import print_text, stderr
    from edgetrack.environments.setup import find_python, set_up, setup_steps, state_of
    from edgetrack.presentation.progress import shown_progress

    target = find_target(name)
    environment = target.environment
    if environment is None:
        ready = "is installed" if target.installed else f"is not installed; type: {target.install_command}"
        print_text(f"target {target.name!r} needs no environment of its own; it {ready}")
        return
    state = state_of(environment)
    begun = state.record is not None and state.fits and not restart
    interpreter = state.record.python if begun and state.record else find_python(environment, python)
    if not yes:
        for step in setup_steps(state, interpreter):
            print_text(f"{'# done: ' if step.done and not restart else ''}{step}")
        remark = "ready" if state.ready and not restart else f"{state}; nothing was run: --yes runs the commands above"
        print_text(f"{state.folder}: {remark}", err=True)
        return
    with shown_progress(stderr()) as progress:
        state = set_up(environment, interpreter, restart=restart, progress=progress)
    listed = ", ".join(f"{package} {version}" for package, version in state.versions.items())
    print_text(f"{state.folder}: {state}, {listed}")
