"""`edgetrack verify`: is this bundle what it says, and does it still compute what PyTorch computed?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgetrack.cli.device import DEFAULT, DeviceCommand, chosen_device
from edgetrack.cli.options import BundleArgument, DeviceOption, HereOption, HostOption, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.presentation.table import Table
    from edgetrack.runtime.verify import Verification


def verify(
    context: typer.Context,
    bundle: BundleArgument,
    device: DeviceOption = None,
    host: HostOption = None,
    here: HereOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle's hashes and run its graphs on the recorded inputs; needs its backend and numpy only."""
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.presentation.table import counted, show_all

    choice = chosen_device(device, host, here)
    there = choice.host is not None
    found = _verified_there(context, bundle, choice) if there else _verified_here(bundle, choice, threads)
    if as_json:
        print_json(found)
    else:
        console = stdout()
        console.print(f"{found.bundle} ({found.weights} weights)")
        show_all(tables(found), console)
        if device != "cpu":
            for graph, place in found.placement.items():
                console.print(f"{graph} ran on {place}")
        if found.note:
            console.print(found.note)
        console.print(f"{counted(found.files, 'file')} sound; {_verdict(found)}")
    if not found.ok:
        raise typer.Exit(1)


def _verified_here(bundle: str, choice: DeviceChoice, threads: int | None) -> Verification:
    from edgetrack.bundle import open_bundle
    from edgetrack.bundle.reader import BundleRef
    from edgetrack.cli.console import stages
    from edgetrack.resources import cache_folder, usable_cores
    from edgetrack.runtime.backends.base import BackendOptions
    from edgetrack.runtime.session import hint_for
    from edgetrack.runtime.verify import verify_bundle

    with open_bundle(bundle) as opened, stages(f"verifying {opened.manifest.name}") as progress:
        progress("checking the graphs")
        options = BackendOptions(
            device=choice.placed(BundleRef(opened.source, opened.manifest)).device or DEFAULT,
            cache=cache_folder(),
            threads=threads if threads is not None else usable_cores(),
            precision_hint=hint_for(opened.manifest, None),
        )
        return verify_bundle(opened, options)


def _verified_there(context: typer.Context, bundle: str, choice: DeviceChoice) -> Verification:
    from edgetrack.capabilities import open_ref
    from edgetrack.runtime.verify import Verification

    with DeviceCommand(context, choice, "verify") as there:
        there.say("bundle", there.bundle(open_ref(bundle)))
        return there.run("--json").record(Verification)


def tables(found: Verification) -> Iterator[Table]:
    """The errors of every output; of a bundle that cannot run here, before it what its structure says."""
    from edgetrack.presentation.table import Column, Table

    if found.verified != "outputs":
        rows = [("ok" if one.ok else "FAILED", one.name, one.detail) for one in found.findings]
        yield Table([Column(title, align="left") for title in ("verdict", "part", "found")], rows)
    if found.verified == "structure":
        return
    columns = (
        Column("output", align="left"),
        Column("max error"),
        Column("99.9 %", drop=1),
        Column("mean", drop=2),
        Column("allowed"),
        Column("verdict", align="left"),
    )
    yield Table(columns, [
        (
            one.name,
            *(f"{value:.2g}" for value in (one.max_abs, one.q999_abs, one.mean_abs)),
            f"{one.atol:g} + {one.rtol:g}|x|",
            "ok" if one.ok else "FAILED",
        )
        for one in found.checks
    ])  # fmt: skip


def _verdict(found: Verification) -> str:
    if found.verified == "structure":
        word = "structure sound" if found.ok else "structure NOT sound"
        return f"{word}; not run: nothing on this system runs such a bundle"
    if found.verified == "interpreted":
        word = "equal within tolerance" if found.ok else "NOT equal to what was recorded"
        return f"structure sound; {word} where interpreted; not run: this system does not run its target"
    return "equal within tolerance" if found.ok else "NOT equal to PyTorch"
