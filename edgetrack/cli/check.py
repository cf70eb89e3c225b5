"""`edgetrack check`: the gate. A bundle against a budget: pass, fail or undecided."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli import options as shared
from edgetrack.cli.device import DeviceCommand, chosen_device
from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.gate.budget import GateConfig
    from edgetrack.gate.report import GateReport


def check(
    context: typer.Context,
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|FILE",
            help="The candidate: a bundle, as `BUNDLE[@HINT][@DEVICE]`, or a result of `bench -o`, as "
            "`FILE.json[:NAME]`.",
            autocompletion=complete.bundles,
        ),
    ],
    budget: Annotated[
        str, typer.Option("--budget", help="A budget's TOML file, or the name of a shipped one: smat-cpu.")
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="BUNDLE[@HINT][@DEVICE]|FILE.json[:NAME]",
            help="Compare with this: a bundle is measured beside the candidate, a file of `bench -o` is read.",
        ),
    ] = None,
    baseline_python: Annotated[
        Path | None,
        typer.Option("--baseline-python", help="Run the baseline with the edgetrack of this Python: ENV/bin/python."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="A data set, as `edgetrack eval` takes it, for delta_ao_points.",
            autocompletion=complete.datasets,
        ),
    ] = None,
    layout: shared.LayoutOption = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to run: cpu, cuda:0, or a device such as jetson, see docs/devices.md. Default: the budget's, "
            "else cpu.",
            autocompletion=complete.devices,
        ),
    ] = None,
    host: shared.HostOption = None,
    here: shared.HereOption = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads per inference. Default: the budget's, else all usable cores.")
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
    known = find_budget(budget)
    config = GateConfig(
        budget=known,
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
    choice = _device(config, host, here)
    if choice.profile is not None:
        places = choice.profile.backends
        config = replace(
            config, device=next(iter(places.values())), profile=choice.profile.name, places=choice.profile.backends
        )
    if choice.host is not None:
        report = _checked_there(context, choice, config, dataset, layout, budget)
    else:
        with shown_progress(stderr(), refresh=False) as progress:
            report = run(config, Environment(progress=progress))
    if output is not None:
        write_whole(output, report.to_json())
    if junit is not None:
        write_whole(junit, outputs.junit(report))
    _present(report, as_json, as_markdown, summary)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _device(config: GateConfig, host: str | None, here: bool) -> DeviceChoice:
    """Where to measure: the command's device, else that of a baseline that is a record, else the budget's."""
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.gate.evidence import is_record

    if is_record(config.bundle):
        if host is not None or here:
            raise UsageError(f"{config.bundle} is a record and nothing is measured; leave --host and --here out")
        return DeviceChoice()
    asked = config.budget.measure.device
    if config.device is None and asked is not None and not (config.baseline and is_record(config.baseline)):
        return chosen_device(asked, host, here, asked_by=f"budget {config.budget.name}")
    return chosen_device(config.device, host, here)


def _checked_there(
    context: typer.Context,
    choice: DeviceChoice,
    config: GateConfig,
    dataset: str | None,
    layout: str | None,
    budget: str,
) -> GateReport:
    from edgetrack.capabilities import open_ref
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.gate.evidence import is_record, split_record
    from edgetrack.gate.report import GateReport

    config.check()
    if config.baseline_python is not None:
        raise UsageError(
            "--baseline-python names a Python of this machine; run the check on the device itself, or here"
        )
    with DeviceCommand(context, choice, "check") as there:
        for name in ("github", "junit"):
            there.say(name)
        there.say("bundle", there.bundle(open_ref(config.bundle)))
        if config.baseline is not None and is_record(config.baseline):
            path, wanted = split_record(config.baseline)
            there.say("baseline", f"--baseline={there.file(path)}{f':{wanted}' if wanted else ''}")
        elif config.baseline is not None:
            there.say("baseline", f"--baseline={there.bundle(open_ref(config.baseline))}")
        if budget.endswith(".toml"):
            there.say("budget", f"--budget={there.file(budget)}")
        if config.dataset is not None and dataset is not None:
            there.say("dataset", f"--dataset={there.dataset(config.dataset, open_dataset(dataset, layout))}")
        if config.source or config.budget.measure.source:
            there.say("source", f"--source={there.source(config.source or config.budget.measure.source or '')}")
        return there.run("--json").record(GateReport)


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
