"""`edgetrack compare`: whether two bundles track alike, and what the difference costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgetrack.evaluation.comparison import Request
    from edgetrack.evaluation.comparison_record import Comparison

REQUIREMENTS = ("equal", "not-worse")


def compare(
    a: Annotated[str, typer.Argument(metavar="A[@HINT]", help="A bundle; `@bf16` loads it with that precision hint.")],
    b: Annotated[str, typer.Argument(metavar="B[@HINT]", help="The bundle that is held against it.")],
    dataset: Annotated[str, typer.Option(help="A data set, as `edgetrack eval` takes it.")],
    layout: Annotated[str | None, typer.Option(help="How the data set lies on disk; found out if left out.")] = None,
    sequences: Annotated[list[str] | None, typer.Option(help="Only these sequences: a,b,c.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Only so many frames of each sequence.")] = None,
    anchors: Annotated[int, typer.Option(help="Restart both at every so many frames.")] = 25,
    anchor_length: Annotated[int, typer.Option(help="Frames of a run from an anchor.")] = 50,
    margin: Annotated[float, typer.Option(help="Points of AO that count as equal.")] = 0.5,
    jobs: Annotated[int, typer.Option(help="Sequences at a time, each in a process.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads of an inference; the usable cores shared among jobs if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run both: cpu.")] = "cpu",
    require: Annotated[
        str | None, typer.Option(help="Exit with 1 unless B is `equal` (within the margin) or `not-worse`.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw IoU of A and B over frames: .png, .svg or .pdf.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep runs and comparison.json here; see docs if left out.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Track again what is kept from an earlier run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Hold bundle B against A: how far their boxes diverge, the error on the same crops, and AO with a verdict."""
    from edgetrack.capabilities import open_refs
    from edgetrack.cli.options import split_names
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.anchors import AnchorPlan
    from edgetrack.evaluation.comparison import Request
    from edgetrack.evaluation.comparison_plot import check_plot, draw
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.evaluation.difference import POINTS

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    if require is not None and require not in REQUIREMENTS:
        raise UsageError(f"--require {require}: expected one of {', '.join(REQUIREMENTS)}")
    if plot is not None:
        check_plot(plot)
    opened = open_dataset(dataset, layout)
    one, other = open_refs([a, b])
    request = Request(
        a=one,
        b=other,
        dataset=opened if (chosen := split_names(sequences)) is None else opened.select(chosen),
        plan=AnchorPlan(anchors, anchor_length),
        margin=margin / POINTS,
        jobs=jobs,
        threads=threads,
        frames=frames,
        device=device,
        output=output,
        restart=restart,
    )
    found = _compare(request)
    if plot is not None:
        draw(found, plot)
    _present(found, request, as_json, as_markdown)
    if found.failures or not _meets(found, require):
        raise typer.Exit(1)


def _meets(found: Comparison, require: str | None) -> bool:
    from edgetrack.cli.console import stderr

    if require is None:
        return True
    delta = found.delta_ao
    if delta is None:
        met, why = False, "there are too few runs from anchors to say"
    else:
        met, why = delta.equal if require == "equal" else delta.not_worse, delta.describe()
    if not met:
        stderr().print(f"--require {require} is not met: {why}", markup=False, soft_wrap=True)
    return met


def _compare(request: Request) -> Comparison:
    from edgetrack.cli.evaluate import shown_progress
    from edgetrack.evaluation.comparison import compare as run

    with shown_progress(len(request.dataset.entries)) as progress:
        return run(request, progress)


def _present(found: Comparison, request: Request, as_json: bool, as_markdown: bool) -> None:
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.evaluation import comparison_report as report
    from edgetrack.evaluation.comparison import SUMMARY

    if as_json:
        print_json(found)
    elif as_markdown:
        typer.echo(report.markdown(found))
    else:
        console = stdout()
        console.print(report.table(found))
        for note in report.notes(found):
            console.print(note, markup=False, soft_wrap=True)
        console.print(f"runs and {request.folder / SUMMARY} are kept", markup=False, soft_wrap=True)
