"""`edgetrack check`: the gate. A bundle against a budget: pass, fail or undecided."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli import options as shared
from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.gate.report import GateReport


def check(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE[@HINT]|FILE.json[:NAME]", help="The candidate: a bundle, or a result of `bench -o`."
        ),
    ],
    budget: Annotated[
        str, typer.Option("--budget", help="A budget's TOML file, or the name of a shipped one: smat-cpu.")
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="BUNDLE[@HINT]|FILE.json[:NAME]",
            help="Compare with this: a bundle is measured beside the candidate, a file of `bench -o` is read.",
        ),
    ] = None,
    baseline_python: Annotated[
        Path | None,
        typer.Option("--baseline-python", help="Run the baseline with the edgetrack of this Python: ENV/bin/python."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A data set, as `edgetrack eval` takes it, for delta_ao_points.")
    ] = None,
    layout: shared.LayoutOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where to run: cpu or cuda:0. Default: the budget's, or cpu.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="Threads per inference. Default: the budget's, or all usable cores."),
    ] = None,
    source: shared.SourceOption = None,
    box: shared.BoxOption = None,
    max_time: Annotated[
        str,
        typer.Option(
            "--max-time",
            metavar="TIME",
            help="Longest time to measure, as 180s or 3m, kept to within one block. Ends earlier once decided.",
        ),
    ] = "180",
    timeout: shared.TimeoutOption = "2m",
    undecided_exit: Annotated[
        int, typer.Option("--undecided-exit", metavar="CODE", help="Exit code for undecided: 0, 1, or one of 5 to 125.")
    ] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Compare with a record that was made under other conditions.")
    ] = False,
    allow_skipped: Annotated[
        bool,
        typer.Option("--allow-skipped", help="Pass although rules were skipped that compare with a baseline."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, with every sample.")] = False,
    as_markdown: shared.MarkdownOption = False,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations and write the summary of a GitHub workflow's step.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None,
    output: shared.OutputOption = None,
    overwrite: shared.OverwriteOption = False,
) -> None:
    """Check a bundle against a budget and a baseline: pass (exit code 0), fail (1) or undecided (--undecided-exit).

    Rules that were skipped for want of a baseline are no pass (1), unless --allow-skipped says so.
    """
    from edgetrack.benchmark.run import Environment
    from edgetrack.box import Box
    from edgetrack.cli.console import stderr
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.gate import outputs
    from edgetrack.gate.budget import GateConfig, find_budget
    from edgetrack.gate.check import check as run
    from edgetrack.io import check_output, parse_duration, write_whole
    from edgetrack.presentation.progress import shown_progress

    if as_json + as_markdown + github > 1:
        raise UsageError("--json, --markdown and --github exclude each other; give one of them, and -o for the JSON")
    if layout is not None and dataset is None:
        raise UsageError("--layout is for a data set; add --dataset, or leave it out")
    for path in (junit, output):
        check_output(path, overwrite=overwrite)
    summary = outputs.github_summary_file(os.environ) if github else None
    config = GateConfig(
        budget=find_budget(budget),
        bundle=bundle,
        baseline=baseline,
        baseline_python=baseline_python,
        dataset=None if dataset is None else open_dataset(dataset, layout),
        device=device,
        threads=threads,
        source=source,
        box=None if box is None else Box.parse(box),
        max_time_s=parse_duration(max_time, "--max-time"),
        timeout_s=parse_duration(timeout, "--timeout"),
        undecided_exit=undecided_exit,
        force=force,
        allow_skipped=allow_skipped,
    )
    with shown_progress(stderr(), refresh=False) as progress:
        report = run(config, Environment(progress=progress))
    if output is not None:
        write_whole(output, report.to_json())
    if junit is not None:
        write_whole(junit, outputs.junit(report))
    _present(report, as_json, as_markdown, summary)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _present(report: GateReport, as_json: bool, as_markdown: bool, summary: Path | None) -> None:
    from edgetrack.cli.console import stdout, write_json
    from edgetrack.gate import outputs

    if as_json:
        write_json(report.to_json())
        return
    if as_markdown:
        typer.echo(outputs.markdown(report))
        return
    if summary is not None:
        outputs.append_github_summary(report, summary)
        for line in outputs.github_commands(report):
            typer.echo(line)
    console = stdout()
    outputs.table(report).show(console)
    console.print(outputs.headline(report))
