"""Whether `edgetrack check` tells a slower runtime from an unchanged one on this machine.

    python bench/gate_check.py out/smat-openvino-fp32 --repeats 5 --max-time 180 -o out/gate_check.json

Three installations are made of the edgetrack that this Python imports: two are plain copies, in the third
every procedure spins for 15 % of the time that the frame took. Each is a virtual environment that sees its copy before
this one's packages. The gate then runs as on a pull request: the head's `check`, with the base's Python as
`--baseline-python`. Nothing of the package knows of this: its source is changed, as by a real slowdown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import edgetrack
from edgetrack.io import replace_whole

PACKAGE = Path(edgetrack.__file__).parent
DATA = ("bench", "export_recipes", "calibration")
FOUND = "family = find_procedure(self.manifest)\n"
SLOWED = """

import time as _time

_unslowed = find_procedure


def find_procedure(manifest):  # noqa
    class Slowed(_unslowed(manifest)):
        def update(self, frame, timer):
            start = _time.perf_counter_ns()
            found = super().update(frame, timer)
            done = _time.perf_counter_ns()
            while _time.perf_counter_ns() - done < {share} * (done - start):
                pass
            return found

    return Slowed
"""
BUDGET = 'schema = 1\nname = "gate-check"\n[regressions]\ntrack_p50_ratio = {limit}\n'


def slowed(session: str, share: float) -> str:
    """The source of `edgetrack/runtime/session.py`, changed: every frame takes a share of its time more."""
    if session.count(FOUND) != 1:
        raise SystemExit("session.py finds its procedure in another way than this script knows; change it")
    return session + SLOWED.format(share=share)


def environment(folder: Path, slowdown: float) -> Path:
    """An environment with a copy of edgetrack, slowed down by a share of each frame's time; returns its Python."""
    source = folder / "source"
    shutil.copytree(PACKAGE, source / "edgetrack", ignore=shutil.ignore_patterns("__pycache__"))
    for name in DATA:
        (source / name).symlink_to(PACKAGE.parent / name)
    if slowdown:
        session = source / "edgetrack" / "runtime" / "session.py"
        session.write_text(slowed(session.read_text("utf-8"), slowdown), "utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    (packages / "gate_check.pth").write_text(f"{source}\n{sysconfig.get_path('purelib')}\n", "utf-8")
    return python


def check(head: Path, base: Path, bundle: str, budget: Path, options: list[str]) -> dict[str, object]:
    """One run of the gate; how it ended, what it said, and the load of the machine over its last minute."""
    command = [str(head), "-I", "-m", "edgetrack", "check", bundle, "--baseline", bundle, "--budget", str(budget)]
    done = subprocess.run(
        [*command, "--baseline-python", str(base), "--json", *options], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"the gate ended with {done.returncode}: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    (finding,) = report["findings"]
    kept = {key: finding[key] for key in ("verdict", "value", "low", "high", "p_above", "p_below", "more")}
    return {
        "exit": done.returncode,
        **kept,
        "blocks": report["blocks"],
        "seconds": report["seconds"],
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Run both cases in turn, so that both meet the same machine; print and keep every verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slowdown", type=float, default=0.15)
    parser.add_argument("--limit", type=float, default=1.05)
    parser.add_argument("--max-time", default="180")
    parser.add_argument("--threads", default="2")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    bundle = str(Path(given.bundle).resolve())
    options = ["--max-time", given.max_time, "--threads", given.threads]
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="edgetrack-gate-") as name:
        base, same, slow = (
            environment(Path(name) / case, share)
            for case, share in (("base", 0), ("same", 0), ("slow", given.slowdown))
        )
        budget = Path(name) / "budget.toml"
        budget.write_text(BUDGET.format(limit=given.limit), "utf-8")
        for repeat in range(given.repeats):
            for case, head, wanted in (("unchanged", same, "pass"), ("slowed", slow, "fail")):
                said = {"case": case, "repeat": repeat + 1, **check(head, base, bundle, budget, options)}
                found.append({**said, "right": said["verdict"] == wanted})
                print(json.dumps(found[-1]), flush=True)
                if given.output is not None:
                    replace_whole(given.output, json.dumps(found, indent=1).encode() + b"\n")
    wrong = sum(not said["right"] for said in found)
    print(f"{len(found) - wrong} of {len(found)} verdicts are right")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
