from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from edgetrack.errors import UsageError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.training.settings import (
    Phase,
    TrainConfig,
    TrainRequest,
    differences,
    parse_mix,
    parse_phase,
    resolve,
)

Make = Callable[..., TrainConfig]


def test_the_papers_loss_and_crops(train_config: Make) -> None:
    made = train_config()
    assert made.loss == {"focal": 1.0, "l1": 5.0, "giou": 2.0}
    assert (made.template.factor, made.template.size, made.search.factor, made.search.size) == (2.0, 128, 4.0, 256)
    assert (made.centre_jitter, made.scale_jitter) == (3.0, 0.25)
    assert made.search_rule(128).factor == 2.0
    assert made.jitter_at(128) == 1.5


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


@pytest.mark.parametrize("text", ["", "128", "0:5", "-1:5", "128:0", "128:-3", "128:1.5", "128:5d", "128:nan"])
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
        resolve(recipe, TrainRequest(tracker="smat"))


def test_mix_and_differences(train_config: Make) -> None:
    assert parse_mix(("clip=1,paste=0.5", "still=0"))["paste"] == 0.5
    assert set(differences(train_config(), train_config(seed=1, gap=3))) == {"seed", "gap"}


def test_the_papers_schedule_of_smat_is_the_papers_in_all_it_states(train_config: Make) -> None:
    # The paper's section 4 and the authors' settings: mobilevitv2_256_128x1_ep300.
    made = train_config(schedule="paper")
    plan = made.schedule
    assert (plan.optimizer, plan.lr, plan.backbone_rate, plan.weight_decay, plan.clip) == (
        "adamw",
        4e-4,
        0.1,
        1e-4,
        0.1,
    )
    assert (plan.course, plan.drop_at, plan.drop, plan.precision, plan.gap) == ("step", 240 / 300, 0.1, "fp32", 200)
    assert made.phases == (Phase(256, 128, 300 * 60000 / 128, "steps"),)
    assert {kind: weight for kind, weight in made.mix.items() if weight} == {"clip": 0.75, "still": 0.25}
    text = made.text()
    for stated in ("adamw", "rate 0.0004 (backbone x 0.1)", "x 0.1 from 80%", "140625 steps at 256 pixels, batch 128"):
        assert stated in text


def test_what_is_given_takes_the_place_of_the_schedules_numbers(train_config: Make) -> None:
    made = train_config(schedule="paper", steps=10, batch=4, lr=1e-2, gap=3, average=7, precision="bf16")
    assert made.phases == (Phase(256, 4, 10, "steps"),)
    plan = made.schedule
    assert (plan.lr, plan.gap, plan.average, plan.precision, plan.drop_at) == (1e-2, 3, 7, "bf16", 0.8)


@pytest.mark.parametrize(
    ("tracker", "stated", "steps"),
    [
        # arXiv 2503.16768; epochs and batch are STMTrack's.
        ("dastm", {"optimizer": "sgd", "momentum": 0.9, "lr": 0.005, "backbone_from": 5 / 20}, 20 * 300000 / 64),
        # arXiv 2507.00454; samples and batch are ODTrack's.
        ("atstrack", {"optimizer": "adamw", "lr": 1e-4, "backbone_rate": 0.1}, 300 * 40000 / 8),
        # The released settings, rgbt.yaml.
        ("dmtrack", {"optimizer": "adamw", "lr": 4e-4, "clip": 0.1, "drop_at": 0.8}, 60 * 60000 / 16),
        # The released settings, run.yaml.
        ("spmtrack_b", {"lr": 1e-4, "weight_decay": 0.1, "floor": 0.01, "warmup": 2048}, 170 * 131072 / 128),
    ],
)
def test_the_papers_schedules(tracker: str, stated: dict[str, object], steps: float) -> None:
    made = resolve(find_recipe(tracker), TrainRequest(tracker=tracker, schedule="paper"))
    assert {name: getattr(made.schedule, name) for name in stated} == stated
    (phase,) = made.phases
    assert (phase.amount, phase.unit) == (steps, "steps")
