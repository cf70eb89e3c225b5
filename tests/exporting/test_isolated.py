"""One process for each target: real ones that finish, fail, print nonsense and are killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UsageError
from edgetrack.exporting.isolated import (
    Exported,
    Failed,
    IsolatedExports,
    Worst,
    export_each,
    export_isolated,
    targets_of,
)

GOOD = Exported(
    bundle="b", target="t", weights="untrained", comparisons=1, reference="PyTorch", not_run="", worst=Worst("w", 0.0)
)
BAD = Failed(target="u", exit_code=3, message="m")


@pytest.fixture
def run() -> Callable[..., tuple[IsolatedExports, list[str]]]:
    """run(a="python code", ...) -> what processes with that code gave, and the lines that were passed on."""

    def call(**scripts: str) -> tuple[IsolatedExports, list[str]]:
        def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", scripts[command[-1]]], **options)

        told: list[str] = []
        return export_each({name: [name] for name in scripts}, progress=told.append, start=start), told

    return call


def test_results_pass_as_files_and_words_as_lines(run: Callable[..., Any]) -> None:
    text = msgspec.json.encode(GOOD).decode()
    together, told = run(a=f"import sys; print({text!r}); print('one\\ntwo', file=sys.stderr)", b=f"print({text!r})")
    assert together == IsolatedExports(results=(GOOD, GOOD), failures=())
    assert told == ["one", "two"]
    assert together.exit_code == 0


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("import sys; sys.stderr.write('exporting\\nedgetrack: no such thing; type x\\n'); sys.exit(3)", 3, "no such"),
        (
            "import sys; sys.stderr.write('Traceback\\nValueError: v\\n'); sys.exit(1)",
            1,
            "exit code 1; .*ValueError: v",
        ),
        ("import os; os.kill(os.getpid(), 9)", -9, "killed by SIGKILL"),
        ("print('not json')", 1, "result cannot be read"),
        ("print('{}')", 1, "result cannot be read"),
        ("", 1, "result cannot be read"),
    ],
)
def test_one_that_fails_leaves_the_others_alone(run: Callable[..., Any], code: str, exit_code: int, words: str) -> None:
    together, _ = run(bad=code, good=f"print({msgspec.json.encode(GOOD).decode()!r})")
    (failure,) = together.failures
    assert together.results == (GOOD,)
    assert (failure.target, failure.exit_code) == ("bad", exit_code)
    assert re.search(words, failure.message)
    assert together.exit_code == 1


def test_scratch_of_a_killed_process_is_cleared(run: Callable[..., Any], tmp_path: Path) -> None:
    note = tmp_path / "where"
    code = (
        "import os, pathlib, tempfile; folder = tempfile.mkdtemp();"
        f"pathlib.Path({str(note)!r}).write_text(folder); os.kill(os.getpid(), 9)"
    )
    run(killed=code)
    assert not Path(note.read_text()).exists()


def test_interruption_ends_the_process_that_runs() -> None:
    started = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        code = "import sys, time; print('up', file=sys.stderr, flush=True); time.sleep(600)"
        started.append(subprocess.Popen([sys.executable, "-c", code], **options))
        return started[-1]

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_each({"a": [], "b": []}, progress=interrupt, start=start)
    assert [process.returncode for process in started] == [-signal.SIGKILL]


DIES_AT_THE_END = """
import os, runpy, sys
from edgetrack.bundle.writer import BundleWriter

BundleWriter.commit = lambda self, manifest: os.kill(os.getpid(), 9)
sys.argv[0] = "edgetrack"
runpy.run_module("edgetrack", run_name="__main__")
"""


def test_killed_export_is_that_targets_failure_and_nothing_is_half_made(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if not processes:  # everything is made, and its final name is not yet given
            command = [sys.executable, "-c", DIES_AT_THE_END, *command[command.index("export") :]]
        processes.append(subprocess.Popen(command, **options))
        return processes[-1]

    commands = {
        name: ["nanotrack_v2", "--target", name, "-o", str(tmp_path / name), "--json"] for name in ("onnx", "torch")
    }
    together = export_each(commands, progress=lambda line: None, start=start)
    assert [(failure.target, failure.exit_code) for failure in together.failures] == [("onnx", -9)]
    assert [found.target for found in together.results] == ["torch"]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["torch"]


@pytest.mark.parametrize(
    ("results", "codes", "expected"),
    [((GOOD,), (), 0), ((GOOD,), (3,), 1), ((), (3, 3), 3), ((), (3, 2), 1), ((), (-9,), 1), ((), (4,), 4)],
)
def test_exit_code_is_the_common_one(results: tuple[Exported, ...], codes: tuple[int, ...], expected: int) -> None:
    failures = tuple(msgspec.structs.replace(BAD, exit_code=code) for code in codes)
    assert IsolatedExports(results=results, failures=failures).exit_code == expected


def one(code: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts processes that run some Python in place of the command."""
    return lambda command, **options: subprocess.Popen([sys.executable, "-c", code], **options)


def test_one_apart_gives_its_path_or_raises_as_it_would_here() -> None:
    good = one(f"print({msgspec.json.encode(GOOD).decode()!r})")
    assert export_isolated("smat", "t", None, progress=print, start=good) == Path("b")
    for code, kind in ((2, UsageError), (3, BackendMissingError), (4, DeviceUnavailableError), (1, EdgetrackError)):
        bad = one(f"import sys; sys.stderr.write('edgetrack: no such thing'); sys.exit({code})")
        with pytest.raises(EdgetrackError, match="no such thing") as caught:
            export_isolated("smat", "t", Path("x"), progress=lambda line: None, start=bad)
        assert type(caught.value) is kind
    with pytest.raises(EdgetrackError, match="killed by SIGKILL"):
        export_isolated("smat", "t", None, progress=print, start=one("import os; os.kill(os.getpid(), 9)"))


def test_all_is_every_target_of_the_precision() -> None:
    assert targets_of("all", "fp32") == ["openvino", "onnx", "tensorrt", "coreml", "torch"]
    assert "torch" not in targets_of("all", "int8")
    assert targets_of("all", "bf16") == ["openvino"]
    assert targets_of("onnx,torch", "int8") == ["onnx", "torch"]
    for wish in ("onnx,onnx", "onnx,", ","):
        with pytest.raises(UsageError, match="expected each target once"):
            targets_of(wish, "fp32")
    with pytest.raises(UsageError, match="at precision 'fp4'"):
        targets_of("all", "fp4")
