"""`edgetrack check`: the gate. A bundle against a budget: pass, fail or undecided."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.gate.options import Options, Surroundings
    from edgetrack.gate.record import Report

_WIDE = 200


def check(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE[@HINT]|FILE.json[:NAME]", help="What is checked.")],
    budget: Annotated[str, typer.Option(help="A budget's TOML file, or the name of a shipped one: smat-cpu.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE[@HINT]|FILE.json[:NAME]",
            help="What it is held against: a bundle is measured beside it, a file of `bench -o` is only read.",
        ),
    ] = None,
    baseline_python: Annotated[
        Path | None, typer.Option(help="Run the baseline with the edgetrack of this Python: ENV/bin/python.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="For delta_ao_points: a data set, as `eval` takes it.")] = None,
    layout: Annotated[str | None, typer.Option(help="How the data set lies on disk; found out if left out.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to run; the budget's, or cpu, if left out.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of both; the budget's, or all usable cores, if left out.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Frames: video, folder or synthetic:NAME; a 1280x720 scene if left out.")
    ] = None,
    box: Annotated[str | None, typer.Option(help="Target in the first frame, x,y,w,h; else the ground truth.")] = None,
    max_time: Annotated[float, typer.Option(help="Seconds to measure at most; ends as soon as all is decided.")] = 180,
    timeout: Annotated[float, typer.Option(help="Longest wait for one answer, in seconds.")] = 120.0,
    undecided_exit: Annotated[
        int, typer.Option(metavar="CODE", help="Exit code for undecided: 0, 1, or one of 5 to 125.")
    ] = 1,
    force: Annotated[bool, typer.Option("--force", help="Compare with a record that was not made alike.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, with every sample.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations and write the summary of a GitHub workflow's step.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as JSON here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
) -> None:
    """Hold a bundle against a budget and a baseline: pass (exit code 0), fail (1) or undecided (--undecided-exit)."""
    from edgetrack.box import Box
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.files import write_whole
    from edgetrack.gate.budget import find_budget
    from edgetrack.gate.check import check as run
    from edgetrack.gate.junit import junit as as_junit
    from edgetrack.gate.options import Options

    if as_json + as_markdown + github > 1:
        raise UsageError("--json, --markdown and --github exclude each other; give one of them, and -o for the JSON")
    if layout is not None and dataset is None:
        raise UsageError("--layout is for a data set; add --dataset, or leave it out")
    for path in (junit, output):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(f"{path} exists; give another path, or --overwrite")
    summary = _summary() if github else None
    options = Options(
        budget=find_budget(budget),
        bundle=bundle,
        baseline=baseline,
        baseline_python=baseline_python,
        dataset=None if dataset is None else open_dataset(dataset, layout),
        device=device,
        threads=threads,
        source=source,
        box=None if box is None else Box.parse(box),
        max_time_s=max_time,
        timeout_s=timeout,
        undecided_exit=undecided_exit,
        force=force,
    )
    with _around(options) as around:
        found = run(options, around)
    if output is not None:
        write_whole(output, found.to_json())
    if junit is not None:
        write_whole(junit, as_junit(found))
    _present(found, as_json, as_markdown, summary)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _summary() -> Path:
    from edgetrack.gate.github import summary_file

    return summary_file(os.environ)


@contextmanager
def _around(options: Options) -> Iterator[Surroundings]:
    """What the check needs from outside; what happens is told on stderr."""
    import time

    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from edgetrack.cli.console import stderr
    from edgetrack.gate.options import Surroundings

    console = stderr()
    # Drawn only when something begins: a display that refreshes itself takes time from what is measured.
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def progress(what: str) -> None:
            bar.update(task, description=f"{what} (measures {options.max_time_s:.0f} s at most)", refresh=True)

        def evaluating(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"AO {done}/{total}: {what}", refresh=True)

        yield Surroundings(progress=progress, evaluating=evaluating, clock=time.monotonic)


def _present(found: Report, as_json: bool, as_markdown: bool, summary: Path | None) -> None:
    from rich.console import Console

    from edgetrack.gate import github, present

    if as_json:
        sys.stdout.write(found.to_json().decode())
        return
    if as_markdown:
        typer.echo(present.markdown(found))
        return
    if summary is not None:
        github.append_summary(found, summary)
        for line in github.commands(found):
            typer.echo(line)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(present.table(found))
    for note in present.notes(found):
        console.print(note, markup=False, soft_wrap=True)
    console.print(present.headline(found), markup=False, soft_wrap=True)
