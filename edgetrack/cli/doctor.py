"""`edgetrack doctor`: what this machine has, what is missing and what to type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgetrack.capabilities import Target
    from edgetrack.presentation.table import Table
    from edgetrack.system.jetpack import JetsonSoftware
    from edgetrack.system.machine import MachineRecord
    from edgetrack.system.opencv import OpenCvBuild

_IMPORT_TIMEOUT_S = 60.0
_DEVICES = "devices found:"
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
        problems, devices = _try_imports(targets)
    if as_json:
        rows = [
            {
                "target": target.name,
                "installed": target.installed,
                "problem": problems.get(target.name),
                "devices": devices.get(target.name, []),
                "install": target.install_command,
            }
            for target in targets
        ]
        found = {"machine": machine, "opencv": opencv, "targets": rows, "profiles": fitting(machine)}
        print_json({"schema": 1, **found, "jetson": jetson, "numpy_problem": None if numpy is None else str(numpy)})
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

    more = [("NumPy", str(numpy))] if numpy is not None else []
    if jetson is not None:
        more += [("Jetson", str(jetson)), *(("do", advice) for advice in jetson.advice)]
    yield facts([*_facts(machine), *more, ("OpenCV", str(opencv)), ("profiles", ", ".join(profiles))])
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


def _try_imports(targets: Sequence[Target]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Why the packages of targets that are installed cannot be imported, and the devices that those find which can.

    Each is tried in a process of its own.

    Native runtimes disturb each other in one process, and one that is broken may end it.
    """
    from concurrent.futures import ThreadPoolExecutor

    there = [target.name for target in targets if target.installed]
    with ThreadPoolExecutor(max(1, len(there))) as pool:
        found = dict(zip(there, pool.map(_try_import, there), strict=True))
    problems = {name: tried for name, tried in found.items() if isinstance(tried, str)}
    return problems, {name: tried for name, tried in found.items() if not isinstance(tried, str)}


def _try_import(name: str) -> str | list[str]:
    """Why a target's package cannot be imported, or the devices that it finds."""
    from edgetrack.processes import exit_reason, python_command

    try:
        done = subprocess.run(
            python_command("edgetrack.cli.doctor", name),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"importing it takes longer than {_IMPORT_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        _, mark, devices = done.stdout.rpartition(_DEVICES)
        return devices.split() if mark else []
    return done.stdout.strip() or exit_reason(done.returncode, done.stderr)


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
        ("CPU flags", " ".join(machine.cpu_flags) or "none that matter"),
        ("memory", f"{known(machine.memory_available_mib)} of {known(machine.memory_total_mib)} MiB free"),
        (
            "device",
            known(machine.device_model) + (" (Jetson: use JetPack's own TensorRT)" if machine.is_jetson else ""),
        ),
        ("GPU", gpus or ("NVIDIA driver present" if machine.nvidia_present else "none found")),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())),
    ]


if __name__ == "__main__":  # the process that imports what one target needs
    from edgetrack.capabilities import backend_of
    from edgetrack.errors import EdgetrackError

    try:
        backend = backend_of(sys.argv[1])
        backend.import_package()
        print(_DEVICES, *backend.devices_here())
    except EdgetrackError as fault:
        sys.exit(print(" ".join(str(fault).split())) or 1)
