"""`train`: from a request to a finished or interrupted training."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from edgetrack import __version__
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.models.base import make_network
from edgetrack.resources import usable_cores
from edgetrack.system.machine import cpu_flags
from edgetrack.system.signals import StopSignals
from edgetrack.training.catalog import Catalog, TrainingClip, hold_out, verified
from edgetrack.training.checkpoint import (
    CSV,
    JSON,
    PICTURE,
    LogSegment,
    find_state,
    forget_state,
    load_state,
    read_log,
    read_position,
)
from edgetrack.training.loop import BEST, WEIGHTS, Callbacks, Trainer
from edgetrack.training.method import TrainingMethod, find_method
from edgetrack.training.optimization import trained
from edgetrack.training.settings import TrainConfig, TrainDevice, TrainRequest, differences, find_device, resolve
from edgetrack.training.sources import read_data
from edgetrack.training.start import check_start, start


@dataclass(frozen=True)
class TrainOutcome:
    """A run that has ended.

    Attributes:
        complete: whether all phases are done.
        signal: number of the signal that ended it, or None.
        step, seconds: of the whole training: this run and those before it.
        ao: the last one of the held-out sequences, or None.
    """

    weights: Path
    complete: bool
    signal: int | None
    step: int
    seconds: float
    ao: float | None


def train(request: TrainRequest, callbacks: Callbacks | None = None) -> TrainOutcome:
    """Train a tracker, or go on with a training.

    Raises:
        UsageError: an option that cannot be met, or a training in `output` that has other settings.
        SourceError: data that cannot be used. CheckpointError: weights or a state that cannot be read.
        DeviceUnavailableError: no such device. NumericalError: the training diverged.
    """
    callbacks = callbacks or Callbacks()
    recipe = find_recipe(request.tracker)
    config = resolve(recipe, request)
    method = find_method(recipe)
    for phase in config.phases:
        method.check_size(phase.search_size)
    check_start(recipe, request.init, request.init_backbone)
    if request.held_out < 0:
        raise UsageError(f"--held-out is {request.held_out}; expected 0 or more")
    device = TrainDevice(find_device(request.device), config.schedule.precision)
    workers = _choose_workers(request, device)
    if device.device.type == "cpu" and device.precision == "bf16" and _lacks_bf16():
        callbacks.on_event(
            "this processor has no BF16 instructions and emulates them, so that a step takes several times as long; "
            "--precision fp32 is faster here"
        )
    _prepare_output(request)
    signals = StopSignals()
    with signals.watching():
        callbacks.on_event("reading and checking the data")
        catalog, held_out = _read(request, method)
        for reason in catalog.skipped:
            callbacks.on_event(f"left out: {reason}")
        names = [clip.name for clip in held_out]
        callbacks.on_event(f"training on {catalog.text()}; held out: {', '.join(names) or 'nothing'}")
        outer = callbacks.stop
        callbacks.stop = lambda: signals.number is not None or outer()
        trainer, begun = _make_trainer(request, method, config, device, callbacks)
        callbacks.on_event(f"{begun}; on {device.device} in {device.precision} with {workers} workers")
        callbacks.on_event(config.text())
        trainer.log.segments.append(
            LogSegment(
                from_step=trainer.position.step,
                data=[path.name for path in request.data],
                catalog=catalog.text(),
                held_out=names,
                skipped=list(catalog.skipped),
                device=str(device.device),
                threads=torch.get_num_threads(),
                workers=workers,
                start=begun,
                versions={
                    "edgetrack": __version__,
                    "torch": str(torch.__version__),
                    "python": platform.python_version(),
                },
            )
        )
        if trainer.progress >= 1:
            callbacks.on_event("nothing is left to do; --restart starts over")
        complete = trainer.run(catalog, held_out, workers)
    checks = trainer.log.validations
    return TrainOutcome(
        weights=request.output / WEIGHTS,
        complete=complete,
        signal=signals.number,
        step=trainer.position.step,
        seconds=trainer.position.seconds,
        ao=checks[-1]["ao"] if checks else None,
    )


def _lacks_bf16() -> bool:
    """Whether the processor says what it has, and has none of the instructions for BF16."""
    flags = cpu_flags()
    return bool(flags) and not {"avx512_bf16", "amx_bf16", "bf16"}.intersection(flags)


def _read(request: TrainRequest, method: TrainingMethod) -> tuple[Catalog, tuple[TrainingClip, ...]]:
    """The data, without the sequences that are held out, and those; what the method needs of them is there."""
    catalog = read_data(request.data)
    method.check_clips(catalog.sequences)
    return hold_out(verified(catalog, ", ".join(map(str, request.data)), method.images), request.held_out)


def _choose_workers(request: TrainRequest, device: TrainDevice) -> int:
    """As requested; else one for every eight cores of a CPU that also trains, all cores but one beside a GPU."""
    if request.threads is not None:
        if request.threads < 1:
            raise UsageError(f"--threads is {request.threads}; expected at least 1")
        torch.set_num_threads(request.threads)
    if request.workers is not None:
        if request.workers < 0:
            raise UsageError(f"--workers is {request.workers}; expected 0 or more")
        return request.workers
    cores = usable_cores()
    return max(1, cores - 1 if device.device.type == "cuda" else cores // 8)


def _prepare_output(request: TrainRequest) -> None:
    folder = request.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgetrackError(f"folder {folder} cannot be made: {error.strerror}; give another --out") from None
    if request.restart:
        forget_state(folder)
        for name in (WEIGHTS, BEST, JSON, CSV, PICTURE):
            (folder / name).unlink(missing_ok=True)


def _make_trainer(
    request: TrainRequest, method: TrainingMethod, config: TrainConfig, device: TrainDevice, callbacks: Callbacks
) -> tuple[Trainer, str]:
    """A trainer that begins where the training stopped, and where its weights are from."""
    recipe, folder = method.recipe, request.output
    network = make_network(recipe.family_name, recipe.configuration)
    state = find_state(folder)
    begun, log = "", None
    if state is None:
        begun = start(network, method, config.seed, request.init, request.init_backbone)
    else:
        _refuse_if_changed(folder, read_position(state)[1], config)
        log = read_log(folder)
    trainer = Trainer(
        network, method, config, device, folder, intervals=request.intervals, callbacks=callbacks, log=log
    )
    if state is not None:
        resume(trainer, state)
        begun = f"resumed at step {trainer.position.step}"
    return trainer, begun


def _refuse_if_changed(folder: Path, before: TrainConfig, config: TrainConfig) -> None:
    if changed := differences(before, config):
        lines = "".join(f"\n  {name}: was {was}, now {now}" for name, (was, now) in changed.items())
        raise UsageError(
            f"the training in {folder} was started with other settings:{lines}\nGive the same ones to go on with it, "
            "--restart to start over, or another --out (with --init to start from its weights)"
        )


def resume(trainer: Trainer, state: Path) -> None:
    """Let a new trainer go on from a saved state.

    Raises:
        CheckpointError: the state cannot be read, or is of another network.
    """
    position, _ = read_position(state)
    parameters = trained(trainer.network, trainer.method)
    load_state(state, trainer.network, parameters, trainer.optimizer, trainer.average, position)
    trainer.position = position
    trainer.log.cut(position.step)
