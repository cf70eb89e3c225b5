"""What decides the numbers of a training: the request, and what recipe and request come to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import torch

from edgetrack.errors import DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.exporting.recipe import PhaseShare, Recipe, Schedule
from edgetrack.io import parse_duration
from edgetrack.runtime.crop import CropRule

AutocastPrecision = Literal["bf16", "fp32"]
DEFAULT_MIX = {"clip": 0.60, "still": 0.25, "region": 0.15, "paste": 0.0, "negative": 0.05}
KINDS = tuple(DEFAULT_MIX)
DEFAULT_DURATION_S = 74 * 60.0


@dataclass(frozen=True)
class Intervals:
    """How often things happen: rows of the log in steps, the rest in seconds; `stop_after` ends this run."""

    log_steps: int = 20
    save_s: float = 120.0
    validate_s: float = 600.0
    stop_after_s: float = math.inf


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a user asks for: the one carrier of the options of a training. None leaves a choice to the recipe.

    Attributes:
        tracker: a recipe's name, or the path of a recipe file.
        data: shards, folders of shards, sequence folders or folders of those.
        output: folder of the state, the weights and the log; a training in it is resumed.
        init: checkpoint to start from (official format or safetensors), or `default`; None: from scratch.
        init_backbone: files of a pretrained backbone to start from, with commas between them.
        held_out: number of sequences that are not trained on, but tracked at intervals.
        device: `cpu`, `cuda:0`; None: a GPU where there is one.
        workers, threads: processes that make samples, threads that compute; None: chosen for this machine.
        restart: delete the training that is in `output`.
        phases: texts such as `128:26m`, `256:0.8h` or `256:2000` (steps).
        duration_s, steps: length of the whole training, shared by the recipe's phases.
        mix: texts such as `clip=0.6`; kinds that are not named keep their weight.
        schedule: one of the recipe's; the rest takes the place of its numbers.
    """

    tracker: str
    data: tuple[Path, ...] = ()
    output: Path = Path()
    init: str | None = None
    init_backbone: str | None = None
    held_out: int = 4
    device: str | None = None
    workers: int | None = None
    threads: int | None = None
    restart: bool = False
    intervals: Intervals = field(default_factory=Intervals)
    seed: int = 0
    phases: tuple[str, ...] = ()
    duration_s: float | None = None
    steps: int | None = None
    batch: int | None = None
    schedule: str | None = None
    lr: float | None = None
    backbone_rate: float | None = None
    average: int | None = None
    gap: int | None = None
    precision: AutocastPrecision | None = None
    mix: tuple[str, ...] = ()


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the training at one size of the search crop, `amount` steps or seconds long."""

    search_size: int
    batch: int
    amount: float
    unit: Literal["steps", "seconds"]


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides the numbers of a training, except the data, the machine and the start weights.

    Attributes:
        template, search: published crop rules; a smaller search crop has a smaller factor, so the same object scale.
        schedule: the recipe's, with what the request puts in place of its numbers.
        mix: weight of each kind of sample (see `edgetrack.training.pairs`).
        loss, backbone, undecayed, initial: see `edgetrack.exporting.recipe.Training`.
    """

    tracker: str
    seed: int
    phases: tuple[Phase, ...]
    schedule: Schedule
    mix: dict[str, float]
    template: CropRule
    search: CropRule
    centre_jitter: float
    scale_jitter: float
    loss: dict[str, float]
    backbone: str
    undecayed: tuple[str, ...]
    initial: dict[str, float]

    def search_rule(self, size: int) -> CropRule:
        """The crop rule at another size of the search crop, an object keeping its size in pixels."""
        return CropRule(self.search.factor * size / self.search.size, size)

    def jitter_at(self, size: int) -> float:
        """The centre jitter at that size: the target's centre stays inside the crop."""
        return self.centre_jitter * size / self.search.size

    def text(self) -> str:
        """The schedule with each value named, for people, on one line."""
        plan, rate = self.schedule, f"rate {self.schedule.lr:g}"
        if plan.backbone_rate != 1:
            rate += f" (backbone x {plan.backbone_rate:g})"
        course = (
            f"cosine to x {plan.floor:g}" if plan.course == "cosine" else f"x {plan.drop:g} from {plan.drop_at:.0%}"
        )
        momentum = f" with momentum {plan.momentum:g}" if plan.optimizer == "sgd" else ""
        frozen = f", backbone frozen up to {plan.backbone_from:.0%}" if plan.backbone_from else ""
        phases = ", ".join(f"{p.amount:g} {p.unit} at {p.search_size} pixels, batch {p.batch}" for p in self.phases)
        mix = ", ".join(f"{kind} {weight:g}" for kind, weight in self.mix.items() if weight)
        loss = ", ".join(f"{weight:g} x {term}" for term, weight in self.loss.items())
        return (
            f"{plan.optimizer}{momentum}, {rate}, warm-up {plan.warmup} steps, {course}{frozen}, decay "
            f"{plan.weight_decay:g}, gradient clip {plan.clip:g}, {plan.precision}; {phases}; average over "
            f"{plan.average} steps; loss {loss}; samples {mix}, up to {plan.gap} frames apart"
        )


