"""What a target's package finds on this machine: devices, and which precision hints it can compute.

It is asked in a process of its own: native runtimes disturb each other in one process, and one that is broken may end
it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from edgetrack.capabilities import Target, backend_of, find_target
from edgetrack.errors import EdgetrackError
from edgetrack.io import encode_json
from edgetrack.processes import exit_reason, python_command

if TYPE_CHECKING:
    from edgetrack.runtime.backends.base import CompiledGraph

_TIMEOUT_S = 60.0
_MARK = "found here: "


class FoundHere(msgspec.Struct, frozen=True, kw_only=True):
    """What a target's package says of this machine.

    Attributes:
        problem: why it cannot be imported; None where it can.
        devices: those that it finds; empty where it was not asked, or does not tell.
        refused: precision hint -> why this machine cannot compute so.
    """

    problem: str | None = None
    devices: tuple[str, ...] = ()
    refused: dict[str, str] = {}


def find_here(targets: Sequence[Target]) -> dict[str, FoundHere]:
    """What the packages of those targets find that are installed, by the target's name."""
    names = [target.name for target in targets if target.installed]
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        return dict(zip(names, pool.map(_ask, names), strict=True))


def _ask(name: str) -> FoundHere:
    try:
        done = subprocess.run(
            python_command("edgetrack.runtime.found", name),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FoundHere(problem=f"importing it takes longer than {_TIMEOUT_S:.0f} s")
    _, mark, answer = done.stdout.rpartition(_MARK)
    if done.returncode or not mark:
        return FoundHere(problem=exit_reason(done.returncode, done.stderr))
    return msgspec.json.decode(answer, type=FoundHere)


def _look(name: str) -> FoundHere:
    backend, refused = backend_of(name), dict[str, str]()
    try:
        backend.import_package()
    except EdgetrackError as fault:
        return FoundHere(problem=" ".join(str(fault).split()))
    for hint in find_target(name).hints:
        if reason := _refusal(backend, hint):
            refused[hint] = reason
    return FoundHere(devices=backend.devices_here(), refused=refused)


def _refusal(backend: type[CompiledGraph], hint: str) -> str | None:
    try:
        backend.require_hint(hint)
    except EdgetrackError as fault:
        return " ".join(str(fault).split())
    return None


if __name__ == "__main__":  # the process that imports what one target needs
    print(_MARK, encode_json(_look(sys.argv[1])).decode(), sep="")
