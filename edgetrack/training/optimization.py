"""How the weights change: which of them train, the optimizer, the learning rate, and the average that is written."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgetrack.exporting.recipe import Schedule
from edgetrack.training.method import TrainingMethod
from edgetrack.training.settings import TrainConfig


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
        return warm * (schedule.drop if progress >= schedule.drop_at else 1.0)
    return warm * (schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def trained(network: nn.Module, method: TrainingMethod) -> dict[str, nn.Parameter]:
    """The parameters that change in the course of the training, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if method.trains(name)}


def freeze(network: nn.Module, method: TrainingMethod, waiting: str | None) -> None:
    """Put the network into training mode, and hold still what does not train at this point of the training.

    A module all of whose parameters are held still is in evaluation mode, so that not even its statistics change.

    Args:
        waiting: prefix of the names of tensors that do not train yet.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(method.trains(name) and not (waiting is not None and name.startswith(waiting)))
    for module in network.modules():
        own = list(module.parameters())
        module.training = not own or any(parameter.requires_grad for parameter in own)


def optimizer_of(network: nn.Module, method: TrainingMethod, config: TrainConfig) -> torch.optim.Optimizer:
    """The schedule's optimizer of what trains; biases, normalisations (one-dimensional) and what the recipe calls
    undecayed do not decay, the backbone has its own rate.

    Each group carries `base_lr`, which `set_rate` scales.
    """
    schedule = config.schedule
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in trained(network, method).items():
        rate = schedule.backbone_rate if name.startswith(config.backbone) else 1.0
        decays = parameter.dim() > 1 and not any(part in name for part in config.undecayed)
        groups.setdefault((rate, schedule.weight_decay if decays else 0.0), []).append(parameter)
    options = []
    for (rate, decay), parameters in groups.items():
        lr = schedule.lr * rate
        options.append({"params": parameters, "weight_decay": decay, "base_lr": lr, "lr": lr})
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(options, lr=schedule.lr, momentum=schedule.momentum)
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
