"""`train`: from a request to a finished or interrupted training."""

from __future__ import annotations

import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from edgetrack import __version__
from edgetrack.errors import UsageError
from edgetrack.export.recipe import UNTRAINED, Recipe, find_recipe
from edgetrack.export.weights import fill
from edgetrack.models.base import find_model
from edgetrack.resources import usable_cores
from edgetrack.training.catalog import Catalog, hold_aside, verified
from edgetrack.training.device import Machine, find_device
from edgetrack.training.folders import read_data
from edgetrack.training.journal import CSV, JSON, PICTURE, Piece, read_journal
from edgetrack.training.loop import BEST, WEIGHTS, Hooks, Rhythm, Trainer
from edgetrack.training.schedule import initialise
from edgetrack.training.settings import Settings, Wishes, differences, resolve
from edgetrack.training.state import find_state, forget_state, load_state, read_place

HELD_ASIDE = 4


@dataclass(frozen=True)
class TrainRequest:
    """What to train.

    Attributes:
        tracker: a recipe's name, or the path of a recipe file.
        data: shards, folders of shards, sequence folders or folders of those.
        output: folder of the state, the weights and the log; a training in it is resumed.
        wishes: in place of the recipe's settings.
        init: checkpoint to start from (official format or safetensors), or `default`; None: from scratch.
        held_aside: number of sequences that are not trained on but tracked from time to time.
        device: `cpu`, `cuda:0`; None: a GPU where there is one.
        workers, threads: processes that make pairs, threads that compute; None: what the machine has.
        restart: forget the training that is in `output`.
    """

    tracker: str
    data: tuple[Path, ...]
    output: Path
    wishes: Wishes = field(default_factory=Wishes)
    init: str | None = None
    held_aside: int = HELD_ASIDE
    device: str | None = None
    workers: int | None = None
    threads: int | None = None
    restart: bool = False
    rhythm: Rhythm = field(default_factory=Rhythm)


@dataclass(frozen=True)
class Outcome:
    """A run that has ended.

    Attributes:
        complete: whether all phases are done.
        signal: number of the signal that ended it, or None.
        step, seconds: in all, of this run and those before it.
        ao: the last one of the held-aside sequences, or None.
    """

    weights: Path
    complete: bool
    signal: int | None
    step: int
    seconds: float
    ao: float | None


