"""`edgetrack report`: one page from the results of bench, eval and compare."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli.options import LayoutOption, OverwriteOption
from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.report.model import Results


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...", help="Files that bench, eval and compare wrote with --output, or folders."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report to this file. Default: out/report.html.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A data set, as `edgetrack eval` takes it: shows its frames.")
    ] = None,
    layout: LayoutOption = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Title of the page. Default: edgetrack report, or leaderboard.")
    ] = None,
    leaderboard: Annotated[
        bool,
        typer.Option("--leaderboard", help="Set benchmarks of several machines side by side, see docs/results.md."),
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Write Markdown instead of a page; to stdout without --output.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Make one self-contained page: what is fastest, what is most accurate, what is not worth it, and why."""
    from edgetrack.io import check_output
    from edgetrack.presentation.sanitize import printable
    from edgetrack.resources import require_extra

    require_extra("edgetrack report", "report", "jinja2", "markupsafe", "matplotlib")
    from edgetrack.report.model import LONGEST_TEXT, read_results
    from edgetrack.report.page import html, markdown

    path = output or (None if as_markdown else Path(f"out/{'leaderboard' if leaderboard else 'report'}.html"))
    if layout is not None and dataset is None:
        raise UsageError("--layout is the layout of a data set; give it with --dataset")
    if dataset is not None and as_markdown:
        raise UsageError("--dataset is for the frames of a page; Markdown shows none: leave one of the two out")
    if leaderboard and (as_markdown or dataset is not None):
        raise UsageError("--leaderboard makes a page of benchmarks; leave --markdown and --dataset out")
    check_output(path, overwrite=overwrite)
    results = read_results(paths)
    title = printable(title or f"edgetrack {'leaderboard' if leaderboard else 'report'}", LONGEST_TEXT)
    if leaderboard and path is not None:
        _write_leaderboard(results, title, path)
        return
    if as_markdown:
        made = markdown(results, title)
    else:
        from edgetrack.evaluation.datasets import open_dataset

        opened = None if dataset is None else open_dataset(dataset, layout)
        if opened is not None and opened.name not in {found.value.dataset for found in results.comparisons}:
            names = ", ".join(sorted({found.value.dataset for found in results.comparisons})) or "no comparison"
            raise UsageError(f"--dataset {dataset} is {opened.name!r}; the results hold comparisons on: {names}")
        made = html(results, opened, title, datetime.now(timezone.utc))
    _write(made, path, results)


def _write_leaderboard(results: Results, title: str, path: Path) -> None:
    from edgetrack.cli.console import stderr, stdout
    from edgetrack.io import write_whole
    from edgetrack.report.leaderboard import admitted, contents, lines, page

    entries = admitted(results)
    for skipped in entries.skipped:
        stderr().print(f"left out: {skipped.source}: {skipped.reason}")
    made = page(entries, title, datetime.now(timezone.utc)).encode()
    write_whole(path, made)
    console = stdout()
    for line in lines(entries):
        console.print(line)
    console.print(f"{path} ({len(made) / 1000:.0f} kB) holds {contents(entries)}")


def _write(made: str, path: Path | None, results: Results) -> None:
    from edgetrack.cli.console import stderr, stdout
    from edgetrack.io import write_whole
    from edgetrack.report.findings import findings
    from edgetrack.report.page import contents, missing

    for skipped in results.skipped:
        stderr().print(f"left out: {skipped.source}: {skipped.reason}")
    for what, command in missing(results):
        stderr().print(f"not in this report: {what}; make it with: {command}")
    if path is None:
        typer.echo(made, nl=False)
        return
    write_whole(path, made.encode())
    console = stdout()
    for finding in findings(results):
        console.print(finding.line())
    console.print(f"{path} ({len(made.encode()) / 1000:.0f} kB) holds {contents(results)}")
