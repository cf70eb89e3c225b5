"""`edgetrack report`: one page from the results of bench, eval and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.report.model import Results


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...", help="What bench, eval and compare wrote with --output, or folders of it."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; out/report.html if left out.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A data set, as `edgetrack eval` takes it: shows frames of comparisons on it.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="How the data set lies on disk; found out if left out.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "edgetrack report",
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Markdown in place of a page; to stdout without --output.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Make one self-contained page: what is fastest, what is most accurate, what is not worth it, and why."""
    from edgetrack.presentation.sanitize import printable
    from edgetrack.report.html import check_packages
    from edgetrack.report.reading import LONGEST_TEXT, read_results

    path = output or (None if as_markdown else Path("out/report.html"))
    if layout is not None and dataset is None:
        raise UsageError("--layout says how a data set lies on disk; give it with --dataset")
    if dataset is not None and as_markdown:
        raise UsageError("--dataset is for the frames of a page; Markdown shows none: leave one of the two out")
    if path is not None and path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give --overwrite to replace it, or another --output")
    check_packages()
    results = read_results(paths)
    if as_markdown:
        from edgetrack.report.markdown import markdown

        made = markdown(results, printable(title, LONGEST_TEXT))
    else:
        made = _page(results, dataset, layout, printable(title, LONGEST_TEXT))
    _write(made, path, results)


def _page(results: Results, dataset: str | None, layout: str | None, title: str) -> str:
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.report.html import html

    opened = None if dataset is None else open_dataset(dataset, layout)
    if opened is not None and opened.name not in {found.value.dataset for found in results.comparisons}:
        names = ", ".join(sorted({found.value.dataset for found in results.comparisons})) or "no comparison"
        raise UsageError(f"--dataset {dataset} is {opened.name!r}; the results hold comparisons on: {names}")
    return html(results, opened, title)


def _write(made: str, path: Path | None, results: Results) -> None:
    from edgetrack.cli.console import stderr, stdout
    from edgetrack.files import write_whole
    from edgetrack.report.sentences import findings
    from edgetrack.report.words import contents, missing

    for skipped in results.skipped:
        stderr().print(f"left out: {skipped.source}: {skipped.reason}", markup=False, soft_wrap=True)
    for what, command in missing(results):
        stderr().print(f"not in this report: {what}; make it with: {command}", markup=False, soft_wrap=True)
    if path is None:
        typer.echo(made, nl=False)
        return
    write_whole(path, made.encode())
    console = stdout()
    for finding in findings(results):
        console.print(finding.line(), markup=False, soft_wrap=True)
    console.print(
        f"{path} ({len(made.encode()) / 1000:.0f} kB) holds {contents(results)}", markup=False, soft_wrap=True
    )
