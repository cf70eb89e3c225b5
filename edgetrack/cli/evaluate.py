"""`edgetrack eval`: how well a bundle tracks on an annotated data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgetrack.evaluation.anchors import AnchorPlan
    from edgetrack.evaluation.options import Options
    from edgetrack.evaluation.run import Evaluation
    from edgetrack.evaluation.tasks import Streamed

ANCHOR_LENGTH = 50


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, zip or name.")],
    dataset: Annotated[
        str,
        typer.Argument(help="A data set's folder, a video with its boxes in a .txt beside it, or synthetic:[NAME]."),
    ],
    jobs: Annotated[int, typer.Option(help="Sequences at a time, each in a process.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads of an inference; the usable cores shared among jobs if left out.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="How the data set lies on disk; found out if left out.")] = None,
    sequences: Annotated[list[str] | None, typer.Option(help="Only these sequences: a,b,c.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Only so many frames of each sequence.")] = None,
    device: Annotated[str, typer.Option(help="Where to run: cpu.")] = "cpu",
    precision_hint: Annotated[str | None, typer.Option(help="Arithmetic to ask the backend for: bf16.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep runs here; out/eval/BUNDLE/DATASET if left out.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Track again what is kept from an earlier run.")] = False,
    results: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="KIND DIR", help="Write files for an official server: got10k or trackingnet."),
    ] = None,
    anchors: Annotated[
        int | None, typer.Option(help="Also restart at every so many frames, forwards and backwards.")
    ] = None,
    anchor_length: Annotated[
        int | None, typer.Option(help=f"Frames of a run from an anchor; {ANCHOR_LENGTH} if left out.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Also track under a clock: frames come at this rate, and late boxes are late."),
    ] = None,
    latencies: Annotated[
        str | None,
        typer.Option(metavar="FILE[:BUNDLE]", help="For --fps: replay what `bench -o` recorded, instead of measuring."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="What is said of every target, as `track` takes it; else as the sequences' nlp.txt says."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Track on the workers of this Dask scheduler: tcp://HOST:8786.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Track every sequence of a data set from its first box; AO, SR, AUC, precision, and their intervals."""
    from edgetrack.cli.options import split_names
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.evaluation.options import Options
    from edgetrack.evaluation.submission import check_kind, write_results
    from edgetrack.runtime.text import parse_text

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if results is not None:
        check_kind(results[0])
        if frames is not None:
            raise UsageError("--results wants whole sequences; leave --frames out")
    opened = replace(open_dataset(dataset, layout), text=parse_text(text or []))
    options = Options(
        bundle=bundle,
        dataset=opened if (chosen := split_names(sequences)) is None else opened.select(chosen),
        jobs=jobs,
        threads=threads,
        frames=frames,
        device=device,
        precision_hint=precision_hint,
        output=output,
        restart=restart,
        anchors=_plan(anchors, anchor_length),
        streaming=_streaming(fps, latencies, bundle, precision_hint),
        scheduler=scheduler,
    )
    found = _evaluate(options)
    if results is not None:
        write_results(*results, found.result.bundle, found.runs)
    _present(found, as_json, as_markdown)
    if found.result.failures:
        raise typer.Exit(1)


def _plan(spacing: int | None, length: int | None) -> AnchorPlan | None:
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.anchors import AnchorPlan

    if spacing is None:
        if length is not None:
            raise UsageError("--anchor-length is for runs from anchors; add --anchors, such as --anchors 25")
        return None
    return AnchorPlan(spacing, ANCHOR_LENGTH if length is None else length)


def _streaming(fps: float | None, latencies: str | None, bundle: str, hint: str | None) -> Streamed | None:
    from edgetrack.bundle import open_bundle
    from edgetrack.bundle.ref import bundle_label
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.latencies import read_latencies
    from edgetrack.evaluation.streaming import check_fps
    from edgetrack.evaluation.tasks import Streamed

    if fps is None:
        if latencies is not None:
            raise UsageError("--latencies are for a clock; add --fps, such as --fps 30")
        return None
    check_fps(fps)
    if latencies is None:
        return Streamed(fps)
    with open_bundle(bundle) as opened:
        name = opened.manifest.name
    return Streamed(fps, read_latencies(latencies, bundle_label(name, hint)))


def _evaluate(options: Options) -> Evaluation:
    from edgetrack.evaluation.run import evaluate as run

    with shown_progress(len(options.dataset.entries)) as progress:
        return run(options, progress)


@contextmanager
def shown_progress(sequences: int) -> Iterator[Callable[[str, int, int], None]]:
    """What an evaluation tells, on stderr: a bar on a terminal, a line each elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edgetrack.cli.console import stderr

    console = stderr()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the data set", total=sequences)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=what)
            if not console.is_terminal:
                console.print(f"{done}/{total} {what}", markup=False, soft_wrap=True)

        try:
            yield progress
        except KeyboardInterrupt:
            console.print("interrupted; finished sequences are kept, the same command goes on", markup=False)
            raise


def _present(found: Evaluation, as_json: bool, as_markdown: bool) -> None:
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.evaluation import present
    from edgetrack.evaluation.record import Record

    if as_json:
        print_json(Record(results=[found.result]))
    elif as_markdown:
        typer.echo(present.markdown(found.result))
    else:
        console = stdout()
        console.print(present.table(found.result))
        for note in present.notes(found.result):
            console.print(note, markup=False, soft_wrap=True)
        console.print(f"runs and {found.folder / 'results.json'} are kept", markup=False, soft_wrap=True)
