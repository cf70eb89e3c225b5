"""Two bundles on one data set: each fed its own boxes, and both on the same crops.

The bundles never share a process: two native runtimes in one fight over OpenMP. First A tracks in a pool of its own,
then B; then A, and then B, are placed at A's boxes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetrack.box import Box
from edgetrack.bundle import open_bundle
from edgetrack.bundle.ref import BundleRef
from edgetrack.errors import UsageError
from edgetrack.evaluation import store
from edgetrack.evaluation.anchors import AnchorPlan
from edgetrack.evaluation.book import Book, Progress, collect
from edgetrack.evaluation.comparison_record import Comparison
from edgetrack.evaluation.comparison_summary import summarize_pair
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.difference import check_margin
from edgetrack.evaluation.openloop import Replay, drop_incomplete
from edgetrack.evaluation.options import Options
from edgetrack.evaluation.tasks import OnePass
from edgetrack.evaluation.work import digest_of

SUMMARY = "comparison.json"
MAPS = "open-loop"


@dataclass(frozen=True)
class Request:
    """What to compare; see `edgetrack compare --help`. `margin` is 0..1, `output` None keeps runs where `eval` does."""

    a: BundleRef
    b: BundleRef
    dataset: Dataset
    plan: AnchorPlan
    margin: float
    jobs: int = 1
    threads: int | None = None
    frames: int | None = None
    device: str = "cpu"
    output: Path | None = None
    restart: bool = False

    @property
    def folder(self) -> Path:
        """Where the comparison is kept."""
        names = f"{store.plain_name(self.a.label)}_vs_{store.plain_name(self.b.label)}"
        return self.output or Path("out") / "compare" / names / store.plain_name(self.dataset.name)

    def options(self, side: BundleRef) -> Options:
        """How one of the two is evaluated."""
        return Options(
            bundle=str(side.path),
            dataset=self.dataset,
            jobs=self.jobs,
            threads=self.threads,
            frames=self.frames,
            device=self.device,
            precision_hint=side.hint,
            output=None if self.output is None else self.output / store.plain_name(side.label),
            restart=self.restart,
            anchors=self.plan,
        )


def compare(request: Request, progress: Progress = lambda what, done, total: None) -> Comparison:
    """Compare; runs that are on disk already, also those of `edgetrack eval`, are taken from there.

    Raises:
        UsageError: an option outside its range, or a bundle that is compared with itself.
        BundleError, BackendMissingError, DeviceUnavailableError: a bundle cannot be opened or run here.
    """
    if (request.a.path, request.a.hint) == (request.b.path, request.b.hint):
        raise UsageError(f"{request.a.label} is compared with itself; give two bundles, or one with two hints")
    check_margin(request.margin)
    a, b = (_closed_loop(request, side, progress) for side in (request.a, request.b))
    boxes = {sequence.name: run.boxes for sequence, run in a.of(OnePass)}
    # Maps take up to gigabytes: they stay for the next call after an interruption, and no longer.
    maps = request.folder / MAPS
    if request.restart:
        shutil.rmtree(maps, ignore_errors=True)
    open_a = _open_loop(request, request.a, boxes, maps / "a", progress)
    open_b = _open_loop(request, request.b, boxes, maps / "b", progress)
    found = summarize_pair((request.a, a, open_a), (request.b, b, open_b), request.margin)
    store.save(found, request.folder / SUMMARY)
    shutil.rmtree(maps, ignore_errors=True)
    return found


def _closed_loop(request: Request, side: BundleRef, progress: Progress) -> Book:
    options = request.options(side)
    options.check()
    return _collect(side, options, progress)


def _open_loop(
    request: Request, side: BundleRef, boxes: Mapping[str, Sequence[Box]], folder: Path, progress: Progress
) -> Book:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; give another folder with --output") from error
    drop_incomplete(folder)
    loaded = (digest_of(side.manifest), side.hint, request.device, request.threads)

    def tasks(sequence: str) -> list[Replay]:
        given = tuple(boxes.get(sequence, ()))
        # BundleRef by all that the maps depend on: what an earlier call left is then either the same or another file.
        key = store.key_of(sequence, *loaded, *Replay(given, folder).key)
        return [Replay(given, folder / f"{store.plain_name(sequence)}-{key[:16]}.maps")] if len(given) > 1 else []

    options = replace(request.options(side), output=folder, anchors=None, restart=False)
    return _collect(side, options, progress, tasks)


def _collect(
    side: BundleRef, options: Options, progress: Progress, tasks: Callable[[str], list[Replay]] | None = None
) -> Book:
    def tell(what: str, done: int, total: int) -> None:
        progress(f"{side.label}: {what}", done, total)

    with open_bundle(side.path) as bundle:
        return collect(bundle, options, tell, tasks)
