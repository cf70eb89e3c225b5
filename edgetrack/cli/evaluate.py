"""`edgetrack eval`: how well a bundle tracks on an annotated data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from edgetrack.bundle.reader import BundleRef
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.evaluation.config import EvalConfig
    from edgetrack.evaluation.datasets import Dataset
    from edgetrack.evaluation.protocols.anchored import Anchored
    from edgetrack.evaluation.protocols.streaming import Streaming
    from edgetrack.evaluation.results import EvalResult
    from edgetrack.presentation.progress import Progress

_NAMED = 5


def evaluate(
    context: typer.Context,
    bundle: BundleArgument,
    dataset: Annotated[
        str,
        typer.Argument(help="A data set's folder, a video with its boxes in a .txt beside it, or synthetic:[NAME]."),
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
    from edgetrack.capabilities import open_ref
    from edgetrack.cli.console import folder_or_file, print_json, stdout
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.config import EvalConfig
    from edgetrack.evaluation.results import EvalRecord, eval_tables
    from edgetrack.evaluation.run import SUMMARY
    from edgetrack.evaluation.run import evaluate as run
    from edgetrack.evaluation.submission import check_kind, write_results
    from edgetrack.evaluation.text_noise import TextNoise, with_noise
    from edgetrack.io import encode_json, write_whole
    from edgetrack.presentation.table import show_all
    from edgetrack.runtime.prompt import parse_text
    from edgetrack.runtime.trackers.base import find_procedure

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if results is not None:
        check_kind(results[0])
        if frames is not None:
            raise UsageError("--results wants whole sequences; leave --frames out")
    opened = replace(select_dataset(dataset, layout, sequences), text=parse_text(text or []))
    choice = chosen_device(device, host, here)
    ref = choice.placed(open_ref(bundle if precision_hint is None else f"{bundle}@{precision_hint}"))
    folder, file = folder_or_file(output)
    noise = None
    if text_noise is not None:
        prompt = find_procedure(ref.manifest).prompt_of(ref.manifest)
        opened, noise = with_noise(opened, TextNoise.parse(text_noise), prompt)
    config = EvalConfig(
        dataset=opened,
        jobs=jobs,
        threads=threads,
        frames=frames,
        device=choice.device,
        profile=choice.profile_name,
        output=folder,
        restart=restart,
        anchors=_anchored(anchors, anchor_length),
        streaming=_streaming(fps, latencies, ref),
        text_noise=noise,
        recover="expand" if recover else None,
        scheduler=scheduler,
    )
    if choice.host is None:
        with resumable_progress() as progress:
            found = run(ref, config, progress)
        if results is not None:
            write_results(*results, found.result.bundle, found.runs)
        result, kept = found.result, found.folder
    else:
        whole = select_dataset(dataset, layout, None)
        result, kept = _evaluated_there(context, choice, ref, config, whole, latencies, results)
    if file is not None:
        write_whole(file, encode_json(EvalRecord(results=[result])), b"\n")
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
    ref: BundleRef,
    config: EvalConfig,
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


def select_dataset(path: str, layout: str | None, sequences: list[str] | None) -> Dataset:
    """The data set, with the sequences that `--sequences` names."""
    from edgetrack.evaluation.datasets import open_dataset

    opened = open_dataset(path, layout)
    chosen = split_names(sequences)
    return opened if chosen is None else opened.select(chosen)


def _anchored(spacing: int | None, length: int | None) -> Anchored | None:
    from edgetrack.errors import UsageError
    from edgetrack.evaluation import ANCHOR_LENGTH
    from edgetrack.evaluation.protocols.anchored import Anchored

    if spacing is not None:
        return Anchored(spacing, ANCHOR_LENGTH if length is None else length)
    if length is not None:
        raise UsageError("--anchor-length is for anchored runs; add --anchors, such as --anchors 25")
    return None


def _streaming(fps: float | None, latencies: str | None, ref: BundleRef) -> Streaming | None:
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.protocols.streaming import Streaming, read_latencies

    if fps is not None:
        task = Streaming(fps)
        return task if latencies is None else replace(task, recorded=read_latencies(latencies, ref.label))
    if latencies is not None:
        raise UsageError("--latencies are for a frame rate; add --fps, such as --fps 30")
    return None


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
