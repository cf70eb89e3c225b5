"""`edgetrack tune`: the fastest bundle, hint and number of threads on this machine, and what it costs in tracking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli import options as shared
from edgetrack.cli.device import DeviceCommand, chosen_device
from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.evaluation.datasets import Dataset
    from edgetrack.tuning.record import TuneRecord
    from edgetrack.tuning.run import TuneRequest

_INTERRUPTED = 130


def tune(
    context: typer.Context,
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACKER|BUNDLE",
            help="A tracker, for all of its bundles that can run there (those missing in ./out are exported), or "
            "bundles of one tracker and checkpoint, as `BUNDLE[@HINT][@DEVICE]`.",
            autocompletion=complete.bundles,
        ),
    ],
    device: shared.DeviceOption = None,
    host: shared.HostOption = None,
    here: shared.HereOption = False,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Measure AO on this data set, as `edgetrack eval` takes it.",
            autocompletion=complete.datasets,
        ),
    ] = None,
    layout: shared.LayoutOption = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of AO that the winner may lose against FP32. Default with --val: 0.5.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second that the winner must reach.")] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most peak memory of the process that tracks, as 200M (MiB) or 1.5G."),
    ] = None,
    max_time: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Time for everything, as 15m; what is undecided by then is said, and resumed later."
        ),
    ] = "15m",
    margin: Annotated[float, typer.Option(help="Percent of time that count as equally fast.")] = 3.0,
    source: shared.SourceOption = None,
    box: shared.BoxOption = None,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive", help="Measure every candidate in every round until the time is up, as a check on the race."
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep the result for load(tuned=True) and track --tuned.")
    ] = True,
    restart: shared.RestartOption = False,
    timeout: shared.TimeoutOption = "2m",
    as_json: shared.JsonOption = False,
    as_markdown: shared.MarkdownOption = False,
    output: shared.OutputOption = None,
    overwrite: shared.OverwriteOption = False,
) -> None:
    """Find the fastest way to run a tracker here: target, precision, hint and threads, with what it costs in AO."""
    from edgetrack.benchmark.config import DEFAULT_SOURCE
    from edgetrack.box import Box
    from edgetrack.cli.console import stdout, write_json
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.io import parse_duration
    from edgetrack.tuning.advice import tune_table
    from edgetrack.tuning.record import TuneWishes
    from edgetrack.tuning.run import TuneRequest

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if max_drop is not None and val is None:
        raise UsageError("--max-drop is measured on a data set; add --val DATA")
    for option, number in (("fps", fps), ("max-drop", max_drop), ("margin", margin)):
        if number is not None and not 0 < number <= 1e4:
            raise UsageError(f"--{option} {number:g}: expected a number above 0")
    dataset = None if val is None else open_dataset(val, layout)
    drop = None if dataset is None else 0.5 if max_drop is None else max_drop
    request = TuneRequest(
        tuple(given),
        TuneWishes(
            fps=fps,
            max_drop=drop,
            dataset=None if dataset is None else dataset.name,
            max_memory_mb=None if max_memory is None else _mebibytes(max_memory),
            margin=margin / 100,
        ),
        dataset=dataset,
        max_time_s=parse_duration(max_time, "--max-time"),
        source=source or DEFAULT_SOURCE,
        box=None if box is None else Box.parse(box),
        exhaustive=exhaustive,
        restart=restart,
        output=output,
        overwrite=overwrite,
        timeout_s=parse_duration(timeout, "--timeout"),
    )
    choice = chosen_device(device, host, here)
    if choice.host is None:
        record = _tuned_here(request, choice, named=device is not None)
        if keep:
            _keep(record)
    else:
        record = _tuned_there(context, request, choice, dataset)
    if as_json:
        write_json(record.to_json())
    elif as_markdown:
        typer.echo(tune_table(record).markdown())
    else:
        tune_table(record).show(stdout())
    if record.recommended is None:
        raise typer.Exit(_INTERRUPTED if not record.rounds_ms else 1)


def _tuned_here(request: TuneRequest, choice: DeviceChoice, *, named: bool) -> TuneRecord:
    from dataclasses import replace

    from edgetrack.benchmark.run import Environment
    from edgetrack.capabilities import targets
    from edgetrack.cli.console import stderr
    from edgetrack.presentation.progress import shown_progress
    from edgetrack.tuning.candidates import exporter
    from edgetrack.tuning.run import tune as run

    console, profile = stderr(), choice.profile
    if profile is not None:
        request = replace(request, places=profile.backends, profile=profile.name, expected=profile.expectation())
    elif named:
        places = {target.name: choice.device for target in targets() if target.runs_on(choice.device)}
        request = replace(request, places=places)
    # Drawn only when a step begins: a display that refreshes itself takes time from what is measured.
    with shown_progress(console, refresh=False) as progress:
        return run(request, Environment(notify=console.print, progress=progress), exporter(progress))


def _tuned_there(
    context: typer.Context, request: TuneRequest, choice: DeviceChoice, dataset: Dataset | None
) -> TuneRecord:
    """Export here what the device runs, and tune it there."""
    from edgetrack.benchmark.candidates import OUTPUT_FOLDER
    from edgetrack.cli.console import stderr
    from edgetrack.io import write_whole
    from edgetrack.presentation.progress import shown_progress
    from edgetrack.tuning.candidates import Machine, exporter, find_candidates
    from edgetrack.tuning.record import LeftOut, TuneRecord

    console = stderr()
    left_out: list[LeftOut] = []
    with DeviceCommand(context, choice, "tune") as there:
        with shown_progress(console) as progress:
            candidates = find_candidates(
                request.given,
                Machine({}, nvidia=False, places=there.profile.backends, cores=1),
                export=exporter(progress),
                folder=OUTPUT_FOLDER,
                left_out=left_out,
                time_left=lambda: True,
            )
        for one in left_out:
            console.print(f"left out: {one.what}: {one.reason}")
        bundles = {one.variant: one.bundle for one in candidates}
        there.say("given", *map(there.bundle, bundles.values()))
        there.say("keep", "--no-keep")
        there.say("source", f"--source={there.source(request.source)}")
        if dataset is not None:
            there.say("val", f"--val={there.dataset(dataset, dataset)}")
        found = there.run("--json")
    record = found.record(TuneRecord)
    if request.output is not None:
        write_whole(request.output, record.to_json())
    return record


def _keep(record: TuneRecord) -> None:
    """Keep a finished recommendation, and say where."""
    from edgetrack.cli.console import stderr
    from edgetrack.runtime.tuned import TunedChoice, keep_choice

    one = record.choice
    if one is None or record.exhaustive:
        return
    choice = TunedChoice(
        tracker=record.system,
        machine=record.machine.kind,
        bundle=one.path,
        digest=one.digest,
        hint=one.hint,
        device=one.device,
        threads=one.threads,
        versions=one.versions,
        measured=f"{record.date}, {one.track_ms:.2f} ms" + ("" if record.complete else ", not complete"),
        raced=tuple(sorted({entry.digest for entry in record.entries})),
    )
    stderr().print(f"kept in {keep_choice(choice)} for load(tuned=True) and `track --tuned`")


def _mebibytes(text: str) -> float:
    import re

    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(M|G)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--max-memory is {text!r}; expected MiB or GiB, such as 200M or 1.5G")
    return float(match[1]) * (1024 if match[2].upper() == "G" else 1)
