"""What decides the numbers of a training: recipe and overrides, device, learning rate, weight average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetrack.errors import DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.export.recipe import LossWeights, Recipe, Schedule, Training
from edgetrack.io import parse_duration
from edgetrack.runtime.crop import CropRule

AutocastPrecision = Literal["bf16", "fp32"]
DEFAULT_MIX = {"clip": 0.60, "still": 0.25, "region": 0.15, "paste": 0.0, "negative": 0.05}
KINDS = tuple(DEFAULT_MIX)
DEFAULT_DURATION_S = 74 * 60.0
STRIDE = 32
"""Search crops are multiples of this: an even number of cells at stride 16."""
COSINE_FLOOR = 0.01
STEP_AT, STEP_FACTOR = 0.8, 0.1


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
        clip_margin: pixels of a box that stay in the frame, where held-out sequences are tracked.
        mix: weight of each kind of pair (see `edgetrack.training.pairs`).
        gap: how many frames apart the two pictures of a clip may be.
        memory: horizon of the moving average of the weights, in steps.
        backbone_rate: factor on the learning rate of tensors under the recipe's `backbone` prefix.
    """

    tracker: str
    seed: int
    phases: tuple[Phase, ...]
    schedule: Schedule
    loss: LossWeights
    template: CropRule
    search: CropRule
    clip_margin: float
    centre_jitter: float
    scale_jitter: float
    mix: dict[str, float]
    gap: int
    memory: int
    precision: AutocastPrecision
    backbone: str
    backbone_rate: float
    initial: dict[str, float]

    def search_rule(self, size: int) -> CropRule:
        """The crop rule at another size of the search crop, an object keeping its size in pixels."""
        return CropRule(self.search.factor * size / self.search.size, size)

    def jitter_at(self, size: int) -> float:
        """The centre jitter at that size: the target's centre stays inside the crop."""
        return self.centre_jitter * size / self.search.size


class TrainOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may choose; None leaves it to the recipe.

    Attributes:
        phases: texts such as `128:26m`, `256:0.8h` or `256:2000` (steps).
        duration_s, steps: length of the whole training, shared by the recipe's phases.
        mix: texts such as `clip=0.6`; kinds that are not named keep their weight.
    """

    seed: int = 0
    phases: tuple[str, ...] = ()
    duration_s: float | None = None
    steps: int | None = None
    batch: int | None = None
    schedule: str | None = None
    lr: float | None = None
    mix: tuple[str, ...] = ()
    gap: int = 12
    memory: int = 200
    precision: AutocastPrecision = "bf16"
    backbone_rate: float = 1.0


def resolve(recipe: Recipe, overrides: TrainOverrides) -> TrainConfig:
    """Recipe and overrides as a configuration.

    Raises:
        UsageError: the tracker cannot be trained, or an override has no meaning.
    """
    training = recipe.training
    if training is None:
        raise UsageError(f"recipe {recipe.name!r} has no [training] section, so it cannot be trained")
    _check(overrides)
    name = next(iter(training.schedules)) if overrides.schedule is None else overrides.schedule
    if name not in training.schedules:
        raise UnknownNameError.of("schedule", name, training.schedules)
    schedule = training.schedules[name]
    number = {key: float(value) for key, value in recipe.procedure.items() if not isinstance(value, str)}
    return TrainConfig(
        tracker=recipe.name,
        seed=overrides.seed,
        phases=_phases(training, overrides),
        schedule=schedule if overrides.lr is None else msgspec.structs.replace(schedule, lr=overrides.lr),
        loss=training.loss,
        template=CropRule(number["template_factor"], int(number["template_size"])),
        search=CropRule(number["search_factor"], int(number["search_size"])),
        clip_margin=number["clip_margin"],
        centre_jitter=training.centre_jitter,
        scale_jitter=training.scale_jitter,
        mix=parse_mix(overrides.mix),
        gap=overrides.gap,
        memory=overrides.memory,
        precision=overrides.precision,
        backbone=training.backbone,
        backbone_rate=overrides.backbone_rate,
        initial=training.initial,
    )


def _check(overrides: TrainOverrides) -> None:
    if sum((bool(overrides.phases), overrides.duration_s is not None, overrides.steps is not None)) > 1:
        raise UsageError("--phase, --minutes and --steps exclude each other; --phase gives each phase its own length")
    positive: dict[str, float | None] = {
        "--minutes": overrides.duration_s,
        "--steps": overrides.steps,
        "--batch": overrides.batch,
        "--lr": overrides.lr,
        "--gap": overrides.gap,
        "--memory": overrides.memory,
        "--backbone-rate": overrides.backbone_rate,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} is {value}; expected a number above 0")
    if overrides.seed < 0:
        raise UsageError(f"--seed is {overrides.seed}; expected a whole number of at least 0")


def _phases(training: Training, overrides: TrainOverrides) -> tuple[Phase, ...]:
    if overrides.phases:
        batches = {share.search_size: share.batch for share in training.phases}
        default = training.phases[-1].batch
        phases = []
        for text in overrides.phases:
            size, amount, unit = parse_phase(text)
            phases.append(Phase(size, overrides.batch or batches.get(size, default), amount, unit))
        if len({phase.unit for phase in phases}) > 1:
            raise UsageError("some phases are given in time and some in steps; give all of them in one of the two")
        return tuple(phases)
    total = sum(share.share for share in training.phases)
    phases = []
    for share in training.phases:
        batch, part = overrides.batch or share.batch, share.share / total
        if overrides.steps is not None:
            phases.append(Phase(share.search_size, batch, max(1, round(overrides.steps * part)), "steps"))
        else:
            seconds = (overrides.duration_s or DEFAULT_DURATION_S) * part
            phases.append(Phase(share.search_size, batch, seconds, "seconds"))
    return tuple(phases)


def parse_phase(text: str) -> tuple[int, float, Literal["steps", "seconds"]]:
    """`SIZE:LENGTH` as pixels, amount and unit; a length is a number of steps, or a time with its unit, as 26m.

    Raises:
        UsageError: something else, a size that is no multiple of 32, or no length.
    """
    size_text, _, length = (part.strip() for part in text.partition(":"))
    size = int(size_text) if size_text.isascii() and size_text.isdigit() and len(size_text) < 5 else 0
    if size % STRIDE or size < 2 * STRIDE:
        raise UsageError(
            f"phase {text!r} is not SIZE:LENGTH with a search crop of a multiple of {STRIDE} pixels, {2 * STRIDE} or "
            "more; expected such as 128:26m, 256:1.5h or 256:2000 (steps)"
        )
    if length[-1:].isdigit():
        if not (length.isascii() and length.isdigit() and 0 < int(length) < 10**9):
            raise UsageError(f"phase {text!r} is {length!r} steps long; expected a whole number above 0, or a time")
        return size, float(length), "steps"
    return size, parse_duration(length, f"the length of phase {text!r}"), "seconds"


def parse_mix(texts: Sequence[str]) -> dict[str, float]:
    """The default mix with the weights that the texts `KIND=WEIGHT` give.

    Raises:
        UsageError: an unknown kind, a weight that is no number of at least 0, or none above 0.
    """
    mix: dict[str, float] = dict(DEFAULT_MIX)
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
        raise UsageError("all weights of --mix are 0; give at least one kind of pair a weight")
    return mix


def differences(a: TrainConfig, b: TrainConfig) -> Mapping[str, tuple[object, object]]:
    """The fields in which two configurations differ, with both values."""
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in TrainConfig.__struct_fields__}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


class TrainDevice(NamedTuple):
    """A device and the precision of convolutions and matrix products on it."""

    device: torch.device
    precision: AutocastPrecision

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 where it is precise enough, float32 elsewhere; or float32 everywhere."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


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


def to_images(crops: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) BGR to float32 (B, 3, H, W) RGB, 0..1, channels last in memory."""
    batch = torch.as_tensor(crops).to(device, non_blocking=True)
    return batch.flip(3).permute(0, 3, 1, 2).float() / 255.0