class StopSignals:
    """Remembers the first Ctrl-C or SIGTERM; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals over; only the main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}

        def remember(number: int, _frame: FrameType | None) -> None:
            self.number = number
            for each in numbers:
                signal.signal(each, before[each])

        for number in numbers:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])


def train(request: TrainRequest, hooks: Hooks | None = None) -> Outcome:
    """Train a tracker, or go on with a training.

    Raises:
        UsageError: a wish that cannot be met, or a training in `output` that has other settings.
        SourceError: data that cannot be used. CheckpointError: weights or a state that cannot be read.
        DeviceUnavailableError: no such device. NumericalError: the training diverged.
    """
    hooks = hooks or Hooks()
    recipe = find_recipe(request.tracker)
    settings = resolve(recipe, request.wishes)
    if request.init == UNTRAINED:
        raise UsageError("--init untrained is no start for a training; leave --init out to train from scratch")
    recipe.choose_weights(request.init)
    machine = Machine(find_device(request.device), settings.precision)
    workers = _workers(request)
    _prepare_output(request)
    signals = StopSignals()
    with signals.watching():
        hooks.on_event("reading and checking the data")
        found = verified(read_data(request.data), ", ".join(map(str, request.data)))
        for reason in found.skipped:
            hooks.on_event(f"left out: {reason}")
        catalog, aside = hold_aside(found, request.held_aside)
        hooks.on_event(f"training on {catalog.text()}; held aside: {', '.join(c.name for c in aside) or 'nothing'}")
        outer = hooks.stop
        hooks.stop = lambda: signals.number is not None or outer()
        trainer, start = _trainer(request, recipe, settings, machine, hooks)
        hooks.on_event(f"{start}; on {machine.device} in {machine.precision} with {workers} workers")
        piece = _piece(request, catalog, found, [c.name for c in aside], machine, workers, start, trainer.place.step)
        trainer.journal.pieces.append(piece)
        if trainer.progress >= 1:
            hooks.on_event("nothing is left to do; --restart starts over")
        complete = trainer.run(catalog, aside, workers)
    checks = trainer.journal.validations
    return Outcome(
        weights=request.output / WEIGHTS,
        complete=complete,
        signal=signals.number,
        step=trainer.place.step,
        seconds=trainer.place.seconds,
        ao=checks[-1]["ao"] if checks else None,
    )


def _workers(request: TrainRequest) -> int:
    """As asked for; else one for every eight cores of a CPU that computes as well, all but one beside a GPU."""
    if request.threads is not None:
        if request.threads < 1:
            raise UsageError(f"--threads is {request.threads}; expected at least 1")
        torch.set_num_threads(request.threads)
    if request.workers is not None:
        if request.workers < 0:
            raise UsageError(f"--workers is {request.workers}; expected 0 or more")
        return request.workers
    cores = usable_cores()
    return max(1, cores - 1) if find_device(request.device).type == "cuda" else max(1, cores // 8)


def _prepare_output(request: TrainRequest) -> None:
    folder = request.output
    if request.held_aside < 0:
        raise UsageError(f"--hold-aside is {request.held_aside}; expected 0 or more")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"folder {folder} cannot be made: {error.strerror}; give another --out") from None
    if request.restart:
        forget_state(folder)
        for name in (WEIGHTS, BEST, JSON, CSV, PICTURE):
            (folder / name).unlink(missing_ok=True)


def _trainer(
    request: TrainRequest, recipe: Recipe, settings: Settings, machine: Machine, hooks: Hooks
) -> tuple[Trainer, str]:
    """A trainer at the place where the training is, and how it got its weights."""
    network = find_model(recipe.family_name).Network()
    state = find_state(request.output)
    if state is None:
        start = _fill(network, recipe, request.init, settings)
        return Trainer(network, settings, machine, request.output, rhythm=request.rhythm, hooks=hooks), start
    place, before = read_place(state)
    _compare(before, settings, request.output)
    trainer = Trainer(
        network,
        settings,
        machine,
        request.output,
        rhythm=request.rhythm,
        hooks=hooks,
        journal=read_journal(request.output),
    )
    load_state(state, trainer.network, trainer.optimizer, trainer.average, place)
    trainer.place = place
    trainer.journal.cut(place.step)
    return trainer, f"resumed at step {place.step}"


def _compare(before: Settings, now: Settings, folder: Path) -> None:
    changed = differences(before, now)
    if changed:
        lines = "".join(f"\n  {name}: was {was}, now {is_}" for name, (was, is_) in changed.items())
        raise UsageError(
            f"the training in {folder} was started with other settings:{lines}\nGive the same ones to go on with it, "
            "--restart to start over, or another --out (with --init to start from its weights)"
        )


def _fill(network: nn.Module, recipe: Recipe, init: str | None, settings: Settings) -> str:
    if init is None:
        initialise(network, settings.initial, settings.seed)
        return f"started from scratch with seed {settings.seed}"
    info = fill(network, recipe, init)
    return f"started from {info.file}, sha256 {info.sha256}"


def _piece(
    request: TrainRequest,
    catalog: Catalog,
    found: Catalog,
    aside: list[str],
    machine: Machine,
    workers: int,
    start: str,
    step: int,
) -> Piece:
    return Piece(
        from_step=step,
        data=[path.name for path in request.data],
        catalog=catalog.text(),
        held_aside=aside,
        skipped=list(found.skipped),
        device=str(machine.device),
        threads=torch.get_num_threads(),
        workers=workers,
        start=start,
        versions={"edgetrack": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    )
