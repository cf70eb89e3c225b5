"""`edgetrack bench`: how fast bundles are here, compared with PyTorch, the paper and the machine's roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgetrack.cli import complete
from edgetrack.cli import options as shared
from edgetrack.cli.device import DeviceCommand, chosen_device
from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.benchmark.config import BenchRequest
    from edgetrack.benchmark.record import BenchRecord
    from edgetrack.devices.profiles import DeviceChoice

_INTERRUPTED = 130


def bench(
    context: typer.Context,
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Bundles; `BUNDLE@bf16` loads one with that precision hint, `BUNDLE@cuda:0` runs one there. "
            "Default: ./out.",
            autocompletion=complete.bundles,
        ),
    ] = None,
    device: shared.DeviceOption = None,
    host: shared.HostOption = None,
    here: shared.HereOption = False,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Threads per inference; auto: each bundle's best number, found by a short race. Default: all usable "
            "cores.",
        ),
    ] = None,
    warmup: Annotated[float, typer.Option(help="Warm up for this many seconds, and at least 10 frames.")] = 1.0,
    duration: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Time per candidate and speed, as 45s or 30m. Default: 6 s, or 10 minutes for a soak."
        ),
    ] = None,
    iterations: Annotated[
        int, typer.Option(help="Fewest frames per candidate and speed; --duration is reached, too.")
    ] = 150,
    rounds: Annotated[
        int | None,
        typer.Option(help="Interleaved rounds, or a soak's windows. Default: 6, or at least 20 for a soak."),
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="How frames arrive. stream: back to back. paced: at a camera's rate. burst: for several trackers at "
            "once. soak: for a long time."
        ),
    ] = "stream",
    fps: Annotated[
        float | None,
        typer.Option(help="Frames per second that arrive. Default: 30 for paced, back to back for a soak."),
    ] = None,
    streams: Annotated[int | None, typer.Option(help="Trackers at once for a burst. Default: 2.")] = None,
    batched: Annotated[
        bool,
        typer.Option(
            "--batched",
            help="Let one tracker follow a burst's targets, 1, 2 ... up to --streams of them, and say what each "
            "further one costs.",
        ),
    ] = False,
    source: shared.SourceOption = None,
    box: shared.BoxOption = None,
    precision_hint: shared.PrecisionHintOption = None,
    reference: Annotated[
        str | None, typer.Option(help="The PyTorch bundle to compare with. Default: one is found or made.")
    ] = None,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Do not measure PyTorch.")] = False,
    attainable: Annotated[
        bool,
        typer.Option(
            "--attainable",
            help="Time each layer alone, too, and say what a step would take at these rates: up to 15 s a bundle the "
            "first time, and some seconds later.",
        ),
    ] = False,
    percentile: Annotated[int, typer.Option(help="Percentile in the table: 90, 95 or 99.")] = 99,
    timeout: shared.TimeoutOption = "2m",
    as_json: shared.JsonOption = False,
    as_markdown: shared.MarkdownOption = False,
    output: shared.OutputOption = None,
    overwrite: shared.OverwriteOption = False,
) -> None:
    """Measure bundles: latency of model, track and camera, memory and size, compared with PyTorch and the roofline."""
    from edgetrack.benchmark.run import exit_code
    from edgetrack.benchmark.table import PERCENTILES
    from edgetrack.requests.benchmark import bench_request

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if percentile not in PERCENTILES:
        raise UsageError(f"--percentile {percentile}: expected one of {', '.join(map(str, PERCENTILES))}")
    request = bench_request(
        bundles or (),
        threads=_threads(threads),
        warmup=warmup,
        duration=duration,
        iterations=iterations,
        rounds=rounds,
        scenario=scenario,
        fps=fps,
        streams=streams,
        batched=batched,
        source=source,
        box=box,
        precision_hint=precision_hint,
        reference=reference,
        attainable=attainable,
        no_reference=no_reference,
        timeout=timeout,
        output=output,
        overwrite=overwrite,
    )
    choice = chosen_device(device, host, here)
    record = _measured_here(request, choice) if choice.host is None else _measured_there(context, request, choice)
    _present(record, as_json, as_markdown, percentile)
    code = exit_code(record)
    if code or not record.complete:
        raise typer.Exit(code or _INTERRUPTED)


def _threads(given: str | None) -> int | Literal["auto"] | None:
    if given is None:
        return None
    if given == "auto":
        return "auto"
    if not given.isascii() or not given.isdigit() or len(given) > 4:
        raise UsageError(f"--threads {given}: expected 1 or more, or auto")
    return int(given)


def _measured_here(request: BenchRequest, choice: DeviceChoice) -> BenchRecord:
    from edgetrack.cli.console import stderr
    from edgetrack.presentation.progress import shown_progress
    from edgetrack.requests.benchmark import bench_here

    console = stderr()
    # Drawn only when a step begins: a display that refreshes itself takes time from what is measured.
    with shown_progress(console, refresh=False) as progress:
        return bench_here(request, choice, progress, console.print)


def _measured_there(context: typer.Context, request: BenchRequest, choice: DeviceChoice) -> BenchRecord:
    from edgetrack.benchmark.candidates import choose
    from edgetrack.benchmark.record import BenchRecord
    from edgetrack.capabilities import open_ref
    from edgetrack.cli.console import stderr
    from edgetrack.io import write_whole
    from edgetrack.requests.benchmark import export_for_bench

    request.check()
    with DeviceCommand(context, choice, "bench") as there:
        candidates = choose(
            request.bundles,
            request.hint,
            export=export_for_bench,
            best_target=there.profile.best_target,
            notify=stderr().print,
            places=there.profile.backends,
            profile=there.profile.name,
            here=False,
        )
        there.say("bundles", *map(there.bundle, candidates))
        there.say("precision_hint")
        there.say("source", f"--source={there.source(request.source)}")
        if request.reference is not None:
            there.say("reference", f"--reference={there.bundle(open_ref(request.reference))}")
        found = there.run("--json")
    record = found.record(BenchRecord)
    if request.output is not None:
        log = "".join(f"{line}\n" for line in found.log).encode()
        write_whole(request.output.with_name(f"{request.output.name}.log"), log)
        write_whole(request.output, record.to_json())
    return record


def _present(record: BenchRecord, as_json: bool, as_markdown: bool, percentile: int) -> None:
    from edgetrack.benchmark.table import bench_table
    from edgetrack.cli.console import stdout, write_json

    if as_json:
        write_json(record.to_json())
    elif as_markdown:
        typer.echo(bench_table(record, percentile).markdown())
    else:
        bench_table(record, percentile).show(stdout())
