"""`edgetrack eval`: how well a bundle tracks on an annotated data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli.device import DeviceCommand, chosen_device
from edgetrack.cli.options import (
    BundleArgument,
    DeviceOption,
    FramesOption,
    HereOption,
    HostOption,
    JobsOption,
    JsonOption,
    LayoutOption,
    MarkdownOption,
    PrecisionHintOption,
    RecoverOption,
    RestartOption,
    RunsOutputOption,
    SequencesOption,
    ThreadsOption,
    split_names,
)

if TYPE_CHECKING:
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.evaluation.datasets import Dataset
    from edgetrack.evaluation.results import EvalResult
    from edgetrack.presentation.progress import Progress
    from edgetrack.requests.evaluation import EvalWork

_NAMED = 5


def evaluate(
    context: typer.Context,
    bundle: BundleArgument,
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set's folder or name, a video with its boxes in a .txt beside it, or synthetic:[NAME].",
            autocompletion=complete.datasets,
        ),
    ],
    jobs: JobsOption = 1,
    threads: ThreadsOption = None,
    layout: LayoutOption = None,
    sequences: SequencesOption = None,
    frames: FramesOption = None,
    device: DeviceOption = None,
    host: HostOption = None,
    here: HereOption = False,
    precision_hint: PrecisionHintOption = None,
    output: RunsOutputOption = None,
    restart: RestartOption = False,
    results: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="KIND DIR", help="Write files for an official server: got10k or trackingnet."),
    ] = None,
    anchors: Annotated[
        int | None, typer.Option(help="Also restart the tracker every N frames and run it forwards and backwards.")
    ] = None,
    anchor_length: Annotated[
        int | None, typer.Option(help="Frames of an anchored run. Default with --anchors: 50.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Also track frames that arrive at this rate; boxes that miss their frame are scored late."),
    ] = None,
    latencies: Annotated[
        str | None,
        typer.Option(metavar="FILE[:BUNDLE]", help="For --fps: replay what `bench -o` recorded, instead of measuring."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Description of every target, as `track` takes it. Default: each sequence's nlp.txt."),
    ] = None,
    text_noise: Annotated[
        str | None,
        typer.Option(
            metavar="KIND[:SEED]",
            help="Say something wrong: swap (another sequence's phrases), drop (some of them), shuffle (attributes).",
        ),
    ] = None,
    recover: RecoverOption = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Track on the workers of this Dask scheduler: tcp://HOST:8786.")
    ] = None,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Track every sequence of a data set from its first box; print AO, SR, AUC, precision and their intervals."""
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.evaluation.results import EvalRecord, eval_tables
    from edgetrack.evaluation.run import SUMMARY
    from edgetrack.evaluation.run import evaluate as run
    from edgetrack.evaluation.submission import write_results
    from edgetrack.io import encode_json, write_whole
    from edgetrack.presentation.table import show_all
    from edgetrack.requests.evaluation import eval_work

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    choice = chosen_device(device, host, here)
    work = eval_work(
        bundle,
        dataset,
        choice,
        jobs=jobs,
        threads=threads,
        layout=layout,
        sequences=split_names(sequences),
        frames=frames,
        precision_hint=precision_hint,
        output=output,
        restart=restart,
        results=results,
        anchors=anchors,
        anchor_length=anchor_length,
        fps=fps,
        latencies=latencies,
        text=text or (),
        text_noise=text_noise,
        recover=recover,
        scheduler=scheduler,
    )
    if choice.host is None:
        with resumable_progress() as progress:
            found = run(work.ref, work.config, progress)
        if results is not None:
            write_results(*results, found.result.bundle, found.runs)
        result, kept = found.result, found.folder
    else:
        whole = open_dataset(dataset, layout)
        result, kept = _evaluated_there(context, choice, work, whole, latencies, results)
    if work.file is not None:
        write_whole(work.file, encode_json(EvalRecord(results=[result])), b"\n")
    if as_json:
        print_json(EvalRecord(results=[result]))
    elif as_markdown:
        typer.echo("\n\n".join(table.markdown() for table in eval_tables(result)))
    else:
        console = stdout()
        show_all(eval_tables(result), console)
        console.print(f"runs and {kept / SUMMARY} are kept")
    if result.failures:
        raise typer.Exit(1)


def _evaluated_there(
    context: typer.Context,
    choice: DeviceChoice,
    work: EvalWork,
    whole: Dataset,
    latencies: str | None,
    results: tuple[str, Path] | None,
) -> tuple[EvalResult, Path]:
    """The result, and the folder here that its runs came to."""
    from edgetrack.devices.protocol import RESULTS
    from edgetrack.errors import EdgetrackError, UsageError
    from edgetrack.evaluation.execution.ledger import folder_for
    from edgetrack.evaluation.results import EvalRecord
    from edgetrack.evaluation.run import save_summary

    ref, config = work.ref, work.config
    if config.scheduler is not None:
        raise UsageError("--scheduler and a device exclude each other; give one of them")
    folder = folder_for(ref, config)
    with DeviceCommand(context, choice, "eval") as there:
        there.say("bundle", there.bundle(ref))
        there.say("precision_hint")
        there.say("dataset", there.dataset(config.dataset, whole))
        there.runs(ref, folder)
        if latencies is not None and config.streaming is not None and config.streaming.recorded is not None:
            label = config.streaming.recorded.label
            path = latencies if Path(latencies).is_file() else latencies.rpartition(":")[0]
            there.say("latencies", f"--latencies={there.file(path)}:{label}")
        if results is not None:
            there.say("results", "--results", results[0], f"{RESULTS}/{results[0]}")
            there.wants(f"{RESULTS}/{results[0]}", results[1], re.compile(".*"))
        found = there.run("--json")
    rows = found.record(EvalRecord).results
    if len(rows) != 1:
        raise EdgetrackError(f"{found.host} sent {len(rows)} results; expected one")
    save_summary(rows[0], folder)
    return rows[0], folder


@contextmanager
def resumable_progress() -> Iterator[Progress]:
    """The progress of an evaluation on stderr, and which runs were kept; Ctrl-C says that it can be resumed."""
    from edgetrack.cli.console import stderr
    from edgetrack.evaluation.execution.ledger import KEPT
    from edgetrack.presentation.progress import shown_progress

    console = stderr()
    kept: list[str] = []
    with shown_progress(console) as progress:

        def note(what: str, step: int, total: int) -> None:
            if what.endswith(KEPT):
                kept.append(what.removesuffix(f": {KEPT}"))
            progress(what, step, total)

        try:
            yield note
            if kept:
                console.print(
                    f"{KEPT}: {', '.join(kept[:_NAMED])}{f' and {len(kept) - _NAMED} more' if kept[_NAMED:] else ''}; "
                    "--restart makes them again"
                )
        except KeyboardInterrupt:
            console.print("interrupted; finished sequences are kept, the same command resumes")
            raise
