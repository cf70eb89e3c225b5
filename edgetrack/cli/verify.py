"""`edgetrack verify`: is this bundle what it says, and does it still compute what PyTorch computed?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgetrack.cli.options import BundleArgument, JsonOption, LocalDeviceOption, ThreadsOption

if TYPE_CHECKING:
    from edgetrack.runtime.verify import Verification


def verify(
    bundle: BundleArgument,
    device: LocalDeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle's hashes and run its graphs on the recorded inputs; needs its backend and numpy only."""
    from edgetrack.bundle import open_bundle
    from edgetrack.cli.console import print_json, stages, stdout
    from edgetrack.resources import cache_folder, usable_cores
    from edgetrack.runtime.backends.base import BackendOptions
    from edgetrack.runtime.session import hint_for
    from edgetrack.runtime.verify import verify_bundle

    with open_bundle(bundle) as opened, stages(f"verifying {opened.manifest.name}") as progress:
        progress("checking the graphs")
        options = BackendOptions(
            device=device,
            cache=cache_folder(),
            threads=threads if threads is not None else usable_cores(),
            precision_hint=hint_for(opened.manifest, None),
        )
        found = verify_bundle(opened, options)
    if as_json:
        print_json(found)
    elif found.verified == "structure":
        _show_structure(found)
    else:
        from rich.table import Table

        table = Table(
            "output", "max error", "99.9 %", "mean", "allowed", "verdict", title=f"{found.bundle} ({found.weights})"
        )
        for check in found.checks:
            allowed = f"{check.atol:g} + {check.rtol:g}|x|"
            errors = (f"{v:.2g}" for v in (check.max_abs, check.q999_abs, check.mean_abs))
            table.add_row(check.name, *errors, allowed, "ok" if check.ok else "FAILED")
        stdout().print(table)
        word = "equal within tolerance" if found.ok else "NOT equal to PyTorch"
        typer.echo(f"{_files(found)} sound; {word}")
    if not found.ok:
        raise typer.Exit(1)


def _show_structure(found: Verification) -> None:
    typer.echo(f"{found.bundle} ({found.weights} weights)")
    for finding in found.findings:
        typer.echo(f"{'ok' if finding.ok else 'FAILED':8}{finding.name}: {finding.detail}")
    word = "structure sound" if found.ok else "structure NOT sound"
    typer.echo(f"{_files(found)} sound; {word}; not run: nothing on this system runs such a bundle")


def _files(found: Verification) -> str:
    from edgetrack.presentation.table import counted

    return counted(found.files, "file")
