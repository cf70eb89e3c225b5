"""Every family learns, resumes bit for bit, leaves what is frozen as it is, and exports what it learned."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetrack.box import Box
from edgetrack.bundle import open_bundle
from edgetrack.checkpoints import read_checkpoint
from edgetrack.exporting.recipe import Recipe, read_recipe
from edgetrack.models.base import make_network
from edgetrack.runtime.verify import PARITY_FILE
from edgetrack.training import loop
from edgetrack.training.catalog import Catalog
from edgetrack.training.loop import Callbacks, Trainer
from edgetrack.training.method import Batch, TrainingMethod, find_method
from edgetrack.training.pairs import Pair, PairMaker, batches
from edgetrack.training.run import resume
from edgetrack.training.settings import TrainConfig, TrainDevice, TrainRequest, resolve
from edgetrack.training.sources import read_data
from edgetrack.training.start import initialise
from tests.builders import jpeg, pack_parts, write_pack
from tests.conftest import export_quietly

FP32 = TrainDevice(torch.device("cpu"), "fp32")
SMAT = "smat"


class Lesson(NamedTuple):
    """How a small configuration learns sixteen samples: rate, most steps, and the IoU that its boxes must reach."""

    lr: float
    steps: int
    iou: float
    size: int


# Steps at most: processors round differently, so that one needs more of them than another; what is learned ends there.
# FP32: a processor without BF16 computes it many times slower, which is not what is tested here.
LESSONS = {
    SMAT: Lesson(3e-3, 480, 0.8, 128),
    "dastm": Lesson(2e-3, 180, 0.7, 97),
    "atstrack": Lesson(2e-3, 240, 0.6, 128),
    "dmtrack": Lesson(3e-3, 300, 0.55, 128),
    "spmtrack_b": Lesson(1e-2, 300, 0.55, 112),
}
# Two of the five take a minute of processor time each.
LEARNED = [pytest.param(name, marks=[pytest.mark.full] if name in (SMAT, "dmtrack") else []) for name in LESSONS]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A shard of 4 sequences of 12 frames, each with its negative as the second image and a description."""
    entries, files = pack_parts()
    for entry in entries:
        entry["second"] = f"second/{entry['file']}"
        image = cv2.imdecode(np.frombuffer(files[entry["file"]], np.uint8), cv2.IMREAD_COLOR)
        files[entry["second"]] = jpeg(255 - image)
        if entry["box"] is not None:
            entry["text"] = "category=block\nappearance=grey block\naction=sliding\nlocation=on the left"
    return read_data([write_pack(tmp_path_factory.mktemp("pack") / "both.tar", entries, files)])


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Callable[..., Path]) -> Callable[[str], Recipe]:
    """recipe("dastm") -> of its small configuration."""
    return lambda name: read_recipe(tiny_recipe(name))


def _config(recipe: Recipe, steps: int, **options: Any) -> TrainConfig:
    size = LESSONS[recipe.name].size
    made = {"precision": "fp32", "mix": ("negative=0",), "average": 1, "phases": (f"{size}:{steps}",), **options}
    return resolve(recipe, TrainRequest(tracker=recipe.name, **made))


def _network(method: TrainingMethod, config: TrainConfig) -> nn.Module:
    network = make_network(method.recipe.family_name, method.recipe.configuration)
    initialise(network, config.initial, config.seed)
    return network


