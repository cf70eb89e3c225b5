"""`edgetrack train`: train a tracker, from scratch or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli import options as shared

if TYPE_CHECKING:
    from edgetrack.training.loop import StepReport
    from edgetrack.training.run import TrainOutcome


def train(
    tracker: Annotated[
        str, typer.Argument(help="A tracker's name, or a recipe file.", autocompletion=complete.trackers)
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="A .tar shard, a folder of shards, or a folder of sequences. May be repeated."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of weights, log and state. A training in it is resumed."),
    ],
    init: Annotated[
        str | None,
        typer.Option(help="Start from this checkpoint, or from the `default` weights. Default: from scratch."),
    ] = None,
    init_backbone: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Start from a pretrained backbone; the rest begins from scratch. Commas between several files.",
        ),
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="SIZE:LENGTH, search crop in pixels and a time (26m, 1.5h) or steps. May be repeated."),
    ] = None,
    minutes: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Length of the training, as 30m or 1.5h or in minutes, shared by the recipe's phases."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the training in steps instead of a time.")] = None,
    stop_after: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="End this run after a time, as 30m or in minutes. The same command resumes it later."
        ),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Schedule of the recipe, such as short or paper: rates, lengths, samples.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate instead of the schedule's.")] = None,
    backbone_rate: Annotated[
        float | None, typer.Option(help="Factor on the backbone's learning rate instead of the schedule's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs per step instead of the recipe's number.")] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(help="KIND=WEIGHT with a kind of clip, still, region, paste, negative. May be repeated."),
    ] = None,
    gap: Annotated[
        int | None, typer.Option(help="Largest frame gap between the pictures of a sample instead of the schedule's.")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(help="Horizon of the weights' moving average (EMA) in steps, instead of the schedule's."),
    ] = None,
    held_out: Annotated[
        int, typer.Option("--held-out", help="Number of held-out sequences: tracked at intervals, never trained on.")
    ] = 4,
    hold_aside: Annotated[int | None, typer.Option("--hold-aside", hidden=True)] = None,
    precision: Annotated[
        str | None, typer.Option(help="Arithmetic of the network, bf16 or fp32, instead of the schedule's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to run: cpu or cuda:0. Default: a GPU where there is one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that make pairs. Default: chosen for this machine.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with. Default: all usable cores.")] = None,
    seed: shared.SeedOption = 0,
    restart: shared.RestartOption = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Train a tracker. Stopping it (Ctrl-C) saves its state, and the same command resumes it."""
    from edgetrack.resources import require_extra

    require_extra("training", "train", "torch", "safetensors")
    from edgetrack.cli.console import print_json, stderr, stdout
    from edgetrack.errors import UnknownNameError
    from edgetrack.io import parse_duration
    from edgetrack.presentation.progress import shown_progress
    from edgetrack.training.checkpoint import can_draw
    from edgetrack.training.loop import Callbacks
    from edgetrack.training.run import train as run
    from edgetrack.training.settings import Intervals, TrainRequest

    if precision not in (None, "bf16", "fp32"):
        raise UnknownNameError.of("--precision", precision, ("bf16", "fp32"))
    request = TrainRequest(
        tracker=tracker,
        data=tuple(data),
        output=out,
        init=init,
        init_backbone=init_backbone,
        held_out=held_out if hold_aside is None else hold_aside,
        device=device,
        workers=workers,
        threads=threads,
        restart=restart,
        intervals=Intervals()
        if stop_after is None
        else Intervals(stop_after_s=parse_duration(stop_after, "--stop-after", plain="m")),
        seed=seed,
        phases=tuple(phase or ()),
        duration_s=None if minutes is None else parse_duration(minutes, "--minutes", plain="m"),
        steps=steps,
        batch=batch,
        schedule=schedule,
        lr=lr,
        backbone_rate=backbone_rate,
        average=memory,
        gap=gap,
        precision=None if precision is None else "bf16" if precision == "bf16" else "fp32",
        mix=tuple(mix or ()),
    )
    console = stderr()
    if not can_draw():
        console.print("no curves.png will be drawn: pip install 'edgetrack[train]'")
    shown = False
    with shown_progress(console) as progress:

        def show(report: StepReport) -> None:
            text, step = _step_text(report), report.position.step
            if console.is_terminal:
                # How many steps fit in a time is not known in advance: the bar shows an estimate.
                share = max(report.progress, 1e-9)
                left_s = report.position.seconds * (1 / share - 1)
                progress(f"{text}, {left_s / 60:.0f} minutes left", step, round(step / share))
            else:
                nonlocal shown
                if not shown:  # what a log has of the first half minute: it runs, and how fast
                    console.print(text)
                shown = True
                progress(text, step, 0)

        outcome = run(request, Callbacks(on_step=show, on_event=console.print))
    if as_json:
        fields = {"complete": outcome.complete, "step": outcome.step, "seconds": outcome.seconds, "ao": outcome.ao}
        print_json({"schema": 1, "weights": str(outcome.weights), **fields})
    else:
        stdout().print(_text(outcome))
    if outcome.signal is not None and not outcome.complete:
        raise typer.Exit(128 + outcome.signal)


def _step_text(report: StepReport) -> str:
    position, losses = report.position, report.losses
    return (
        f"{report.progress:4.0%}  step {position.step}: loss {losses['total']:.3f}, IoU {losses['iou']:.2f}, "
        f"{report.pairs_per_s:.1f} pairs/s"
    )


def _text(outcome: TrainOutcome) -> str:
    ao = "" if outcome.ao is None else f"; AO {outcome.ao:.3f} on the held-out sequences"
    state = "complete" if outcome.complete else "not complete, the same command resumes it"
    return f"{outcome.weights}: step {outcome.step}, {outcome.seconds / 60:.1f} minutes, {state}{ao}"