def resolve(recipe: Recipe, request: TrainRequest) -> TrainConfig:
    """Recipe and request as a configuration.

    Raises:
        UsageError: the tracker cannot be trained, or an option has no meaning.
    """
    training = recipe.training
    if training is None:
        raise UsageError(f"recipe {recipe.name!r} has no [training] section, so it cannot be trained")
    _check(request)
    name = next(iter(training.schedules)) if request.schedule is None else request.schedule
    if name not in training.schedules:
        raise UnknownNameError.of("schedule", name, training.schedules)
    chosen = {key: getattr(request, key) for key in ("lr", "backbone_rate", "average", "gap", "precision")}
    given = {key: value for key, value in chosen.items() if value is not None}
    schedule = msgspec.structs.replace(training.schedules[name], **given)
    number = {key: float(value) for key, value in recipe.procedure.items() if not isinstance(value, str)}
    search = CropRule(number["search_factor"], int(number["search_size"]))
    return TrainConfig(
        tracker=recipe.name,
        seed=request.seed,
        phases=_phases(schedule, schedule.phases or training.phases, request),
        schedule=schedule,
        mix=parse_mix(request.mix, schedule.mix),
        # A tracker with one crop rule cuts its memories with it.
        template=CropRule(number.get("template_factor", search.factor), int(number.get("template_size", search.size))),
        search=search,
        centre_jitter=training.centre_jitter,
        scale_jitter=training.scale_jitter,
        loss=training.loss,
        backbone=training.backbone,
        undecayed=training.undecayed,
        initial=training.initial,
    )


def _check(request: TrainRequest) -> None:
    if sum((bool(request.phases), request.duration_s is not None, request.steps is not None)) > 1:
        raise UsageError("--phase, --minutes and --steps exclude each other; --phase gives each phase its own length")
    positive: dict[str, float | None] = {
        "--minutes": request.duration_s,
        "--steps": request.steps,
        "--batch": request.batch,
        "--lr": request.lr,
        "--gap": request.gap,
        "--memory": request.average,
        "--backbone-rate": request.backbone_rate,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} is {value}; expected a number above 0")
    if request.seed < 0:
        raise UsageError(f"--seed is {request.seed}; expected a whole number of at least 0")


