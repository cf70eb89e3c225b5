from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from edgetrack.models.base import find_model
from edgetrack.training.method import TrainingMethod
from edgetrack.training.optimization import WeightAverage, freeze, optimizer_of, rate_factor, set_rate
from edgetrack.training.settings import TrainConfig

Make = Callable[..., TrainConfig]


def test_cosine_with_warm_up(train_config: Make) -> None:
    schedule = train_config().schedule
    assert (schedule.course, schedule.lr, schedule.warmup, schedule.clip) == ("cosine", 1e-3, 100, 1.0)
    assert rate_factor(schedule, 0, 0.0) == pytest.approx(0.01)
    assert rate_factor(schedule, 49, 0.0) == pytest.approx(0.5)
    assert rate_factor(schedule, 1000, 0.5) == pytest.approx(0.01 + 0.99 / 2)
    assert rate_factor(schedule, 1000, 1.0) == rate_factor(schedule, 1000, 1.7) == pytest.approx(0.01)


def test_the_papers_schedule_drops_once(train_config: Make) -> None:
    schedule = train_config(schedule="paper").schedule
    assert (schedule.lr, schedule.weight_decay, schedule.clip) == (4e-4, 1e-4, 0.1)
    assert [rate_factor(schedule, 0, p) for p in (0.0, 0.79, 0.8, 1.0)] == [1.0, 1.0, 0.1, 0.1]


def test_biases_and_norms_do_not_decay_and_the_backbone_has_its_own_rate(
    train_config: Make, smat_method: TrainingMethod
) -> None:
    network = find_model("smat").Network()
    optimizer = optimizer_of(network, smat_method, train_config(backbone_rate=0.1))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (1e-4 if parameter.dim() > 1 else 0)
            assert group["base_lr"] == pytest.approx(1e-4 if names[id(parameter)].startswith("backbone.") else 1e-3)
            seen += 1
    assert seen == len(names)
    set_rate(optimizer, 0.5)
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {5e-5, 5e-4}


def test_the_average_is_exponential_and_copies_first() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, memory=4)
    with torch.no_grad():
        for value in (3.0, 5.0):
            network.weight.fill_(value)
            network.num_batches_tracked.fill_(int(value))
            average.update(network)
    # The first update copies, the second keeps 1/10.
    assert average.tensors["weight"].item() == pytest.approx(0.1 * 3 + 0.9 * 5)
    assert average.tensors["num_batches_tracked"].item() == 5
    average.updates = 1000
    before = average.tensors["weight"].item()
    average.update(network)
    assert average.tensors["weight"].item() == pytest.approx(0.75 * before + 0.25 * 5)
    average.restart()
    average.update(network)
    assert average.tensors["weight"].item() == 5


def test_what_waits_is_held_still_with_its_statistics(smat_method: TrainingMethod) -> None:
    network = find_model("smat").Network()
    freeze(network, smat_method, "backbone.")
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad != name.startswith("backbone.")
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert all(norm.training != name.startswith("backbone.") for name, norm in norms.items())
    assert {name.partition(".")[0] for name in norms} >= {"backbone", "neck", "box_head"}
    freeze(network, smat_method, None)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(norm.training for norm in norms.values())
