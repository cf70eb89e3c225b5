"""What the package finds around it: shipped data, a cache folder, small system files, the cores it may use."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

from edgetrack.errors import BackendMissingError, EdgetrackError

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
"""Environment variables by which native libraries choose their number of threads when they are loaded."""
DATA_VARIABLE = "EDGETRACK_DATA"
"""Environment variable: folders with data sets, separated as PATH is."""
_COMMAND_TIMEOUT_S = 10.0
_FAST_SHARE = 0.6

RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]
"""Starts a command as `subprocess.run` does."""


def require_extra(what: str, extra: str, *packages: str) -> None:
    """Check that an extra's packages are installed, without importing them.

    Raises:
        BackendMissingError: one is not; the message says what needs it and what to type.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise BackendMissingError(
                f"{what} needs {package}, which is not installed; type: pip install 'edgetrack[{extra}]'"
            )


def data_folder(name: str) -> Path:
    """The folder `export_recipes`, `bench` or `calibration`: in the installed package, else beside it in a checkout.

    Raises:
        EdgetrackError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise EdgetrackError(f"the installation lacks its {name!r} folder; reinstall edgetrack")


def data_set_folders() -> list[Path]:
    """The folders of `$EDGETRACK_DATA` that are there, in which data sets are looked for by name."""
    given = os.environ.get(DATA_VARIABLE, "").split(os.pathsep)
    return [folder for one in given if one and (folder := Path(one)).is_dir()]


def package_folder(name: str) -> Path | None:
    """The folder of a package's module, found without importing it; else a checkout's `packages/NAME`; else None."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0])
    folder = Path(__file__).resolve().parent.parent / "packages" / name / module
    return folder if folder.is_dir() else None


def cache_folder() -> Path | None:
    """`$EDGETRACK_CACHE`, else `edgetrack` in the user's cache folder; None where it cannot be made or is switched off.

    `EDGETRACK_CACHE=off` switches the cache off. The folder is made readable by its owner only, since a backend loads
    compiled code from it.
    """
    chosen = os.environ.get("EDGETRACK_CACHE", "")
    if chosen == "off":
        return None
    try:
        base = (
            Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetrack"
        )
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return None
    return base if os.access(base, os.W_OK) else None


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: the fast ones of its affinity within the CPU quota of its cgroup.

    A quota is rounded down. Every thread of a graph gets the same share of a layer, so a slow core makes all wait.

    Args:
        root: the folder that holds proc and sys.
    """
    allowed = allowed_cores()
    cores = len(fast_cores(root, allowed) or allowed or ()) or os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def allowed_cores() -> frozenset[int] | None:
    """The cores that the scheduler may put this process on; None where the system does not say."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def fast_cores(root: Path, allowed: Collection[int] | None) -> frozenset[int] | None:
    """Of the allowed cores those that are not much slower than the fastest; None where the kernel calls all alike.

    Arm's kernels state each core's capacity as a share of 1024, which is the fastest core at its highest clock: a
    Cortex-A55 beside a Cortex-A76 (RK3588) has about 400, an A78 beside an X1 about 900.

    Args:
        root: the folder that holds sys.
        allowed: those that this process may run on; None takes all.
    """
    capacities = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*"):
        number, stated = int(folder.name.removeprefix("cpu")), read_text(folder / "cpu_capacity") or ""
        if stated.isdigit() and (allowed is None or number in allowed):
            capacities[number] = int(stated)
    least = _FAST_SHARE * max(capacities.values(), default=0)
    fast = frozenset(number for number, capacity in capacities.items() if capacity >= least)
    return fast if len(fast) < len(capacities) else None


def cpu_quota(root: Path) -> float | None:
    """The tightest quota on the way from this process's cgroup to the root, in cores; None without one."""
    quotas = []
    for folder in cgroup_folders(root, "cpu"):
        v1 = f"{read_text(folder / 'cpu.cfs_quota_us')} {read_text(folder / 'cpu.cfs_period_us')}"
        stated = re.fullmatch(r"(\d+) ([1-9]\d*)", read_text(folder / "cpu.max") or v1)
        if stated:
            quotas.append(int(stated[1]) / int(stated[2]))
    return min(quotas, default=None)


def cgroup_folders(root: Path, controller: str) -> list[Path]:
    """The folders of this process's cgroup for a controller, v1 and v2, from the mount's root down.

    In a container the path of /proc/self/cgroup may be the host's, so folders that are not there are left out.
    """
    mount = root / "sys/fs/cgroup"
    folders = []
    for line in ("0::/", *(read_text(root / "proc/self/cgroup") or "").splitlines()):
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        for base in (mount / names, mount / controller) if names else (mount, mount / "unified"):
            parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
            folders += [base.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def read_text(path: Path) -> str | None:
    """A small file of /proc or /sys, stripped; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\n")
    except OSError:
        return None


def command_output(run: RunCommand, command: Sequence[str]) -> str:
    """What a command prints, stripped; empty where it is missing, fails or takes longer than ten seconds."""
    try:
        done = run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
