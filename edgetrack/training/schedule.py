"""Learning rate, weight decay and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgetrack.export.recipe import Schedule
from edgetrack.training.settings import Settings

COSINE_FLOOR = 0.01
STEP_AT, STEP_FACTOR = 0.8, 0.1


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


def optimizer_of(network: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW; biases and normalisations (one-dimensional parameters) do not decay, the backbone has its own rate.

    Each group carries `base_lr`, which `set_rate` scales.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        rate = settings.backbone_rate if name.startswith(settings.backbone) else 1.0
        decay = settings.schedule.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    lr = settings.schedule.lr
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "base_lr": lr * rate, "lr": lr * rate}
            for (rate, decay), parameters in groups.items()
        ]
    )


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class Average:
    """Exponential average of all tensors of a network, with a memory of `memory` steps that starts short.

    After n updates the decay is min(1 - 1/memory, n / (n + 9)): the first update copies.
    """

    def __init__(self, network: nn.Module, memory: int) -> None:
        self.tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.memory = memory
        self.updates = 0

    def restart(self) -> None:
        """Forget: the next update copies."""
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take a step's weights in; whole numbers are copied."""
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
