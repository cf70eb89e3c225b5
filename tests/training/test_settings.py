from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import pytest
import torch
from torch import nn

from edgetrack.errors import UsageError
from edgetrack.export.recipe import find_recipe
from edgetrack.models.base import find_model
from edgetrack.training.settings import (
    Phase,
    TrainConfig,
    TrainOverrides,
    WeightAverage,
    differences,
    initialise,
    optimizer_of,
    parse_mix,
    parse_phase,
    rate_factor,
    resolve,
    set_rate,
)

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


def test_the_papers_loss_and_crops(train_config: Make) -> None:
    made = train_config()
    assert (made.loss.l1, made.loss.giou) == (5.0, 2.0)
    assert (made.template.factor, made.template.size, made.search.factor, made.search.size) == (2.0, 128, 4.0, 256)
    assert (made.centre_jitter, made.scale_jitter) == (3.0, 0.25)
    assert made.search_rule(128).factor == 2.0
    assert made.jitter_at(128) == 1.5


def test_biases_and_norms_do_not_decay_and_the_backbone_has_its_own_rate(train_config: Make) -> None:
    network = find_model("smat").Network()
    optimizer = optimizer_of(network, train_config(backbone_rate=0.1))
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


def test_start_weights_depend_on_the_seed_alone() -> None:
    def made(seed: int) -> nn.Module:
        network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128))
        initialise(network, {"0.bias": -2.0}, seed)
        return network

    first, again, other = made(0), made(0), made(1)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first[0].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert (first[0].bias == -2).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128:26m", (128, 1560.0, "seconds")),
        ("256:1.5h", (256, 5400.0, "seconds")),
        ("256:90s", (256, 90.0, "seconds")),
        ("64:200", (64, 200.0, "steps")),
    ],
)
def test_phases(text: str, expected: tuple[int, float, str]) -> None:
    assert parse_phase(text) == expected


@pytest.mark.parametrize("text", ["", "128", "100:5", "32:5", "128:0", "128:-3", "128:1.5", "128:5d", "128:nan"])
def test_what_is_no_phase(text: str) -> None:
    with pytest.raises(UsageError, match="phase"):
        parse_phase(text)


def test_lengths_are_shared_over_the_recipes_phases(train_config: Make) -> None:
    assert train_config(steps=100).phases == (Phase(128, 32, 35, "steps"), Phase(256, 24, 65, "steps"))
    assert train_config(duration_s=600, batch=8).phases == (
        Phase(128, 8, 210, "seconds"),
        Phase(256, 8, 390, "seconds"),
    )
    assert train_config(phases=("256:7",)).phases == (Phase(256, 24, 7, "steps"),)


@pytest.mark.parametrize(
    "overrides",
    [
        {"duration_s": 60.0, "steps": 1},
        {"phases": ("128:5", "256:5m")},
        {"duration_s": -1.0},
        {"lr": 0.0},
        {"steps": 0},
        {"schedule": "other"},
        {"seed": -1},
        {"gap": 0},
        {"mix": ("clip",)},
        {"mix": ("dogs=1",)},
        {"mix": ("clip=-1",)},
        {"mix": ("clip=0,still=0,region=0,negative=0",)},
    ],
)
def test_overrides_that_cannot_be_met(train_config: Make, overrides: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        train_config(**overrides)


def test_a_recipe_without_training_says_so() -> None:
    recipe = msgspec.structs.replace(find_recipe("smat"), training=None)
    with pytest.raises(UsageError, match=r"no \[training\] section"):
        resolve(recipe, TrainOverrides())


def test_mix_and_differences(train_config: Make) -> None:
    assert parse_mix(("clip=1,paste=0.5", "still=0"))["paste"] == 0.5
    assert set(differences(train_config(), train_config(seed=1, gap=3))) == {"seed", "gap"}
