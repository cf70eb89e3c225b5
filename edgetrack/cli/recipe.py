"""`edgetrack recipe`: recipes to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli.help import Verb, VerbGroup, page
from edgetrack.cli.options import OverwriteOption
from edgetrack.cli.verbosity import with_verbosity

app = typer.Typer(cls=VerbGroup, help="Make recipes for trackers that are given as ONNX files.", no_args_is_help=True)


@app.callback()
def recipes() -> None:
    """Make recipes for trackers that are given as ONNX files."""


@app.command(cls=Verb, epilog=page("onnx.md"))
@with_verbosity
def new(
    onnx: Annotated[list[Path], typer.Option("--onnx", help="ONNX file of the tracker. Repeat it for every file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of the recipe, which must end in .toml.")],
    family: Annotated[
        str | None, typer.Option("--family", help="center, box or distances. Default: what the outputs look like.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a recipe to start from: roles, sizes and layouts by the files' names and shapes, guesses marked."""
    from edgetrack.cli.console import print_text
    from edgetrack.errors import UnknownNameError, UsageError
    from edgetrack.exporting.guess import FAMILIES, guess, read_signature, recipe_text
    from edgetrack.io import write_whole

    if output.suffix != ".toml":
        raise UsageError(f"--output {output}: a recipe's file ends in .toml; try {output.with_suffix('.toml')}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; --overwrite replaces it")
    if family is not None and family not in FAMILIES:
        raise UnknownNameError.of("family", family, FAMILIES)
    files = [read_signature(path) for path in onnx]
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in output.stem.lower()).strip("_") or "mine"
    write_whole(output, recipe_text(name, files, family).encode())
    for doubt in guess(files).doubts:
        print_text(f"check: {doubt}")
    given = " ".join(f"--onnx {path}" for path in onnx)
    print_text(f"{output}: check what is marked as a guess, then: edgetrack export {output} {given}")
