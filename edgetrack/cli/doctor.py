"""`edgetrack doctor`: what this machine has, what is missing and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli.defaults import in_use

if TYPE_CHECKING:
    from edgetrack.capabilities import Target
    from edgetrack.presentation.table import Table
    from edgetrack.system.jetpack import JetsonSoftware
    from edgetrack.system.machine import MachineRecord
    from edgetrack.system.opencv import OpenCvBuild

_COLUMNS = {"target": 0, "runs here": 0, "tested with": 2, "about": 1}
"""And what a narrow terminal leaves out."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--target", help="Try this target only. May be repeated. Default: all.")
    ] = None,
) -> None:
    """Show the machine, its OpenCV, the installed packages, and for every target whether it can be imported here."""
    from edgetrack.capabilities import find_target, recorded_packages
    from edgetrack.capabilities import targets as all_targets
    from edgetrack.cli.console import print_json, stages, stdout
    from edgetrack.devices.profiles import fitting
    from edgetrack.presentation.table import show_all
    from edgetrack.runtime.found import find_here
    from edgetrack.system.jetpack import find_jetson
    from edgetrack.system.machine import collect
    from edgetrack.system.opencv import broken_numpy, find_opencv

    with stages("looking") as progress:
        progress("at the machine")
        machine, opencv, numpy = collect(recorded_packages()), find_opencv(), broken_numpy()
        jetson = find_jetson(machine, opencv)
        asked = map(find_target, only) if only else all_targets()
        targets = [row for row in asked if row.exporter is not None]
        progress("whether what each target needs can be imported")
        found_here = find_here(targets)
        problems = {name: one.problem for name, one in found_here.items() if one.problem is not None}
        devices = {name: one.devices for name, one in found_here.items() if one.problem is None}
    if as_json:
        rows = [
            {
                "target": target.name,
                "installed": target.installed,
                "problem": problems.get(target.name),
                "devices": list(devices.get(target.name, ())),
                "install": target.install_command,
            }
            for target in targets
        ]
        found = {"machine": machine, "opencv": opencv, "targets": rows, "profiles": fitting(machine)}
        found["defaults"] = None if (used := in_use()) is None else str(used.path)
        print_json(
            {
                "schema": 1,
                **found,
                "tuned": [] if numpy is not None else tuned_here(machine),
                "jetson": jetson,
                "numpy_problem": None if numpy is None else str(numpy),
            }
        )
        return
    show_all(tables(machine, opencv, targets, problems, fitting(machine), numpy, devices, jetson), stdout())


def tables(
    machine: MachineRecord,
    opencv: OpenCvBuild,
    targets: Sequence[Target],
    problems: Mapping[str, str],
    profiles: Sequence[str],
    numpy: Exception | None = None,
    devices: Mapping[str, Sequence[str]] | None = None,
    jetson: JetsonSoftware | None = None,
) -> Iterator[Table]:
    """The machine, and the targets with what they need; `problems` says of one why it cannot be imported.

    Args:
        numpy: why NumPy cannot be.
        devices: those that a target's package finds here, where it was asked.
        jetson: what a Jetson has.
    """
    from edgetrack.presentation.table import Column, Table, facts

    own = [] if (used := in_use()) is None else [("defaults", str(used))]
    more = [("NumPy", str(numpy))] if numpy is not None else []
    if jetson is not None:
        more += [("Jetson", str(jetson)), *(("do", advice) for advice in jetson.advice)]
    tuned = tuned_here(machine) if numpy is None else []
    more += [("tuned", f"{one['tracker']}: {one['choice']}{one['stale']}") for one in tuned]
    yield facts([*_facts(machine), *more, ("OpenCV", str(opencv)), ("profiles", ", ".join(profiles)), *own])
    rows = []
    for target in targets:
        ready = "yes" if target.installed else f"no; type: {target.install_command}"
        if target.name in problems:
            ready = f"no; {problems[target.name]}"
        elif target.installed and target.device_needed:
            ready = f"packages yes; running needs {target.device_needed}"
        elif target.installed and (found := (devices or {}).get(target.name)):
            ready = f"yes, on {', '.join(found)}"
        rows.append((target.name, ready, target.tested, target.about))
    columns = [Column(title, align="left", drop=drop) for title, drop in _COLUMNS.items()]
    yield Table(columns, rows, [f"{target.name}: {target.setup}" for target in targets if target.setup])


def tuned_here(machine: MachineRecord) -> list[dict[str, str]]:
    """The choices that `edgetrack tune` has kept: tracker, what was chosen, and why it is stale, else nothing."""
    from edgetrack.errors import EdgetrackError
    from edgetrack.runtime.tuned import read_choices

    try:
        choices, here = read_choices(), machine.kind
    except EdgetrackError as error:
        return [{"tracker": "-", "choice": str(error), "stale": ""}]
    problems = [(one, one.problem(here)) for one in choices]
    return [
        {"tracker": one.tracker, "choice": str(one), "stale": "" if why is None else f"; STALE: {why}"}
        for one, why in problems
    ]


def _without_vnni(machine: MachineRecord) -> str:
    """What INT8 lacks on an x86 processor that says what it has."""
    from edgetrack.system.machine import lacks_vnni

    if not lacks_vnni(machine.architecture, machine.cpu_flags):
        return ""
    return "; no VNNI: INT8 gains less here and may need export --weight-bits 7, see docs/precision.md"


def _facts(machine: MachineRecord) -> list[tuple[str, str]]:
    def known(value: object) -> str:
        return "unknown" if value in (None, "", ()) else str(value)

    gpus = ", ".join(g.name for g in machine.gpus)
    return [
        ("system", f"{machine.os}, {machine.architecture}, Python {machine.python}"),
        ("processor", known(machine.cpu_model)),
        (
            "cores",
            f"{machine.usable_cores} usable of {known(machine.logical_cores)}"
            + (f", {machine.fast_cores} fast ones" if machine.fast_cores else "")
            + (f", quota {machine.cpu_quota:g}" if machine.cpu_quota is not None else "")
            + f"; governor {known(machine.governor)}",
        ),
        ("CPU flags", (" ".join(machine.cpu_flags) or "none that matter") + _without_vnni(machine)),
        ("memory", f"{known(machine.memory_available_mib)} of {known(machine.memory_total_mib)} MiB free"),
        (
            "device",
            known(machine.device_model) + (" (Jetson: use JetPack's own TensorRT)" if machine.is_jetson else ""),
        ),
        ("GPU", gpus or ("NVIDIA driver present" if machine.nvidia_present else "none found")),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())),
    ]
