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
    from edgetrack.devices.choose import Choice

_WIDE = 200
_INTERRUPTED = 130


def bench(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BUNDLE[@HINT]]...", help="Bundles; `@bf16` loads one with that precision hint."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to run: cpu, cuda:0, or a device's profile such as jetson; see docs/devices.md.")
    ] = "cpu",
    host: Annotated[
        str | None, typer.Option(help="The device over SSH: HOST, USER@HOST or USER@HOST:PORT; keys only.")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="This machine is the --device, also where it does not look like it.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads of every contestant; all usable cores if left out.")
    ] = None,
    warmup: Annotated[float, typer.Option(help="Seconds to warm up, and at least 10 frames.")] = 1.0,
    duration: Annotated[
        str | None, typer.Option(help="Time for each contestant and speed: seconds, 45s, 30m; 6 s, a soak 10m.")
    ] = None,
    iterations: Annotated[int, typer.Option(help="Least frames for each; both are reached.")] = 150,
    rounds: Annotated[
        int | None, typer.Option(help="Turns that all take, interleaved; 6. For a soak its windows; 20 or more.")
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="stream: back to back. paced: at a camera's rate. burst: several trackers at once. soak: a long run."
        ),
    ] = "stream",
    fps: Annotated[
        float | None, typer.Option(help="Frames a second that arrive: paced (30), soak (back to back if left out).")
    ] = None,
    streams: Annotated[int | None, typer.Option(help="Trackers at once, burst; 2 if left out.")] = None,
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
    from edgetrack.benchmark.scenario import parse_duration
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
        fps=fps,
        streams=streams,
        warmup_s=warmup,
        duration_s=parse_duration(duration, scenario),
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
    found = _measured(options, host, here)
    _present(found, as_json, as_markdown, percentile)
    code = exit_code(found)
    if code or not found.complete:
        raise typer.Exit(code or _INTERRUPTED)


def _measured(options: Options, host: str | None, here: bool) -> Record:
    """On the device that was chosen, which may be another machine."""
    from dataclasses import replace

    from edgetrack.benchmark.machine import collect
    from edgetrack.capabilities import open_ref
    from edgetrack.devices.choose import choose_device

    if host is not None and here:
        raise UsageError("--host and --here exclude each other; give one of them")
    choice = choose_device(options.device, host, collect, here=here)
    if choice.host is not None:
        return _measured_there(options, choice)
    if choice.profile is None:
        return _measure(options)
    if not options.bundles:
        raise UsageError(f"name the bundles that are to be measured with --device {options.device}")
    place = choice.profile.place(open_ref(bundle).manifest for bundle in options.bundles)
    expected = choice.profile.expectation()
    return _measure(replace(options, device=place, profile=choice.profile.name, expected=expected))


def _measured_there(options: Options, choice: Choice) -> Record:
    from edgetrack.benchmark.measure import check_output
    from edgetrack.cli.console import stderr
    from edgetrack.devices.arguments import arguments
    from edgetrack.devices.remote import measure_there, prepared, save

    console = stderr()

    def notify(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    check_output(options)
    if choice.profile is None:
        raise UsageError("--host goes with --device PROFILE")
    words = arguments(options, choice.profile.name)
    with prepared(options.bundles, options.reference, choice.profile, words) as job:
        outcome = measure_there(choice, job, notify)
    if options.output is not None:
        save(outcome, options.output)
    return outcome.record


def _measure(options: Options) -> Record:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edgetrack.benchmark.measure import Surroundings, measure

    console = Console(stderr=True)

    def notify(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        # A log, such as a device sends to who asked for the benchmark: one line when a step begins.
        def log(what: str, step: int, total: int) -> None:
            notify(f"{step}/{total} {what}")

        return measure(options, Surroundings(export=_export, notify=notify, progress=log))
    columns: tuple[Any, ...] = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    # Drawn only when a step begins: a display that refreshes itself takes time from what is measured.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        steps = bar.add_task("starting")

        def progress(what: str, step: int, total: int) -> None:
            bar.update(steps, description=what, completed=step - 1, total=total, refresh=True)

        return measure(options, Surroundings(export=_export, notify=notify, progress=progress))


def _export(tracker: str | None, target: str, output: Path | None, weights: str | None) -> Path:
    from edgetrack.export.recipe import default_tracker
    from edgetrack.export.separately import export_apart

    # In a process of its own: what a converter loads, or breaks, shall not be with who measures.
    return export_apart(tracker or default_tracker(), target, output, weights, progress=lambda line: None)


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
        for note in present.notes(found, percentile):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
