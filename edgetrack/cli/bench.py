"""`edgetrack bench`: how fast bundles are here, against PyTorch, the paper and the machine's roof."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.benchmark.measure import Options
    from edgetrack.benchmark.record import Record

_WIDE = 200
_INTERRUPTED = 130


def bench(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BUNDLE[@HINT]]...", help="Bundles; `@bf16` loads one with that precision hint."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run: cpu.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="Threads of every contestant; all usable cores if left out.")
    ] = None,
    warmup: Annotated[float, typer.Option(help="Seconds to warm up, and at least 10 frames.")] = 1.0,
    duration: Annotated[float, typer.Option(help="Seconds for each contestant and speed.")] = 6.0,
    iterations: Annotated[int, typer.Option(help="Least frames for each; both are reached.")] = 150,
    rounds: Annotated[int, typer.Option(help="Turns that all take, interleaved; 6 give intervals.")] = 6,
    scenario: Annotated[str, typer.Option(help="stream: frames back to back.")] = "stream",
    source: Annotated[
        str | None,
        typer.Option(help="Frames: video, folder, or synthetic:NAME?size=WxH; a 1280x720 scene if left out."),
    ] = None,
    box: Annotated[str | None, typer.Option(help="Target in the first frame, x,y,w,h; else the ground truth.")] = None,
    precision_hint: Annotated[str | None, typer.Option(help="Load all bundles that take it with this hint.")] = None,
    reference: Annotated[str | None, typer.Option(help="The PyTorch bundle to compare to; else found or made.")] = None,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Do not measure PyTorch.")] = False,
    percentile: Annotated[int, typer.Option(help="Percentile that the table shows: 90, 95 or 99.")] = 99,
    timeout: Annotated[float, typer.Option(help="Longest wait for one answer, in seconds.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the record here after each round.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Measure bundles: latency of model, track and camera, memory, size, against PyTorch and the machine's limit."""
    from edgetrack.benchmark.footage import DEFAULT_SOURCE
    from edgetrack.benchmark.measure import Options, exit_code
    from edgetrack.benchmark.present import PERCENTILES
    from edgetrack.box import Box

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if percentile not in PERCENTILES:
        raise UsageError(f"--percentile {percentile}: expected one of {', '.join(map(str, PERCENTILES))}")
    options = Options(
        bundles=tuple(bundles or ()),
        device=device,
        threads=threads,
        scenario=scenario,
        warmup_s=warmup,
        duration_s=duration,
        iterations=iterations,
        rounds=rounds,
        timeout_s=timeout,
        source=source or DEFAULT_SOURCE,
        box=None if box is None else Box.parse(box),
        hint=precision_hint,
        reference=reference,
        with_reference=not no_reference,
        output=output,
        overwrite=overwrite,
    )
    found = _measure(options)
    _present(found, as_json, as_markdown, percentile)
    code = exit_code(found)
    if code or not found.complete:
        raise typer.Exit(code or _INTERRUPTED)


def _measure(options: Options) -> Record:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edgetrack.benchmark.measure import Surroundings, measure

    console = Console(stderr=True)
    columns: tuple[Any, ...] = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    # Drawn only when a step begins: a display that refreshes itself takes time from what is measured.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        steps = bar.add_task("starting")

        def progress(what: str, step: int, total: int) -> None:
            bar.update(steps, description=what, completed=step - 1, total=total, refresh=True)

        def notify(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        return measure(options, Surroundings(export=_export, notify=notify, progress=progress))


def _export(tracker: str | None, target: str, output: Path | None) -> Path:
    from edgetrack.export.pipeline import ExportRequest, export
    from edgetrack.export.recipe import default_tracker

    return export(ExportRequest(tracker=tracker or default_tracker(), target=target, output=output)).path


def _present(found: Record, as_json: bool, as_markdown: bool, percentile: int) -> None:
    from rich.console import Console

    from edgetrack.benchmark import present

    if as_json:
        sys.stdout.write(found.to_json().decode())
    elif as_markdown:
        sys.stdout.write(present.markdown(found, percentile) + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else _WIDE)
        console.print(present.table(found, percentile))
        for note in present.notes(found):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
