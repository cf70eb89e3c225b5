"""`edgetrack compare`: whether two bundles track alike, and what the difference costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli.device import DeviceCommand, chosen_device
from edgetrack.cli.options import (
    AnchorLengthOption,
    AnchorsOption,
    DeviceOption,
    FramesOption,
    HereOption,
    HostOption,
    JobsOption,
    JsonOption,
    LayoutOption,
    MarkdownOption,
    RestartOption,
    RunsOutputOption,
    SequencesOption,
    ThreadsOption,
    split_names,
)
from edgetrack.evaluation import ANCHOR_LENGTH, ANCHOR_SPACING

if TYPE_CHECKING:
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.evaluation.comparison import CompareConfig, CompareRecord
    from edgetrack.evaluation.datasets import Dataset

REQUIREMENTS = ("equal", "not-worse")


def compare(
    context: typer.Context,
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A bundle; `A@bf16` loads it with that precision hint, `A@cuda:0` runs it there.",
            autocompletion=complete.bundles,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="The bundle that is compared with A.", autocompletion=complete.bundles),
    ],
    dataset: Annotated[
        str, typer.Option(help="A data set, as `edgetrack eval` takes it.", autocompletion=complete.datasets)
    ],
    layout: LayoutOption = None,
    sequences: SequencesOption = None,
    frames: FramesOption = None,
    anchors: AnchorsOption = ANCHOR_SPACING,
    anchor_length: AnchorLengthOption = ANCHOR_LENGTH,
    margin: Annotated[float, typer.Option(help="Points of AO that count as equal.")] = 0.5,
    jobs: JobsOption = 1,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    host: HostOption = None,
    here: HereOption = False,
    require: Annotated[
        str | None, typer.Option(help="Exit with 1 unless B is `equal` (within the margin) or `not-worse`.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw IoU of A and B over frames: .png, .svg or .pdf.")] = None,
    output: RunsOutputOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Compare bundle B with A: how far their boxes diverge, the error on the same crops, and AO with a verdict."""
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.cli.evaluate import resumable_progress
    from edgetrack.errors import UnknownNameError, UsageError
    from edgetrack.evaluation.comparison import SUMMARY
    from edgetrack.evaluation.comparison import compare as run
    from edgetrack.evaluation.comparison_report import check_plot, compare_table, draw_plot
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.io import encode_json, write_whole
    from edgetrack.requests import folder_or_file
    from edgetrack.requests.evaluation import compare_config

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if require is not None and require not in REQUIREMENTS:
        raise UnknownNameError.of("--require", require, REQUIREMENTS)
    if plot is not None:
        check_plot(plot)
    folder, file = folder_or_file(output)
    choice = chosen_device(device, host, here)
    config = compare_config(
        a,
        b,
        choice,
        dataset=dataset,
        layout=layout,
        sequences=split_names(sequences),
        frames=frames,
        anchors=anchors,
        anchor_length=anchor_length,
        margin=margin,
        jobs=jobs,
        threads=threads,
        output=folder,
        restart=restart,
    )
    if choice.host is None:
        with resumable_progress() as progress:
            found = run(config, progress)
    else:
        found = _compared_there(context, choice, config, open_dataset(dataset, layout))
    if file is not None:
        write_whole(file, encode_json(found), b"\n")
    if plot is not None:
        draw_plot(found, plot)
    if as_json:
        print_json(found)
    elif as_markdown:
        typer.echo(compare_table(found).markdown())
    else:
        console = stdout()
        compare_table(found).show(console)
        console.print(f"runs and {config.folder / SUMMARY} are kept")
    if found.failures or not _meets(found, require):
        raise typer.Exit(1)


def _compared_there(
    context: typer.Context, choice: DeviceChoice, config: CompareConfig, whole: Dataset
) -> CompareRecord:
    from edgetrack.evaluation.comparison import SUMMARY, CompareRecord, runs_of
    from edgetrack.evaluation.execution.ledger import folder_for, save

    with DeviceCommand(context, choice, "compare") as there:
        there.say("dataset", f"--dataset={there.dataset(config.runs.dataset, whole)}")
        for name in ("require", "plot"):
            there.say(name)
        for name, ref in (("a", config.a), ("b", config.b)):
            there.say(name, there.bundle(ref))
            there.runs(ref, folder_for(ref, runs_of(config, ref)))
        found = there.run("--json").record(CompareRecord)
    save(found, config.folder / SUMMARY)
    return found


def _meets(found: CompareRecord, require: str | None) -> bool:
    from edgetrack.cli.console import stderr

    if require is None:
        return True
    delta = found.delta_ao
    if delta is None:
        met, why = False, "there are too few anchored runs to say"
    else:
        met, why = delta.equal if require == "equal" else delta.not_worse, delta.describe()
    if not met:
        stderr(failure=True).print(f"--require {require} is not met: {why}")
    return met