def rate_factor(schedule: Schedule, step: int, progress: float) -> float:
    """What the learning rate is multiplied by, above 0 and at most 1.

    Args:
        schedule: its course and steps of warm-up.
        step: number of the step, from 0.
        progress: share of the whole training that is done, 0..1.
    """
    progress = min(max(progress, 0.0), 1.0)
    warm = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.course == "step":
        return warm * (STEP_FACTOR if progress >= STEP_AT else 1.0)
    return warm * (COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


def optimizer_of(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases and normalisations (one-dimensional parameters) do not decay, the backbone has its own rate.

    Each group carries `base_lr`, which `set_rate` scales.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        rate = config.backbone_rate if name.startswith(config.backbone) else 1.0
        decay = config.schedule.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    options = []
    for (rate, decay), parameters in groups.items():
        lr = config.schedule.lr * rate
        options.append({"params": parameters, "weight_decay": decay, "base_lr": lr, "lr": lr})
    return torch.optim.AdamW(options)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class WeightAverage:
    """Exponential moving average (EMA) of all tensors of a network, over `memory` steps and fewer at the start.

    After n updates the decay is min(1 - 1/memory, n / (n + 9)): the first update copies.
    """

    def __init__(self, network: nn.Module, memory: int) -> None:
        self.tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.memory = memory
        self.updates = 0

    def restart(self) -> None:
        """Start again: the next update copies."""
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include a step's weights; integers are copied."""
        keep = min(1 - 1 / self.memory, self.updates / (self.updates + 9))
        self.updates += 1
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value, 1 - keep)
            else:
                self.tensors[name].copy_(value)


def initialise(network: nn.Module, constants: Mapping[str, float], seed: int) -> None:
    """Start weights: convolutions from He's normal distribution (arXiv 1502.01852; fan-in), biases 0, norms 1 and 0.

    Args:
        network: changed in place.
        constants: parameter's name -> the value that fills it.
        seed: of torch's generator, used for this alone.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        for name, value in constants.items():
            network.get_parameter(name).fill_(value)
