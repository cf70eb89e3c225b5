"""Result files that the official evaluation servers and toolkits take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgetrack.errors import EdgetrackError, UnknownNameError
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.execution.ledger import plain_name
from edgetrack.evaluation.protocols.one_pass import OnePassRun
from edgetrack.io import replace_whole

Runs = Iterable[tuple[Clip, OnePassRun]]


def write_results(kind: str, folder: Path, tracker: str, runs: Runs) -> Path:
    """Write one file (GOT-10k: two) per sequence, replacing those of the same name.

    Args:
        kind: `got10k`: <tracker>/<sequence>/<sequence>_001.txt with x,y,w,h per frame and <sequence>_time.txt with
            seconds per frame, as the toolkit's `ExperimentGOT10k` records them; zip the tracker's folder.
            `trackingnet`: <sequence>.txt with x,y,w,h per frame; zip the files.
        folder: where to write.
        tracker: names GOT-10k's folder.
        runs: every sequence with its run.

    Returns:
        The folder to zip.

    Raises:
        UnknownNameError: no such kind.
        EdgetrackError: the files cannot be written.
    """
    check_kind(kind)
    try:
        return _WRITERS[kind](folder, tracker, runs)
    except OSError as error:
        raise EdgetrackError(f"results cannot be written to {folder}: {error.strerror or error}") from error


def check_kind(kind: str) -> None:
    """Check that there is such a kind of result files.

    Raises:
        UnknownNameError: there is not.
    """
    if kind not in _WRITERS:
        raise UnknownNameError.of("kind of result files", kind, _WRITERS)


def _got10k(folder: Path, tracker: str, runs: Runs) -> Path:
    base = folder / plain_name(tracker)
    for clip, run in runs:
        here = base / clip.name
        here.mkdir(parents=True, exist_ok=True)
        replace_whole(here / f"{clip.name}_001.txt", _rows(run))
        replace_whole(here / f"{clip.name}_time.txt", "".join(f"{ms / 1000:.8f}\n" for ms in run.ms).encode())
    return base


def _trackingnet(folder: Path, tracker: str, runs: Runs) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for clip, run in runs:
        replace_whole(folder / f"{clip.name}.txt", _rows(run))
    return folder


def _rows(run: OnePassRun) -> bytes:
    return "".join(",".join(f"{value:.3f}" for value in box) + "\n" for box in run.boxes).encode()


_WRITERS: dict[str, Callable[[Path, str, Runs], Path]] = {"got10k": _got10k, "trackingnet": _trackingnet}