def _phases(schedule: Schedule, shares: Sequence[PhaseShare], request: TrainRequest) -> tuple[Phase, ...]:
    if request.phases:
        batches = {share.search_size: share.batch for share in shares}
        default = shares[-1].batch
        phases = []
        for text in request.phases:
            size, amount, unit = parse_phase(text)
            phases.append(Phase(size, request.batch or batches.get(size, default), amount, unit))
        if len({phase.unit for phase in phases}) > 1:
            raise UsageError("some phases are given in time and some in steps; give all of them in one of the two")
        return tuple(phases)
    total = sum(share.share for share in shares)
    phases = []
    for share in shares:
        batch, part = request.batch or share.batch, share.share / total
        steps = request.steps
        if (
            steps is None
            and request.duration_s is None
            and schedule.epochs is not None
            and schedule.samples is not None
        ):
            steps = math.ceil(schedule.epochs * schedule.samples / batch)
        if steps is not None:
            phases.append(Phase(share.search_size, batch, max(1, round(steps * part)), "steps"))
        else:
            seconds = (request.duration_s or DEFAULT_DURATION_S) * part
            phases.append(Phase(share.search_size, batch, seconds, "seconds"))
    return tuple(phases)


def parse_phase(text: str) -> tuple[int, float, Literal["steps", "seconds"]]:
    """`SIZE:LENGTH` as pixels, amount and unit; a length is a number of steps, or a time with its unit, as 26m.

    Raises:
        UsageError: something else, or no length.
    """
    size_text, _, length = (part.strip() for part in text.partition(":"))
    size = int(size_text) if size_text.isascii() and size_text.isdigit() and len(size_text) < 5 else 0
    if size < 1:
        raise UsageError(
            f"phase {text!r} is not SIZE:LENGTH with the pixels of a search crop; expected such as 128:26m, 256:1.5h "
            "or 256:2000 (steps)"
        )
    if length[-1:].isdigit():
        if not (length.isascii() and length.isdigit() and 0 < int(length) < 10**9):
            raise UsageError(f"phase {text!r} is {length!r} steps long; expected a whole number above 0, or a time")
        return size, float(length), "steps"
    return size, parse_duration(length, f"the length of phase {text!r}"), "seconds"


def parse_mix(texts: Sequence[str], usual: Mapping[str, float] = {}) -> dict[str, float]:
    """The default mix with the schedule's `usual` weights, and those that the texts `KIND=WEIGHT` give.

    Raises:
        UsageError: an unknown kind, a weight that is no number of at least 0, or none above 0.
    """
    if unknown := [kind for kind in usual if kind not in KINDS]:
        raise UsageError(f"the recipe's mix names {unknown[0]!r}; expected some of {', '.join(KINDS)}")
    mix: dict[str, float] = {**DEFAULT_MIX, **usual}
    for text in ",".join(texts).split(",") if texts else ():
        kind, _, number = text.strip().partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if kind not in KINDS:
            raise UnknownNameError.of("kind of --mix", kind, KINDS)
        if not 0 <= weight < math.inf:
            raise UsageError(f"mix {text!r} is not KIND=WEIGHT with a kind of {', '.join(KINDS)} and a weight >= 0")
        mix[kind] = weight
    if not any(mix.values()):
        raise UsageError("all weights of --mix are 0; give at least one kind of sample a weight")
    return mix


def differences(a: TrainConfig, b: TrainConfig) -> Mapping[str, tuple[object, object]]:
    """The settings in which two configurations differ, with both values; those of the schedule by their own names."""
    found: dict[str, tuple[object, object]] = {}
    for x, y in ((a, b), (a.schedule, b.schedule)):
        pairs = {name: (getattr(x, name), getattr(y, name)) for name in x.__struct_fields__ if name != "schedule"}
        found |= {name: values for name, values in pairs.items() if values[0] != values[1]}
    return found


class TrainDevice(NamedTuple):
    """A device and the precision of convolutions and matrix products on it."""

    device: torch.device
    precision: AutocastPrecision

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """bfloat16 where it is precise enough, float32 elsewhere, or float32 everywhere; new tensors on the device."""
        with self.device, torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            yield


def find_device(name: str | None) -> torch.device:
    """`cpu`, `cuda:0` and the like; None: the first GPU, else the CPU.

    Raises:
        UsageError: not a device's name.
        DeviceUnavailableError: it is not on this machine.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r} is not a device; expected cpu or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} cannot be trained on; expected cpu or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailableError(
            f"device {name!r} is not on this machine: PyTorch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; use --device cpu, or install a CUDA build of torch"
        )
    return device
