"""`edgetrack pack` and `unpack`: a bundle as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def pack(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder or name.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The zip; else <bundle's folder>.zip.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pack a bundle into one zip; the same bundle gives the same bytes."""
    from edgetrack.bundle import open_bundle
    from edgetrack.bundle import pack as run
    from edgetrack.cli.console import human_size

    with open_bundle(bundle) as opened:
        destination = output or opened.folder.with_name(opened.folder.name + ".zip")
        path = run(opened, destination, overwrite=overwrite)
    typer.echo(f"{path}  {human_size(path.stat().st_size)}")


def unpack(
    archive: Annotated[Path, typer.Argument(help="A bundle's zip.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder; else the zip's name.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Unpack a bundle's zip into a folder, after checking all of it."""
    from edgetrack.bundle import unpack as run

    typer.echo(str(run(archive, output or archive.with_suffix(""), overwrite=overwrite)))
