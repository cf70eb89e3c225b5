"""Open, verify and close bundles in a process of its own, one after another: `python -m edgetrack.conformance.damage`.

A line for each says what became of it; an engine that a file brings down leaves its line out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgetrack.bundle import open_bundle
from edgetrack.errors import EdgetrackError
from edgetrack.processes import exit_reason, python_command
from edgetrack.resources import RunCommand
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import verify_bundle

_TIMEOUT_S = 300.0
REFUSED, DIFFERS = "refused", "differs"


def outcome(bundle: Path, device: str) -> str:
    """`refused: why`, `differs: why`, `passes`, or the class of an error that is none of edgetrack's."""
    try:
        with open_bundle(bundle) as opened:
            found = verify_bundle(opened, BackendOptions(device=device))
    except EdgetrackError as error:
        return f"{REFUSED}: {type(error).__name__}: {error}"
    except Exception as error:
        return f"fails with {type(error).__name__}: {error}"
    return "passes" if found.ok else f"{DIFFERS}: outputs are not those on record"


def outcomes(bundles: Sequence[Path], device: str, *, run: RunCommand) -> Mapping[str, str]:
    """What becomes of each bundle, by its folder's name; an engine's crash costs the others nothing."""
    found: dict[str, str] = {}
    left = list(bundles)
    while left:
        command = python_command("edgetrack.conformance.damage", device, *map(str, left))
        done = run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
        lines = [line.split("\t", 2)[1:] for line in done.stdout.splitlines() if line.startswith("outcome\t")]
        found.update((name, what) for name, what in lines)
        left = left[len(lines) :]
        if left:
            found[left.pop(0).name] = f"ends the process: {exit_reason(done.returncode, done.stderr)}"
    return found


if __name__ == "__main__":
    for one in map(Path, sys.argv[2:]):
        print("outcome", one.name, " ".join(outcome(one, sys.argv[1]).split()), sep="\t", flush=True)
