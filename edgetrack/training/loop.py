"""The training loop: phases, steps, saves, logs. The clock and what is shown are injected."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from edgetrack.checkpoints import save_safetensors
from edgetrack.errors import NumericalError, SourceInterruptedError
from edgetrack.training.catalog import Catalog, TrainingClip
from edgetrack.training.checkpoint import PICTURE, LogRow, TrainLog, TrainPosition, can_draw, draw_curves, save_state
from edgetrack.training.losses import Losses
from edgetrack.training.method import Batch, TrainingMethod
from edgetrack.training.optimization import WeightAverage, freeze, optimizer_of, rate_factor, set_rate, trained
from edgetrack.training.pairs import PairMaker, batches
from edgetrack.training.settings import Intervals, Phase, TrainConfig, TrainDevice
from edgetrack.training.validation import average_overlap

WEIGHTS, BEST = "weights.safetensors", "best.safetensors"
MOST_BAD_STEPS = 20
"""Steps in a row without a finite loss and gradient after which a training has failed."""


@dataclass(frozen=True)
class StepReport:
    """The result of a step, for display.

    Attributes:
        position: after the step.
        losses: by name; `total` is what was minimised.
        lr: of the step.
        progress: share of the whole training that is done, 0..1.
        pairs_per_s: since the last row of the log.
    """

    position: TrainPosition
    losses: dict[str, float]
    lr: float
    progress: float
    pairs_per_s: float


@dataclass
class Callbacks:
    """What the loop asks of the outside: the time in seconds, whether to stop, and whom to tell."""

    clock: Callable[[], float] = time.perf_counter
    stop: Callable[[], bool] = lambda: False
    on_step: Callable[[StepReport], None] = lambda report: None
    on_event: Callable[[str], None] = lambda text: None


@dataclass
class _Means:
    """Sums over the steps since the last row."""

    since: float
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    pairs: int = 0

    def add(self, losses: dict[str, float], pairs: int) -> None:
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in losses.items()}
        self.steps += 1
        self.pairs += pairs

    def means(self) -> dict[str, float]:
        return {name: value / self.steps for name, value in self.sums.items()}


class Trainer:
    """A network, its optimizer and average, and the loop over the phases.

    Args:
        network: of the method's family; trained in place.
        method: what a sample, a loss and a tensor that trains are.
        config: decides the numbers.
        device: where it is computed.
        folder: everything is written there; must exist.
    """

    def __init__(
        self,
        network: nn.Module,
        method: TrainingMethod,
        config: TrainConfig,
        device: TrainDevice,
        folder: Path,
        *,
        intervals: Intervals | None = None,
        callbacks: Callbacks | None = None,
        log: TrainLog | None = None,
    ) -> None:
        # Channels last: what the convolutions of CPUs and of GPUs with bfloat16 are fastest with.
        self.network: nn.Module = network.to(device.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.method, self.config, self.device, self.folder = method, config, device, folder
        self.intervals, self.callbacks = intervals or Intervals(), callbacks or Callbacks()
        self.log = log or TrainLog(config)
        self.optimizer = optimizer_of(self.network, method, config)
        self.average = WeightAverage(self.network, config.schedule.average)
        self.position = TrainPosition()
        self._bad_steps = 0
        # Whether the backbone does not train yet; None before the first step.
        self._waits: bool | None = None

    def run(self, catalog: Catalog, held_out: Sequence[TrainingClip] = (), workers: int = 0) -> bool:
        """Train until all phases are done, the time of this run is up, or a stop is requested; then save.

        Returns:
            Whether the training is complete.

        Raises:
            NumericalError: the loss or its gradient stayed NaN or infinite; the last saved state stays.
            SourceInterruptedError: a picture can no longer be read; what was done is saved first.
        """
        self._started = self._mark = self._saved = self._validated = self.callbacks.clock()
        self._means = _Means(since=self._mark)
        try:
            complete = self._phases(catalog, held_out, workers)
        except SourceInterruptedError:
            self._save()
            raise
        if not self.callbacks.stop():
            self._validate(held_out)
        self._save()
        if can_draw() and self.log.rows:
            draw_curves(self.log, self.folder / PICTURE)
        return complete

    @property
    def progress(self) -> float:
        """Share of the whole training that is done, 0..1."""
        amounts = [phase.amount for phase in self.config.phases]
        return min(1.0, (sum(amounts[: self.position.phase]) + self.position.phase_done) / sum(amounts))

    def _phases(self, catalog: Catalog, held_out: Sequence[TrainingClip], workers: int) -> bool:
        while self.position.phase < len(self.config.phases):
            if not self._phase(self.config.phases[self.position.phase], catalog, held_out, workers):
                return False
            self.position.phase, self.position.phase_done = self.position.phase + 1, 0.0
            self.average.restart()
            self._save()
        return True

    def _phase(self, phase: Phase, catalog: Catalog, held_out: Sequence[TrainingClip], workers: int) -> bool:
        maker = PairMaker(catalog, self.config, phase.search_size, self.method)
        on_gpu = self.device.device.type == "cuda"
        for batch in batches(maker, self.position.samples, phase.batch, workers, pinned=on_gpu):
            if self.position.phase_done >= phase.amount:
                return True
            if self.callbacks.stop() or self.callbacks.clock() - self._started >= self.intervals.stop_after_s:
                return False
            self._step(batch, phase)
            now = self.callbacks.clock()
            if now - self._validated >= self.intervals.validate_s:
                self._validate(held_out)
            if now - self._saved >= self.intervals.save_s:
                self._save()
        return True

    def _step(self, batch: Batch, phase: Phase) -> None:
        batch = Batch(*(part.to(self.device.device, non_blocking=True) for part in batch))
        factor = rate_factor(self.config.schedule, self.position.step, self.progress)
        set_rate(self.optimizer, factor)
        self._hold_still()
        with self.device.autocast():
            losses = self.method.loss(self.network, batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.schedule.clip)
        if self._is_sound(losses.total, norm):
            self.optimizer.step()
            self.average.update(self.network)
            self.position.updates += 1
        self._advance(phase, len(batch.positive), losses, factor * self.config.schedule.lr)

    def _hold_still(self) -> None:
        """Freeze what does not train at this point; done again only where that changes."""
        waits = self.progress < self.config.schedule.backbone_from
        if waits != self._waits:
            freeze(self.network, self.method, self.config.backbone if waits else None)
            self._waits = waits

    def _is_sound(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether loss and gradient are finite; a step for which they are not changes nothing."""
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
            self._bad_steps = 0
            return True
        self._bad_steps += 1
        if self._bad_steps >= MOST_BAD_STEPS:
            raise NumericalError(
                f"loss or gradient was NaN or infinite in {MOST_BAD_STEPS} steps in a row, up to step "
                f"{self.position.step}; run the command again to go on from the last saved state, or start over with "
                "--restart and a lower --lr or --precision fp32"
            )
        return False

    def _advance(self, phase: Phase, pairs: int, losses: Losses, lr: float) -> None:
        now = self.callbacks.clock()
        passed, self._mark = now - self._mark, now
        position = self.position
        position.step, position.samples = position.step + 1, position.samples + pairs
        position.seconds += passed
        position.phase_done += 1 if phase.unit == "steps" else passed
        named = losses.named()
        self._means.add(named, pairs)
        rate = self._means.pairs / max(now - self._means.since, 1e-9)
        self.callbacks.on_step(StepReport(position, named, lr, self.progress, rate))
        if position.step % self.intervals.log_steps == 0:
            means = self._means.means()
            known = {"loss": means.pop("total"), "iou": means.pop("iou"), "hit": means.pop("hit")}
            seconds = round(position.seconds, 3)
            self.log.rows.append(
                LogRow(position.step, phase.search_size, seconds, lr, **known, terms=means, pairs_per_s=rate)
            )
            self._means = _Means(since=now)

    def _validate(self, clips: Sequence[TrainingClip]) -> None:
        """Track the held-out sequences with the averaged weights, unless that was just done."""
        done = self.log.validations and self.log.validations[-1]["step"] == self.position.step
        if not clips or self.position.step == 0 or done:
            return
        found = average_overlap(self.method, self.average.tensors, clips, self.config.seed)
        ao = sum(found.values()) / len(found)
        size = self.config.phases[min(self.position.phase, len(self.config.phases) - 1)].search_size
        self.log.validations.append({"step": self.position.step, "ao": ao, "sequences": found})
        self.log.rows.append(LogRow(self.position.step, size, round(self.position.seconds, 3), ao=ao))
        self.callbacks.on_event(f"step {self.position.step}: AO {ao:.3f} on {len(found)} held-out sequences")
        if self.position.best is None or ao > self.position.best:
            self.position.best = ao
            self._write_weights(BEST)
        # A validation is no training time, and no gap in the rate of pairs.
        now = self.callbacks.clock()
        self._means.since += now - self._mark
        self._mark = self._validated = now

    def _save(self) -> None:
        parameters = trained(self.network, self.method)
        save_state(self.folder, self.network, parameters, self.optimizer, self.average, self.position, self.config)
        self._write_weights(WEIGHTS)
        self.log.write(self.folder)
        now = self.callbacks.clock()
        self._means.since += now - self._mark
        self._mark = self._saved = now

    def _write_weights(self, name: str) -> None:
        about = {
            "tracker": self.config.tracker,
            "step": str(self.position.step),
            "pairs": str(self.position.samples),
            "origin": "edgetrack train",
        }
        save_safetensors(self.average.tensors, self.folder / name, about)