class Sixteen(PairMaker):
    """The same sixteen samples again and again, made once."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made: dict[int, Pair] = {}

    def __call__(self, index: int) -> Pair:
        if index % 16 not in self.made:
            self.made[index % 16] = super().__call__(index % 16)
        return self.made[index % 16]


class Learned(NamedTuple):
    """A finished lesson: the losses of every step, all tensors before and after, and the folder."""

    losses: list[dict[str, float]]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    method: TrainingMethod
    folder: Path


@pytest.fixture(scope="module")
def learned(
    catalog: Catalog, recipe: Callable[[str], Recipe], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Learned]:
    """learned("dastm") -> what became of its lesson, given once."""

    @cache
    def give(name: str) -> Learned:
        method, lesson = find_method(recipe(name)), LESSONS[name]
        folder = tmp_path_factory.mktemp(name)
        config = _config(method.recipe, lesson.steps, lr=lesson.lr, batch=8, backbone_rate=1.0)
        plan = msgspec.structs.replace(config.schedule, warmup=10)
        config = msgspec.structs.replace(config, schedule=plan)
        network = _network(method, config)
        if name == "dmtrack":
            _make_base(network, method, config, catalog, folder)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        losses: list[dict[str, float]] = []
        # Two batches are all sixteen samples; what is learned needs no further steps.
        callbacks = Callbacks(
            on_step=lambda report: losses.append(dict(report.losses)), stop=lambda: _is_learned(losses, lesson)
        )
        _run(network, method, config, catalog, folder, callbacks)
        return Learned(losses, before, network.state_dict(), method, folder)

    return give


def _is_learned(losses: list[dict[str, float]], lesson: Lesson) -> bool:
    last = losses[-2:]
    return len(last) == 2 and all(found["hit"] == 1 and found["iou"] > lesson.iou for found in last)


def _run(
    network: nn.Module,
    method: TrainingMethod,
    config: TrainConfig,
    catalog: Catalog,
    folder: Path,
    callbacks: Callbacks,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PairMaker", Sixteen)
        Trainer(network, method, config, FP32, folder, callbacks=callbacks).run(catalog)


def _make_base(network: nn.Module, method: TrainingMethod, config: TrainConfig, catalog: Catalog, folder: Path) -> None:
    """The tracker of one image that adapters are made for: all else trains for a while, on other samples."""

    class Base(type(method)):  # type: ignore[misc]
        def trains(self, name: str) -> bool:
            return not super().trains(name)

    with torch.no_grad():
        network.get_parameter("box_head.conv5_ctr.bias").fill_(-2.2)
        network.get_parameter("box_head.conv5_size.bias").fill_(-1.4)
    config = msgspec.structs.replace(config, seed=1)
    config = msgspec.structs.replace(config, phases=(msgspec.structs.replace(config.phases[0], amount=30),))
    (folder / "base").mkdir()
    _run(network, Base(method.recipe), config, catalog, folder / "base", Callbacks())


@pytest.mark.parametrize("name", LEARNED)
def test_sixteen_samples_are_learned_by_heart(learned: Callable[[str], Learned], name: str) -> None:
    found = learned(name)
    assert _is_learned(found.losses, LESSONS[name]), found.losses[-2:]
    assert found.losses[-1]["total"] < found.losses[0]["total"]
    assert set(found.losses[0]) == {"total", "iou", "hit", *found.method.terms}


FROZEN = {
    SMAT: set(),
    "dastm": set(),
    # CLIP's tower; the image classifier's positions, which are in checkpoints without use, train in vain.
    "atstrack": {"text"},
    "dmtrack": {"backbone", "box_head"},
    "spmtrack_b": {"blocks", "patch_embed", "pos_embed", "norm"},
}


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_frozen_does_not_change_by_a_bit(learned: Callable[[str], Learned], name: str) -> None:
    found = learned(name)
    same = {key for key, value in found.before.items() if torch.equal(value, found.after[key])}
    network = make_network(found.method.recipe.family_name, found.method.recipe.configuration)
    still = {key for key, _ in network.named_parameters() if not found.method.trains(key)}
    assert still <= same
    assert {key.partition(".")[0] for key in still} == FROZEN[name]
    # A part that trains: all its parameters do, but for what the computation does not use.
    unused = {"backbone.pos_embed", "backbone.cls_token"} if name != SMAT else set()
    moved = {key for key, _ in network.named_parameters()} - still - unused
    assert {key for key in moved & same if "tem" not in key} == set()
    if FROZEN[name] == {"backbone", "box_head"}:
        # The statistics of frozen norms stay too.
        assert {key for key in same if "running_" in key or "num_batches" in key} == {
            key for key in found.before if "running_" in key or "num_batches" in key
        }
    written = read_checkpoint(found.folder / "weights.safetensors").tensors
    assert all(torch.equal(written[key], value) for key, value in found.after.items())


@pytest.mark.parametrize("name", LEARNED)
def test_what_was_learned_is_exported_and_proven(
    learned: Callable[[str], Learned], tiny_recipe: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    weights = learned(name).folder / "weights.safetensors"
    output = tmp_path / "bundle"
    export_quietly(str(tiny_recipe(name)), "onnx", str(weights), output, ("synthetic:drift?frames=4",), (1, 3))
    with open_bundle(output) as bundle:
        assert bundle.manifest.weights.file == "weights.safetensors"
    report = msgspec.json.decode((output / PARITY_FILE).read_bytes())
    assert report["comparisons"], report
    assert all(entry["ok"] for entry in report["comparisons"])


@pytest.mark.parametrize(("name", "schedule"), [(n, "short") for n in LESSONS] + [("dastm", "paper")])
def test_a_resumed_training_is_the_uninterrupted_one(
    catalog: Catalog, recipe: Callable[[str], Recipe], tmp_path: Path, name: str, schedule: str
) -> None:
    method = find_method(recipe(name))
    config = _config(method.recipe, 4, batch=2, schedule=schedule, average=3)
    whole: list[dict[str, float]] = []
    parts: list[dict[str, float]] = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    callbacks = Callbacks(on_step=lambda report: whole.append(dict(report.losses)))
    straight = Trainer(_network(method, config), method, config, FP32, tmp_path / "a", callbacks=callbacks)
    assert straight.run(catalog)
    watch: dict[str, Any] = {"on_step": lambda report: parts.append(dict(report.losses))}
    # The paper's DASTM begins to train its trunks at a quarter, here behind the first step: the state knows both.
    first = Callbacks(stop=lambda: len(parts) == 1, **watch)
    assert not Trainer(_network(method, config), method, config, FP32, tmp_path / "b", callbacks=first).run(catalog)
    empty = make_network(method.recipe.family_name, method.recipe.configuration)
    second = Trainer(empty, method, config, FP32, tmp_path / "b", callbacks=Callbacks(**watch))
    resume(second, tmp_path / "b" / "state")
    assert second.run(catalog)
    assert parts == whole
    assert len(whole) == 4
    for folder in ("model", "average"):
        a, b = (read_checkpoint(tmp_path / run / "state" / f"{folder}.safetensors").tensors for run in "ab")
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_trunks_wait_until_the_paper_lets_them_train(
    catalog: Catalog, recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    method = find_method(recipe("dastm"))
    config = _config(method.recipe, 8, batch=2, schedule="paper")
    network = _network(method, config)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    changed: list[set[str]] = []

    def on_step(report: loop.StepReport) -> None:
        state = network.state_dict()
        changed.append({key.partition(".")[0] for key, value in before.items() if not torch.equal(value, state[key])})

    Trainer(network, method, config, FP32, tmp_path, callbacks=Callbacks(on_step=on_step)).run(catalog)
    trunks = {"basemodel_m", "basemodel_q"}
    # A quarter of eight steps.
    assert [bool(trunks & parts) for parts in changed] == [False, False, *[True] * 6]
    assert changed[0] == {"neck_m", "neck_q", "dab", "head"}
    assert trunks <= changed[2]


@pytest.mark.parametrize("name", LESSONS)
def test_crops_show_the_target_where_its_box_says(recipe: Callable[[str], Recipe], name: str) -> None:
    method = find_method(recipe(name))
    config = _config(method.recipe, 1)
    # Far from the borders, which some fill with the mean colour.
    frame = np.zeros((600, 600, 3), np.uint8)
    frame[280:312, 300:348] = 255
    target = Box(300, 280, 48, 32)
    for rule, around in ((config.template, target), (config.search, Box(310, 270, 40, 40))):
        crop, mapping = method.crop(frame, around, rule)
        assert (crop.shape, crop.dtype) == ((rule.size, rule.size, 3), np.uint8)
        box = mapping.to_crop(target)
        for axis, (first, last) in enumerate(((box.x, box.x + box.w), (box.y, box.y + box.h))):
            # A pixel that is half covered is half as bright: the sum is the length, the mean place the middle.
            line = crop[..., 0].max(axis=axis).astype(float) / 255
            assert line.sum() == pytest.approx(last - first, abs=0.6)
            middle = ((np.arange(rule.size) + 0.5) * line).sum() / line.sum()
            assert middle == pytest.approx((first + last) / 2, abs=0.35)


@pytest.mark.parametrize("name", LESSONS)
def test_a_batch_is_computed_as_its_samples_are(catalog: Catalog, recipe: Callable[[str], Recipe], name: str) -> None:
    # Without statistics over a batch: what a norm makes of a batch is meant to depend on all of it.
    method = find_method(recipe(name))
    config = _config(method.recipe, 1)
    network = _network(method, config).eval()
    size = LESSONS[name].size
    batch = next(batches(PairMaker(catalog, config, size, method), 0, 2, 0))
    assert (batch.templates.shape[1], batch.searches.shape[1]) == (method.templates, method.searches)
    with torch.no_grad():
        both = method.loss(network, batch)
        each = [method.loss(network, Batch(*(part[n : n + 1] for part in batch))) for n in range(2)]
    if "l1" in both.terms:
        # Each has one target, so that a mean over a batch is the mean of its samples'.
        for term, value in both.terms.items():
            assert value.item() == pytest.approx(sum(one.terms[term].item() for one in each) / 2, rel=1e-4)
    assert both.hit.item() == pytest.approx(sum(one.hit.item() for one in each) / 2)
