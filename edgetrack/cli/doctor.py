"""`edgetrack doctor`: what this machine has, what is missing and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgetrack.capabilities import Target
    from edgetrack.presentation.table import Table
    from edgetrack.system.machine import MachineRecord

_COLUMNS = {"target": 0, "runs here": 0, "tested with": 2, "about": 1}
"""And what a narrow terminal leaves out."""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False) -> None:
    """Show the machine, the installed packages, and for every target whether it can run here."""
    from edgetrack.capabilities import recorded_packages
    from edgetrack.capabilities import targets as all_targets
    from edgetrack.cli.console import print_json, stages, stdout
    from edgetrack.devices.profiles import fitting
    from edgetrack.presentation.table import show_all
    from edgetrack.system.machine import collect

    with stages("looking") as progress:
        progress("at the machine")
        machine = collect(recorded_packages())
    targets = [t for t in all_targets() if t.exporter is not None]
    if as_json:
        rows = [{"target": t.name, "installed": t.installed, "install": t.install_command} for t in targets]
        print_json({"schema": 1, "machine": machine, "targets": rows, "profiles": fitting(machine)})
        return
    console = stdout()
    show_all(tables(machine, targets, fitting(machine)), console)


def tables(machine: MachineRecord, targets: Sequence[Target], profiles: Sequence[str]) -> Iterator[Table]:
    """The machine, and the targets with what they need."""
    from edgetrack.presentation.table import Column, Table, facts

    yield facts([*_facts(machine), ("profiles", ", ".join(profiles))])
    rows = []
    for target in targets:
        ready = "yes" if target.installed else f"no; type: {target.install_command}"
        if target.installed and target.device_needed:
            ready = f"packages yes; running needs {target.device_needed}"
        rows.append((target.name, ready, target.tested, target.about))
    columns = [Column(title, align="left", drop=drop) for title, drop in _COLUMNS.items()]
    yield Table(columns, rows, [f"{target.name}: {target.setup}" for target in targets if target.setup])


def _facts(machine: MachineRecord) -> list[tuple[str, str]]:
    def known(value: object) -> str:
        return "unknown" if value in (None, "", ()) else str(value)

    gpus = ", ".join(g.name for g in machine.gpus)
    return [
        ("system", f"{machine.os}, {machine.architecture}, Python {machine.python}"),
        ("processor", known(machine.cpu_model)),
        (
            "cores",
            f"{machine.usable_cores} usable of {known(machine.logical_cores)}; governor {known(machine.governor)}",
        ),
        ("CPU flags", " ".join(machine.cpu_flags) or "none that matter"),
        ("memory", f"{known(machine.memory_available_mib)} of {known(machine.memory_total_mib)} MiB free"),
        (
            "device",
            known(machine.device_model) + (" (Jetson: use JetPack's own TensorRT)" if machine.is_jetson else ""),
        ),
        ("GPU", gpus or ("NVIDIA driver present" if machine.nvidia_present else "none found")),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())),
    ]
