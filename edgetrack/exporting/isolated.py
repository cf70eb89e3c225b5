"""Exports to several targets, each in a process of its own, one after another.

Two native runtimes in one process fight over OpenMP and protobuf, and one that crashes takes the others with it. What a
process found comes back as a file; what it says on stderr is passed on line by line.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgetrack.bundle.manifest import Scalar
from edgetrack.capabilities import targets
from edgetrack.decoding import decode_json
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UsageError
from edgetrack.io import ScratchFolder
from edgetrack.processes import NO_DEFAULTS, exit_reason, python_command

COMMAND = python_command("edgetrack", "export")
_LOOK_S = 0.1
_LONGEST_RESULT = 1 << 20
_KINDS = {kind.exit_code: kind for kind in (UsageError, BackendMissingError, DeviceUnavailableError)}
StartProcess = Callable[..., "subprocess.Popen[bytes]"]


class Worst(msgspec.Struct, frozen=True):
    """The comparison nearest to its tolerance: its largest difference where atol + rtol |reference| was allowed."""

    name: str
    max_abs: float
    atol: float = 0.0
    rtol: float = 0.0


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A finished export, as `edgetrack export --json` prints it."""

    schema: int = 1
    bundle: str
    target: str
    weights: str
    overrides: dict[str, Scalar] = {}
    comparisons: int
    reference: str
    not_run: str
    worst: Worst


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A target whose export did not finish; `exit_code` is the process's, negative where a signal ended it."""

    target: str
    exit_code: int
    message: str


class IsolatedExports(msgspec.Struct, frozen=True, kw_only=True):
    """All exports of one request, in the order in which they ran."""

    schema: int = 1
    results: tuple[Exported, ...]
    failures: tuple[Failed, ...]

    @property
    def exit_code(self) -> int:
        """0 where all finished; where none did and all failed alike, their code; else 1."""
        codes = {failure.exit_code for failure in self.failures}
        if not codes:
            return 0
        return max(codes) if not self.results and len(codes) == 1 and min(codes) > 0 else 1


def targets_of(wanted: str, precision: str) -> list[str]:
    """The targets that `all`, or a list with commas, means.

    Args:
        wanted: names with commas between them, or `all`: every target that is exported to at the precision.

    Raises:
        UsageError: no target takes the precision, or one comes twice.
    """
    if wanted != "all":
        names = wanted.split(",")
        if len(set(names)) < len(names) or "" in names:
            raise UsageError(f"--target {wanted}: expected each target once, such as onnx,openvino, or all")
        return names
    names = [row.name for row in targets() if row.exporter is not None and precision in row.precisions]
    if not names:
        raise UsageError(f"--target all: no target is exported to at precision {precision!r}")
    return names


def export_each(
    commands: Mapping[str, Sequence[str]], *, progress: Callable[[str], None], start: StartProcess = subprocess.Popen
) -> IsolatedExports:
    """Run one export after another; one that fails, or is killed, leaves the others alone.

    Args:
        commands: target -> arguments behind `edgetrack export`, with `--json`.
        progress: is told each line that a process writes to stderr.
        start: starts a process as `subprocess.Popen` does.
    """
    results, failures = [], []
    with ScratchFolder() as scratch:
        for target, arguments in commands.items():
            folder = scratch / target
            folder.mkdir()
            found = _export_one(target, arguments, folder, progress, start)
            if isinstance(found, Exported):
                results.append(found)
            else:
                failures.append(found)
    return IsolatedExports(results=tuple(results), failures=tuple(failures))


def export_isolated(
    tracker: str,
    target: str,
    output: Path | None,
    weights: str | None = None,
    overrides: Sequence[str] = (),
    *,
    progress: Callable[[str], None],
    start: StartProcess = subprocess.Popen,
) -> Path:
    """Export a tracker in FP32 in a process of its own; the bundle's path.

    Args:
        output: the bundle's folder; None: the one that `edgetrack export` takes.
        weights: as `--weights`; None: what `edgetrack export` takes.
        overrides: each as `--set`.
        progress, start: see `export_each`.

    Raises:
        EdgetrackError: it failed; of a class with the process's exit code, where there is one.
    """
    options = {"--output": output, "--weights": weights}
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    given += [f"--set={text}" for text in overrides]
    arguments = [tracker, "--target", target, *given, "--json"]
    exports = export_each({target: arguments}, progress=progress, start=start)
    for failure in exports.failures:
        kind = _KINDS.get(failure.exit_code, EdgetrackError)
        raise kind(failure.message)
    return Path(exports.results[0].bundle)


def _export_one(
    target: str, arguments: Sequence[str], folder: Path, progress: Callable[[str], None], start: StartProcess
) -> Exported | Failed:
    result, words = folder / "result.json", folder / "stderr.txt"
    # What a killed process leaves lying in its temporary folder goes with ours.
    environ = {**os.environ, **NO_DEFAULTS, "TMPDIR": str(folder)}
    with result.open("wb") as out, words.open("wb") as err, words.open("rb") as said:
        process = start([*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ)
        try:
            code = _wait(process, said, progress)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if code:
        return Failed(target=target, exit_code=code, message=_last_words(words, code))
    try:
        return decode_json(result.read_bytes()[:_LONGEST_RESULT], Exported, EdgetrackError)
    except EdgetrackError as error:
        return Failed(target=target, exit_code=1, message=f"its result cannot be read: {error}")


def _wait(process: subprocess.Popen[bytes], said: BinaryIO, progress: Callable[[str], None]) -> int:
    """The exit code. A file is read, not a pipe: helpers of a killed process may hold a pipe open."""
    while True:
        try:
            code = process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            code = None
        for line in said.read().decode("utf-8", "replace").splitlines():
            progress(line)
        if code is not None:
            return code


def _last_words(words: Path, code: int) -> str:
    """The command's own message where it has one, else how the process ended."""
    text = words.read_text("utf-8", "replace")
    _, mark, message = text.rpartition("\nedgetrack: ") if "\nedgetrack: " in text else text.partition("edgetrack: ")
    if code > 0 and mark:
        return message.strip()
    return exit_reason(code, text)
