"""The state of a training that can be resumed, and its log.

    state/model.safetensors     the network as it is             fp32
    state/optimizer-*           what the optimizer keeps of each tensor that trains: AdamW exp_avg (mean of gradients),
                                exp_avg_sq (of their squares) and step, SGD momentum_buffer; fp32, a file each
    state/average.safetensors   the moving average of weights    fp32
    state/state.json            the position and the configuration
    log.json, log.csv           everything that is logged; the rows alone
    curves.png                  a picture of them

The state is in full precision, so a resumed training computes what an uninterrupted one computes. Nothing is pickled.
Files are written to a sibling folder that then takes the name: a kill at any moment leaves the old state or a new one.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import torch
from torch import Tensor, nn

from edgetrack.checkpoints import check_tensors, load_into, read_checkpoint, save_safetensors
from edgetrack.decoding import decode_json
from edgetrack.errors import CheckpointError
from edgetrack.io import read_bytes, replace_whole
from edgetrack.training.optimization import WeightAverage
from edgetrack.training.settings import TrainConfig

FOLDER = "state"
_NEW, _OLD = ".state.new", ".state.old"
_KEPT = "optimizer-"
_JSON = "state.json"
_LARGEST_JSON = 2**20
JSON, CSV, PICTURE = "log.json", "log.csv", "curves.png"
_T = TypeVar("_T")


class TrainPosition(msgspec.Struct, forbid_unknown_fields=True):
    """Where a training is.

    Attributes:
        step: steps taken, in all phases.
        samples: pairs drawn, so also the number of the next one.
        phase, phase_done: the phase and how much of it is done, in its unit.
        updates: steps that changed the weights; those with an infinite gradient do not.
        kept: what the optimizer keeps of the tensors that have trained, by its own names.
        averaged: updates that the weight average has seen since it was restarted.
        seconds: time spent in training steps and what goes with them.
        best: highest AO on the held-out sequences so far.
    """

    step: int = 0
    samples: int = 0
    phase: int = 0
    phase_done: float = 0.0
    updates: int = 0
    kept: tuple[str, ...] = ()
    averaged: int = 0
    seconds: float = 0.0
    best: float | None = None


class _State(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    position: TrainPosition = msgspec.field(name="place")
    config: TrainConfig = msgspec.field(name="settings")


def save_state(
    folder: Path,
    network: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    position: TrainPosition,
    config: TrainConfig,
) -> None:
    """Write all of it under `folder`/state; `parameters` are those that train, by name.

    Raises:
        OSError: the folder cannot be written to, or is full; the last state stays.
    """
    position.averaged = average.updates
    new = folder / _NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    parts = {"model": network.state_dict(), "average": average.tensors}
    kept: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        # What has not trained yet has nothing kept.
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                kept.setdefault(f"{_KEPT}{key}", {})[name] = cast(Tensor, value)
    position.kept = tuple(name.removeprefix(_KEPT) for name in kept)
    parts |= kept
    for file, tensors in parts.items():
        save_safetensors(tensors, new / f"{file}.safetensors", {"tracker": config.tracker, "step": str(position.step)})
    text = msgspec.json.format(msgspec.json.encode(_State(1, position, config)), indent=2)
    with (new / _JSON).open("wb") as file_:
        file_.write(text)
        file_.flush()
        os.fsync(file_.fileno())
    current, old = folder / FOLDER, folder / _OLD
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    (folder / _NEW).rename(current)
    shutil.rmtree(old, ignore_errors=True)


def find_state(folder: Path) -> Path | None:
    """The folder of the saved state; also one that a kill in the middle of saving left under its old name."""
    for name in (FOLDER, _OLD):
        if (folder / name / _JSON).is_file():
            return folder / name
    return None


def forget_state(folder: Path) -> None:
    """Remove every saved state of a training."""
    for name in (FOLDER, _OLD, _NEW):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_position(state: Path) -> tuple[TrainPosition, TrainConfig]:
    """Where the training is, and with which configuration it was started.

    Raises:
        CheckpointError: not a state that this version wrote.
    """
    path = state / _JSON
    advice = "Start over with --restart, or copy the folder again"
    found = _read_json(path, _State, "state", advice)
    return found.position, found.config


def _read_json(path: Path, type_: type[_T], what: str, advice: str) -> _T:
    try:
        data = read_bytes(path, _LARGEST_JSON)
    except OSError as error:
        raise CheckpointError(f"{path} is not a training {what}: {error}. {advice}") from error
    return decode_json(
        data, type_, lambda words: CheckpointError(f"{path} is not a training {what}: {words}. {advice}")
    )


def load_state(
    state: Path,
    network: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    position: TrainPosition,
) -> None:
    """Put a saved state back; `parameters` are those that train, by name.

    Raises:
        CheckpointError: a file is missing, damaged or of another step or network.
    """
    load_into(network, read_checkpoint(state / "model.safetensors"), source="model.safetensors")
    saved = read_checkpoint(state / "average.safetensors").tensors
    check_tensors({n: tuple(t.shape) for n, t in average.tensors.items()}, saved, source="average.safetensors")
    for name, tensor in average.tensors.items():
        tensor.copy_(saved[name])
    average.updates = position.averaged
    for key in position.kept:
        path = state / f"{_KEPT}{key}.safetensors"
        tensors = read_checkpoint(path).tensors
        shapes = {n: () if key == "step" else tuple(parameters[n].shape) for n in tensors if n in parameters}
        check_tensors(shapes, tensors, source=path.name)
        for name, tensor in tensors.items():
            # AdamW counts its steps in a float32 scalar on the CPU; the rest lies where the parameter does.
            like = parameters[name] if key != "step" else torch.zeros(())
            optimizer.state[parameters[name]][key] = torch.zeros_like(like, requires_grad=False).copy_(tensor)


class LogRow(msgspec.Struct, frozen=True):
    """Means over the steps since the last row; `ao` is that of the held-out sequences, where it was taken.

    `terms` are the loss's by name, `hit` the share of positive samples whose highest score lies within one cell of the
    target, `seconds` the time spent so far.
    """

    step: int
    search_size: int
    seconds: float
    lr: float | None = None
    loss: float | None = None
    terms: dict[str, float] = {}
    iou: float | None = None
    hit: float | None = None
    pairs_per_s: float | None = None
    ao: float | None = None


class LogSegment(msgspec.Struct, frozen=True):
    """One run of the command: from which step, on which data and machine."""

    from_step: int
    data: list[str]
    catalog: str
    held_out: list[str] = msgspec.field(name="held_aside")
    skipped: list[str]
    device: str
    threads: int
    workers: int
    start: str
    versions: dict[str, str]


class TrainLog(msgspec.Struct):
    """The whole log."""

    config: TrainConfig = msgspec.field(name="settings")
    schema: int = 1
    segments: list[LogSegment] = msgspec.field(default_factory=list, name="pieces")
    rows: list[LogRow] = []
    validations: list[dict[str, Any]] = []

    @property
    def terms(self) -> list[str]:
        """Names of the loss's terms."""
        return list(dict.fromkeys(name for row in self.rows for name in row.terms))

    def cut(self, step: int) -> None:
        """Forget what was written after `step`, as a resumed training will do it again."""
        self.segments = [segment for segment in self.segments if segment.from_step <= step]
        self.rows = [row for row in self.rows if row.step <= step]
        self.validations = [entry for entry in self.validations if entry["step"] <= step]

    def write(self, folder: Path) -> None:
        """Both files, each replaced as a whole."""
        replace_whole(folder / JSON, msgspec.json.format(msgspec.json.encode(self), indent=1))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        terms = self.terms
        plain = [name for name in LogRow.__struct_fields__ if name != "terms"]
        table.writerow([*plain, *terms])
        for row in self.rows:
            values = [*(getattr(row, name) for name in plain), *(row.terms.get(name) for name in terms)]
            table.writerow([_cell(value) for value in values])
        replace_whole(folder / CSV, text.getvalue().encode())


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def read_log(folder: Path) -> TrainLog | None:
    """The log in a folder; None where there is none.

    Raises:
        CheckpointError: it is not one that this version wrote.
    """
    path = folder / JSON
    return _read_json(path, TrainLog, "log", "Move it away, or use --restart") if path.is_file() else None


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(log: TrainLog, path: Path) -> None:
    """Loss and its terms, IoU and hits, AO of the held-out sequences over steps, as a PNG of 1200x450 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, log.rows, ("loss", *log.terms))
    left.set_yscale("log")
    _lines(right, log.rows, ("iou", "hit", "ao"))
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.suptitle(f"training of {log.config.tracker}")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    replace_whole(path, drawn.getbuffer())


def _lines(axes: Any, rows: list[LogRow], names: tuple[str, ...]) -> None:
    for name in names:
        values = ((row.step, row.terms[name] if name in row.terms else getattr(row, name, None)) for row in rows)
        points = [(step, value) for step, value in values if value is not None]
        axes.plot([p[0] for p in points], [p[1] for p in points], label=name, marker="o" if name == "ao" else None)
