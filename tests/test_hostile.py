"""Damaged and hostile inputs by the hundred: each is read all the same or ends in an error of ours, in bounds.

The short runs are the same each time; the long ones (`make test-full`) print what they did. One seed again:
`python -m tests.fuzzing KIND SEED 1 FOLDER`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetrack.bundle import find_bundles, open_bundle
from tests.builders import write_scripted
from tests.fuzzing import ROOT, in_process
from tests.hostile import KINDS

# Inputs of a short and of a long run, and the memory that they may take together, in MB.
RUNS = {
    "manifests": (150, 5000, 100),
    "zips": (50, 3000, 300),
    "arrays": (60, 3000, 300),
    "checkpoints": (40, 2000, 300),
    "networks": (25, 500, 300),
    "onnx_graphs": (100, 3000, 300),
    "irs": (60, 2000, 400),
    "ml_programs": (100, 2000, 300),
    "frames": (100, 4000, 300),
    "boxes": (60, 3000, 300),
    "tomls": (100, 5000, 100),
    "records": (12, 300, 300),
    "talk": (200, 10000, 100),
    "names": (4, 100, 200),
}


def check(kind: str, first: int, count: int, folder: Path) -> None:
    tally = in_process(kind, first, count, folder)
    print(tally.line())
    assert tally.tried == tally.fine + sum(tally.errors.values()) == count
    assert tally.errors or kind == "names", "nothing was refused: the damage does no harm"
    assert tally.memory_mb < RUNS[kind][2]


def test_every_kind_is_run() -> None:
    assert sorted(RUNS) == sorted(KINDS)


@pytest.mark.parametrize("kind", sorted(RUNS))
def test_damaged_inputs_end_in_a_clear_error(kind: str, tmp_path: Path) -> None:
    check(kind, 0, RUNS[kind][0], tmp_path)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", sorted(RUNS))
def test_thousands_of_damaged_inputs_end_so(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        check(kind, 10_000, RUNS[kind][1], tmp_path)


def _commands(folder: Path, bundle: Path) -> dict[str, list[str]]:
    data = folder / "clips"
    for name in "ab":
        (data / name).mkdir(parents=True, exist_ok=True)
    return {
        "track": ["track", str(bundle), "synthetic:drift?frames=4000&size=160x120", "--output", "boxes.csv",
                  "--video", "boxes.mp4", "--overwrite"],
        "pack": ["pack", str(bundle), "--output", "packed.zip", "--overwrite"],
        "bench": ["bench", str(bundle), "--no-reference", "--duration", "4", "--output", "bench.json", "--overwrite"],
    }  # fmt: skip


def _is_unfinished(path: Path) -> bool:
    """Whether the name says that it is no result: hidden, or a video on its way."""
    return path.name.startswith(".") or ".partial" in path.suffixes


def _is_whole(path: Path) -> bool:
    """Whether a result under its final name is one that a whole run wrote."""
    if path.suffix == ".json":
        return isinstance(json.loads(path.read_bytes()), dict)
    if path.suffix == ".csv":
        return path.read_bytes().endswith(b"\n")
    if path.suffix == ".zip":
        with open_bundle(path):
            return True
    import cv2

    return bool(cv2.VideoCapture(str(path)).read()[0])


def killed(kind: str, after_s: float, folder: Path, bundle: Path) -> bool:
    """Kill a command in its middle; whether it was still running. Its children must end, too."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), "EDGETRACK_CACHE": "off"}
    work = folder / "work"
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "edgetrack", *_commands(folder, bundle)[kind]],
                cwd=work, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        stack.callback(process.kill)
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def check_kills(count: int, kinds: tuple[str, ...], tmp_path: Path, wait: Callable[[random.Random], float]) -> None:
    rng = random.Random(7)
    for name in ("work", "tmp"):
        (tmp_path / name).mkdir()
    bundle = write_scripted(tmp_path / "scripted")
    ended = 0
    for index in range(count):
        ended += killed(kinds[index % len(kinds)], wait(rng), tmp_path, bundle)
        for path in (tmp_path / "work").iterdir():
            if not _is_unfinished(path):
                assert _is_whole(path), path.name
    assert find_bundles(bundle)[0].error is None
    for left in (tmp_path / "tmp").glob("edgetrack-*"):
        os.utime(left, (1, 1))
    # A whole run of each puts its result in place and sweeps what the dead ones left.
    for kind in kinds:
        assert not killed(kind, 600, tmp_path, bundle)
    assert [path.name for path in (tmp_path / "work").iterdir() if _is_unfinished(path)] == []
    assert list((tmp_path / "tmp").glob("edgetrack-*")) == []
    print(f"kills: {count} tried, {ended} in the middle, nothing half-written, nothing left")


def test_a_killed_run_leaves_nothing_half_written(tmp_path: Path) -> None:
    check_kills(2, ("track",), tmp_path, lambda rng: rng.uniform(1.0, 2.5))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_killed_runs_leave_nothing_half_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        check_kills(45, ("track", "pack", "bench"), tmp_path, lambda rng: rng.uniform(0.3, 8.0))


def test_the_runner_tells_a_crash_a_hang_and_an_error_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above rest on: each way to fail is a failure that names its seed."""
    programs: dict[str, str] = {
        "crash": "os.kill(os.getpid(), 11)",
        "hang": "time.sleep(60)",
        "loop": "while True: pass",
        "other": "raise KeyError('x')",
        "memory": "bytearray(8 << 30)",
    }
    for kind, action in programs.items():
        program = (
            "import os, sys, time, tests.fuzzing as f, tests.hostile as h\n"
            f"f.PATIENCE_S = 0.5\nh.KINDS[{kind!r}] = lambda folder: lambda rng: {_as_expression(action)}\n"
            f"sys.argv = ['x', {kind!r}, '3', '1', {str(tmp_path)!r}]\nf.main()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode != 0, kind
        assert (tmp_path / "seed").read_text() == "3"


def _as_expression(action: str) -> str:
    return f"exec({action!r}, {{'os': os, 'time': time}})"
