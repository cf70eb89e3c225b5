"""What a training is asked to do, resolved from the tracker's recipe and the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from edgetrack.errors import UsageError
from edgetrack.export.recipe import LossWeights, Recipe, Schedule, Training
from edgetrack.runtime.crop import CropRule

Precision = Literal["bf16", "fp32"]
KINDS = ("clip", "still", "region", "paste", "negative")
DEFAULT_MIX = {"clip": 0.60, "still": 0.25, "region": 0.15, "paste": 0.0, "negative": 0.05}
DEFAULT_MINUTES = 74.0
STRIDE = 32
"""Search crops are multiples of this: an even number of cells at stride 16."""
_PHASE = re.compile(r"(\d{2,4}):(\d+(?:\.\d+)?)(h|m|s|)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the training at one size of the search crop: so many `steps` or `seconds`."""

    search_size: int
    batch: int
    amount: float
    unit: Literal["steps", "seconds"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides the numbers of a training, but for the data, the machine and the start weights.

    Attributes:
        template, search: published crop rules; a smaller search crop has a smaller factor, so the same object scale.
        clip_margin: pixels of a box that stay in the frame, for the tracking of held-aside sequences.
        mix: weight of each kind of pair (see `edgetrack.training.pairs`).
        gap: how many frames apart the two of a clip may be.
        memory: steps that the weight average looks back.
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
    precision: Precision
    backbone: str
    backbone_rate: float
    initial: dict[str, float]

    def search_rule(self, size: int) -> CropRule:
        """The crop rule at another size of the search crop, an object keeping its size in pixels."""
        return CropRule(self.search.factor * size / self.search.size, size)

    def jitter_at(self, size: int) -> float:
        """The centre jitter at that size: the target's centre stays inside the crop."""
        return self.centre_jitter * size / self.search.size


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may ask for; None leaves it to the recipe.

    Attributes:
        phases: texts such as `128:26m`, `256:0.8h` or `256:2000` (steps).
        minutes, steps: length of the whole training, shared out over the recipe's phases.
        mix: texts such as `clip=0.6`; kinds that are not named keep their weight.
    """

    seed: int = 0
    phases: tuple[str, ...] = ()
    minutes: float | None = None
    steps: int | None = None
    batch: int | None = None
    schedule: str | None = None
    lr: float | None = None
    mix: tuple[str, ...] = ()
    gap: int = 12
    memory: int = 200
    precision: Precision = "bf16"
    backbone_rate: float = 1.0


def resolve(recipe: Recipe, wishes: Wishes) -> Settings:
    """Recipe and wishes as settings.

    Raises:
        UsageError: the tracker cannot be trained, or a wish cannot be met.
    """
    training = recipe.training
    if training is None:
        raise UsageError(f"recipe {recipe.name!r} has no [training] section, so it cannot be trained")
    _check(wishes)
    schedule = _schedule(training, wishes)
    number = {key: float(value) for key, value in recipe.procedure.items() if not isinstance(value, str)}
    return Settings(
        tracker=recipe.name,
        seed=wishes.seed,
        phases=_phases(training, wishes),
        schedule=schedule,
        loss=training.loss,
        template=CropRule(number["template_factor"], int(number["template_size"])),
        search=CropRule(number["search_factor"], int(number["search_size"])),
        clip_margin=number["clip_margin"],
        centre_jitter=training.centre_jitter,
        scale_jitter=training.scale_jitter,
        mix=parse_mix(wishes.mix),
        gap=wishes.gap,
        memory=wishes.memory,
        precision=wishes.precision,
        backbone=training.backbone,
        backbone_rate=wishes.backbone_rate,
        initial=training.initial,
    )


def _check(wishes: Wishes) -> None:
    if sum((bool(wishes.phases), wishes.minutes is not None, wishes.steps is not None)) > 1:
        raise UsageError("--phase, --minutes and --steps exclude each other; --phase gives each phase its own length")
    positive: dict[str, float | None] = {
        "--minutes": wishes.minutes,
        "--steps": wishes.steps,
        "--batch": wishes.batch,
        "--lr": wishes.lr,
        "--gap": wishes.gap,
        "--memory": wishes.memory,
        "--backbone-rate": wishes.backbone_rate,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} is {value}; expected a number above 0")
    if wishes.seed < 0:
        raise UsageError(f"--seed is {wishes.seed}; expected a whole number of at least 0")


def _schedule(training: Training, wishes: Wishes) -> Schedule:
    name = next(iter(training.schedules)) if wishes.schedule is None else wishes.schedule
    if name not in training.schedules:
        raise UsageError(f"schedule {name!r} is not known; expected one of: {', '.join(training.schedules)}")
    schedule = training.schedules[name]
    return schedule if wishes.lr is None else msgspec.structs.replace(schedule, lr=wishes.lr)


def _phases(training: Training, wishes: Wishes) -> tuple[Phase, ...]:
    batches = {share.search_size: share.batch for share in training.phases}
    default = training.phases[-1].batch
    if wishes.phases:
        found = [parse_phase(text) for text in wishes.phases]
        phases = [Phase(size, wishes.batch or batches.get(size, default), amount, unit) for size, amount, unit in found]
        if len({phase.unit for phase in phases}) > 1:
            raise UsageError("some phases are given in time and some in steps; give all of them in one of the two")
        return tuple(phases)
    total = sum(share.share for share in training.phases)
    phases = []
    for share in training.phases:
        batch = wishes.batch or share.batch
        if wishes.steps is not None:
            phases.append(Phase(share.search_size, batch, max(1, round(wishes.steps * share.share / total)), "steps"))
        else:
            seconds = 60 * (wishes.minutes or DEFAULT_MINUTES) * share.share / total
            phases.append(Phase(share.search_size, batch, seconds, "seconds"))
    return tuple(phases)


def parse_phase(text: str) -> tuple[int, float, Literal["steps", "seconds"]]:
    """`SIZE:LENGTH` as pixels, amount and unit; a length is steps, or time with h, m or s behind the number.

    Raises:
        UsageError: something else, a size that is no multiple of 32, or no length.
    """
    match = _PHASE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"phase {text!r} is not SIZE:LENGTH; expected such as 128:26m, 256:1.5h or 256:2000 (steps)")
    size, amount, unit = int(match[1]), float(match[2]), match[3]
    if size % STRIDE or size < 2 * STRIDE or amount <= 0 or (not unit and amount != int(amount)):
        raise UsageError(
            f"phase {text!r} has a search crop of {size} pixels and a length of {match[2]}{unit}; expected a multiple "
            f"of {STRIDE} from {2 * STRIDE} pixels on, and a time or a whole number of steps above 0"
        )
    return (size, amount * _SECONDS[unit], "seconds") if unit else (size, amount, "steps")


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
        if kind not in KINDS or not 0 <= weight < math.inf:
            raise UsageError(f"mix {text!r} is not KIND=WEIGHT with a kind of {', '.join(KINDS)} and a weight >= 0")
        mix[kind] = weight
    if not any(mix.values()):
        raise UsageError("all weights of --mix are 0; give at least one kind of pair a weight")
    return mix


def differences(a: Settings, b: Settings) -> Mapping[str, tuple[object, object]]:
    """The fields in which two settings differ, with both values."""
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in Settings.__struct_fields__}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}
