from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor, nn

from edgetrack.checkpoints import read_checkpoint
from edgetrack.errors import NumericalError, SourceInterruptedError
from edgetrack.models.base import find_model
from edgetrack.training.catalog import hold_out
from edgetrack.training.checkpoint import read_log, read_position
from edgetrack.training.loop import Callbacks, StepReport, Trainer
from edgetrack.training.method import TrainingMethod
from edgetrack.training.run import resume
from edgetrack.training.settings import Intervals, TrainConfig, TrainDevice
from edgetrack.training.sources import read_data

Make = Callable[..., TrainConfig]
Tiny = Callable[[], nn.Module]
CPU = torch.device("cpu")
BF16, FP32 = TrainDevice(CPU, "bf16"), TrainDevice(CPU, "fp32")


def _resumed(
    network: nn.Module, method: TrainingMethod, train_config: TrainConfig, folder: Path, **options: Any
) -> Trainer:
    device = TrainDevice(CPU, train_config.schedule.precision)
    trainer = Trainer(network, method, train_config, device, folder, **options)
    resume(trainer, folder / "state")
    return trainer


def _watch(losses: list[dict[str, float]], **more: Any) -> Callbacks:
    return Callbacks(on_step=lambda report: losses.append(dict(report.losses)), **more)


@pytest.mark.parametrize("stop_at", [3, 4, 5])
def test_a_resumed_training_is_the_uninterrupted_one(
    pack: Path, tiny: Tiny, train_config: Make, smat_method: TrainingMethod, tmp_path: Path, stop_at: int
) -> None:
    # Phases of 4 and 3 steps: stopped before, at and behind the change.
    made = train_config(phases=("64:4", "128:3"), batch=4)
    catalog = read_data([pack])
    whole: list[dict[str, float]] = []
    (tmp_path / "a").mkdir()
    straight = Trainer(tiny(), smat_method, made, BF16, tmp_path / "a", callbacks=_watch(whole))
    assert straight.run(catalog)
    parts: list[dict[str, float]] = []
    (tmp_path / "b").mkdir()
    callbacks = _watch(parts, stop=lambda: len(parts) == stop_at)
    assert not Trainer(tiny(), smat_method, made, BF16, tmp_path / "b", callbacks=callbacks).run(catalog)
    second = _resumed(tiny(), smat_method, made, tmp_path / "b", callbacks=_watch(parts))
    assert second.run(catalog)
    assert parts == whole
    assert len(whole) == 7
    for name, tensor in straight.average.tensors.items():
        assert torch.equal(tensor, second.average.tensors[name])


def test_time_budgets_follow_the_clock(
    pack: Path, tiny: Tiny, train_config: Make, smat_method: TrainingMethod, tmp_path: Path
) -> None:
    ticks = itertools.count()
    sizes: list[tuple[int, float]] = []

    def on_step(report: StepReport) -> None:
        sizes.append((report.position.phase, report.progress))

    made = train_config(phases=("64:60s", "128:40s"), batch=2)
    callbacks = Callbacks(clock=lambda: 5.0 * next(ticks), on_step=on_step)
    trainer = Trainer(tiny(), smat_method, made, FP32, tmp_path, callbacks=callbacks)
    assert trainer.run(read_data([pack]))
    assert {phase for phase, _ in sizes} == {0, 1}
    assert [progress for _, progress in sizes] == sorted(progress for _, progress in sizes)
    assert trainer.progress == 1
    assert trainer.position.seconds >= 100


def test_a_run_can_be_cut_into_pieces(
    pack: Path, tiny: Tiny, train_config: Make, smat_method: TrainingMethod, tmp_path: Path
) -> None:
    made, catalog = train_config(phases=("64:6",), batch=2), read_data([pack])
    ticks = itertools.count()
    callbacks = Callbacks(clock=lambda: float(next(ticks)))
    first = Trainer(
        tiny(),
        smat_method,
        made,
        FP32,
        tmp_path,
        callbacks=callbacks,
        intervals=Intervals(stop_after_s=10),
    )
    assert not first.run(catalog)
    assert 0 < first.position.step < 6
    assert _resumed(tiny(), smat_method, made, tmp_path).run(catalog)


def test_logs_weights_and_picture(pack: Path, train_config: Make, smat_method: TrainingMethod, tmp_path: Path) -> None:
    catalog, held_out = hold_out(read_data([pack]), 2)
    made = train_config(phases=("64:5",), batch=2)
    events: list[str] = []
    trainer = Trainer(
        find_model("smat").Network(),
        smat_method,
        made,
        FP32,
        tmp_path,
        intervals=Intervals(log_steps=2),
        callbacks=Callbacks(on_event=events.append),
    )
    trainer.run(catalog, held_out)
    log = json.loads((tmp_path / "log.json").read_text())
    assert [row["step"] for row in log["rows"]] == [2, 4, 5]
    assert log["settings"]["seed"] == 0
    (check,) = log["validations"]
    assert set(check["sequences"]) == {clip.name for clip in held_out}
    assert events == [f"step 5: AO {check['ao']:.3f} on 2 held-out sequences"]
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["loss"]) == pytest.approx(log["rows"][0]["loss"], rel=1e-5)
    assert rows[2]["ao"] != ""
    weights = read_checkpoint(tmp_path / "weights.safetensors").tensors
    assert all(torch.equal(weights[name], tensor) for name, tensor in trainer.average.tensors.items())
    assert (tmp_path / "best.safetensors").is_file()
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (450, 1200, 3)
    log = read_log(tmp_path)
    assert log is not None
    log.cut(4)
    assert ([row.step for row in log.rows], log.validations) == ([2, 4], [])


def test_one_bad_step_changes_nothing_and_many_end_the_training(
    pack: Path, tiny: Tiny, train_config: Make, smat_method: TrainingMethod, tmp_path: Path
) -> None:
    class Diverging(nn.Module):
        def __init__(self, bad: range) -> None:
            super().__init__()
            self.inner, self.bad, self.calls = tiny(), bad, 0

        def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, ...]:
            maps = self.inner(z, x)
            self.calls += 1
            return tuple(m * math.nan for m in maps) if self.calls in self.bad else maps

    made, catalog = train_config(phases=("64:30",), batch=2), read_data([pack])
    trainer = Trainer(Diverging(range(3, 4)), smat_method, made, FP32, tmp_path)
    trainer.run(catalog)
    assert (trainer.position.step, trainer.position.updates) == (30, 29)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.network.parameters())
    with pytest.raises(NumericalError, match="--restart"):
        Trainer(Diverging(range(5, 99)), smat_method, made, FP32, tmp_path).run(catalog)


def test_data_that_vanish_end_the_training_with_what_was_done_saved(
    pack: Path, tiny: Tiny, train_config: Make, smat_method: TrainingMethod, tmp_path: Path
) -> None:
    copy = tmp_path / "a.tar"
    copy.write_bytes(pack.read_bytes())
    catalog = read_data([copy])
    steps: list[int] = []

    def on_step(report: StepReport) -> None:
        steps.append(report.position.step)
        if report.position.step == 2:
            copy.unlink()

    trainer = Trainer(
        tiny(),
        smat_method,
        train_config(phases=("64:9",), batch=2),
        FP32,
        tmp_path,
        callbacks=Callbacks(on_step=on_step),
    )
    with pytest.raises(SourceInterruptedError, match=r"picture a\.tar:"):
        trainer.run(catalog)
    assert read_position(tmp_path / "state")[0].step == 2
