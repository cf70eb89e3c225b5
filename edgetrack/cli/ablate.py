"""`edgetrack ablate`: a table of a tracker's configurations, as its paper has one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetrack.capabilities import best_target
from edgetrack.cli import complete
from edgetrack.cli.evaluate import resumable_progress
from edgetrack.cli.options import (
    FramesOption,
    JobsOption,
    JsonOption,
    LayoutOption,
    MarkdownOption,
    SequencesOption,
    SourceOption,
    ThreadsOption,
    split_names,
)


def ablate(
    tracker: Annotated[
        str,
        typer.Argument(
            help="A tracker's name (see `edgetrack list --trackers`) or a recipe file.",
            autocompletion=complete.trackers,
        ),
    ],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=A,B,C",
            help="Values of a key of the recipe to compare, or KEY alone for all that it takes. Of several --over, "
            "every combination.",
        ),
    ],
    one_by_one: Annotated[
        bool,
        typer.Option("--one-by-one", help="Of several --over, change one key at a time instead of every combination."),
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="Measure accuracy on this data set, as `edgetrack eval` takes it. Default: it is not."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key in all of them. May be repeated.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Target to export for. Default: the first that is installed.", autocompletion=complete.targets
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of the bundles.")] = "fp32",
    weights: Annotated[
        str | None,
        typer.Option(help="As of `export`. A configuration that they are not of gets untrained ones, and is named so."),
    ] = None,
    layout: LayoutOption = None,
    sequences: SequencesOption = None,
    frames: FramesOption = None,
    jobs: JobsOption = 1,
    threads: ThreadsOption = None,
    bench: Annotated[bool, typer.Option(help="Measure speed and memory, all of them in turns.")] = True,
    source: SourceOption = None,
    duration: Annotated[str, typer.Option(metavar="TIME", help="Time of each configuration, as 6s.")] = "6s",
    iterations: Annotated[int, typer.Option(min=1, help="Frames of each configuration, at least.")] = 150,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, in turns with the others.")] = 4,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of bundles, results and page. Default: out/ablate/<tracker>."),
    ] = None,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Export a tracker's configurations, measure them in turns, evaluate them, and make one table of them."""
    from edgetrack.ablation.run import BENCH, MARKDOWN, AblationRequest
    from edgetrack.ablation.run import ablate as run
    from edgetrack.ablation.table import ablation_table
    from edgetrack.benchmark.config import DEFAULT_SOURCE, BenchConfig
    from edgetrack.cli.console import print_json, stderr, stdout
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.io import parse_duration

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other; give one of them")
    seconds = parse_duration(duration, "--duration")
    config = BenchConfig(threads=threads or 0, duration_s=seconds, iterations=iterations, rounds=rounds)
    folder = output or Path("out/ablate") / Path(tracker).stem
    request = AblationRequest(
        tracker,
        tuple(over),
        folder,
        None if dataset is None else open_dataset(dataset, layout).select(split_names(sequences)),
        target or best_target().name,
        settings=tuple(settings or ()),
        one_by_one=one_by_one,
        precision=precision,
        weights=weights,
        frames=frames,
        jobs=jobs,
        threads=threads,
        bench=config if bench else None,
        source=source or DEFAULT_SOURCE,
    )
    with resumable_progress() as progress:
        record = run(request, progress, lambda line: stderr().print(line, markup=False, soft_wrap=True))
    page = _page(
        folder, tracker, [folder / BENCH] if bench else [], [row.bundle for row in record.rows] if dataset else []
    )
    if as_json:
        print_json(record)
    elif as_markdown:
        typer.echo(ablation_table(record).markdown())
    else:
        ablation_table(record).show(stdout())
        stdout().print(f"{folder / MARKDOWN} and {page} are kept" if page else f"{folder / MARKDOWN} is kept")
    if not record.ok:
        raise typer.Exit(1)


def _page(folder: Path, tracker: str, records: list[Path], evaluated: list[str]) -> Path | None:
    """The report's page of all results, where what it needs is installed."""
    from edgetrack.cli.console import stderr
    from edgetrack.errors import BackendMissingError
    from edgetrack.evaluation.run import SUMMARY
    from edgetrack.io import write_whole
    from edgetrack.presentation.sanitize import printable
    from edgetrack.report.model import read_results
    from edgetrack.report.page import html
    from edgetrack.resources import require_extra

    try:
        require_extra("the page", "report", "jinja2", "markupsafe", "matplotlib")
    except BackendMissingError as error:
        stderr().print(f"no page: {error}")
        return None
    results = read_results([*records, *(folder / "eval" / name / SUMMARY for name in evaluated)])
    page = folder / "report.html"
    write_whole(page, html(results, None, printable(f"Configurations of {Path(tracker).stem}")).encode())
    return page
