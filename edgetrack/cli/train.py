"""`edgetrack train`: train a tracker, from scratch or from a checkpoint."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgetrack.training.loop import Report
    from edgetrack.training.run import Outcome


def train(
    tracker: Annotated[str, typer.Argument(help="A tracker's name, or a recipe file.")],
    data: Annotated[
        list[Path], typer.Option(help="A .tar shard, a folder of shards, or of sequences; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of weights, log and state; resumed if it has one.")],
    init: Annotated[
        str | None, typer.Option(help="Start from this checkpoint, or from the `default` weights; else from scratch.")
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="SIZE:LENGTH, search crop in pixels and time (26m, 1.5h) or steps; may be repeated."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Length of the training, shared over the recipe's phases.")] = (
        None
    ),
    steps: Annotated[int | None, typer.Option(help="The same in steps.")] = None,
    stop_after: Annotated[
        float | None, typer.Option(help="End this run after so many minutes; the same command goes on later.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="short or paper; the recipe says what they are.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate in place of the schedule's.")] = None,
    backbone_rate: Annotated[float, typer.Option(help="Factor on the backbone's learning rate.")] = 1.0,
    batch: Annotated[int | None, typer.Option(help="Pairs a step, in place of the recipe's.")] = None,
    mix: Annotated[
        list[str] | None, typer.Option(help="KIND=WEIGHT: clip, still, region, paste, negative; may be repeated.")
    ] = None,
    gap: Annotated[int, typer.Option(help="How many pictures apart the two of a clip may be.")] = 12,
    memory: Annotated[int, typer.Option(help="Steps that the weight average looks back.")] = 200,
    hold_aside: Annotated[int, typer.Option(help="Sequences that are tracked from time to time, not trained on.")] = 4,
    precision: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
    device: Annotated[str | None, typer.Option(help="cpu or cuda:0; else a GPU where there is one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that make pairs.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that compute, on a CPU.")] = None,
    seed: Annotated[int, typer.Option(help="Of start weights and pairs.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the training in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train a tracker; stopping it (Ctrl-C) saves, the same command goes on."""
    _require_extra()
    from edgetrack.cli.console import print_json, stderr, stdout
    from edgetrack.errors import UsageError
    from edgetrack.training.journal import can_draw
    from edgetrack.training.loop import Hooks, Rhythm
    from edgetrack.training.run import TrainRequest
    from edgetrack.training.run import train as run
    from edgetrack.training.settings import Wishes

    if precision not in ("bf16", "fp32"):
        raise UsageError(f"--precision {precision!r} is not known; expected bf16 or fp32")
    if stop_after is not None and not stop_after > 0:
        raise UsageError(f"--stop-after is {stop_after}; expected minutes above 0")
    wishes = Wishes(
        seed=seed,
        phases=tuple(phase or ()),
        minutes=minutes,
        steps=steps,
        batch=batch,
        schedule=schedule,
        lr=lr,
        mix=tuple(mix or ()),
        gap=gap,
        memory=memory,
        precision="bf16" if precision == "bf16" else "fp32",
        backbone_rate=backbone_rate,
    )
    request = TrainRequest(
        tracker=tracker,
        data=tuple(data),
        output=out,
        wishes=wishes,
        init=init,
        held_aside=hold_aside,
        device=device,
        workers=workers,
        threads=threads,
        restart=restart,
        rhythm=Rhythm() if stop_after is None else Rhythm(stop_after_s=60 * stop_after),
    )
    console = stderr()
    if not can_draw():
        console.print("no curves.png will be drawn: pip install 'edgetrack[train]'", markup=False)
    with _watched() as on_step:
        hooks = Hooks(on_step=on_step, on_event=lambda text: console.print(text, markup=False))
        outcome = run(request, hooks)
    if as_json:
        print_json({"schema": 1, **_fields(outcome)})
    else:
        stdout().print(_text(outcome), markup=False)
    if outcome.signal is not None and not outcome.complete:
        raise typer.Exit(128 + outcome.signal)


def _require_extra() -> None:
    from edgetrack.errors import BackendMissingError

    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise BackendMissingError(f"training needs {package}; install it with: pip install 'edgetrack[train]'")


class _Watcher:
    """Shows steps on stderr: a bar on a terminal, a line for the first and every 20th step elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        from edgetrack.cli.console import stderr

        self.console = stderr()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=1.0)

    def show(self, report: Report) -> None:
        """One step."""
        text = (
            f"step {report.place.step}: loss {report.losses['total']:.3f}, IoU {report.losses['iou']:.2f}, "
            f"{report.pairs_per_s:.1f} pairs/s"
        )
        if self.console.is_terminal:
            self.bar.update(self.task, completed=report.progress, description=text)
        elif report.place.step == 1 or report.place.step % 20 == 0:
            self.console.print(f"{report.progress:4.0%}  {text}", markup=False)


@contextmanager
def _watched() -> Iterator[Callable[[Report], None]]:
    watcher = _Watcher()
    with watcher.bar:
        yield watcher.show


def _fields(outcome: Outcome) -> dict[str, object]:
    return {
        "weights": str(outcome.weights),
        "complete": outcome.complete,
        "step": outcome.step,
        "seconds": outcome.seconds,
        "ao": outcome.ao,
    }


def _text(outcome: Outcome) -> str:
    ao = "" if outcome.ao is None else f"; AO {outcome.ao:.3f} on the held-aside sequences"
    state = "complete" if outcome.complete else "not complete, the same command goes on"
    return f"{outcome.weights}: step {outcome.step}, {outcome.seconds / 60:.1f} minutes, {state}{ao}"
