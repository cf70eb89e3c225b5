"""`edgetrack pack` and `unpack`: a bundle as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli.options import BundleArgument, OverwriteOption


def pack(
    bundle: BundleArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the zip. Default: the bundle's folder plus .zip.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Pack a bundle into one zip. The same bundle gives the same bytes."""
    from edgetrack.bundle import open_bundle
    from edgetrack.bundle import pack as run
    from edgetrack.cli.console import human_size, print_text

    with open_bundle(bundle) as opened:
        destination = output or opened.folder.with_name(opened.folder.name + ".zip")
        path = run(opened, destination, overwrite=overwrite)
    print_text(f"{path}  {human_size(path.stat().st_size)}")


def unpack(
    archive: Annotated[Path, typer.Argument(help="A bundle's zip.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the folder. Default: the zip's name without .zip.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Check a bundle's zip, and unpack it into a folder."""
    from edgetrack.bundle import unpack as run
    from edgetrack.cli.console import print_text

    print_text(str(run(archive, output or archive.with_suffix(""), overwrite=overwrite)))
