"""A report as one self-contained HTML file, or as GitHub's Markdown: findings and tables, and on the page plots.

Every text of a result is escaped, by the template engine or `markdown_text`; what is taken as markup is made by
`svg.py` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edgetrack.benchmark.config import BenchConfig, SourceNote
from edgetrack.benchmark.record import BenchRecord
from edgetrack.benchmark.scenarios.soak import SoakOutcome
from edgetrack.benchmark.table import scenario_notes, telemetry_note
from edgetrack.benchmark.warnings import BenchWarning
from edgetrack.bundle.reader import bundle_label
from edgetrack.evaluation.comparison import CompareRecord
from edgetrack.evaluation.comparison_report import compare_table
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.results import eval_tables
from edgetrack.presentation.sanitize import markdown_text
from edgetrack.presentation.table import Column, Table, counted
from edgetrack.quantization import accuracy_control as sensitivity
from edgetrack.report import plots
from edgetrack.report.contact_sheet import contact_sheet
from edgetrack.report.findings import findings, level_with_best, level_with_first
from edgetrack.report.flags import flag_plot
from edgetrack.report.gates import correlation_table, gates_plot
from edgetrack.report.model import (
    FEWEST_FRAMES,
    Accuracy,
    Identity,
    Results,
    Sourced,
    accuracies,
    by_speed,
    compared_frames,
    is_reference,
    is_smoke,
    meaningful,
    side_identity,
    speed_identity,
)
from edgetrack.report.table import accuracy_table, point_table, speed_table
from edgetrack.report.template import render
from edgetrack.system.machine import MachineRecord
from edgetrack.tuning.advice import tune_table

MOST_GATED = 4
"""Sequences of an evaluation whose gates are drawn."""


@dataclass(frozen=True)
class Headline:
    """A large figure, its unit, and what it is of; `shown` where nothing else may be as good."""

    figure: str
    unit: str
    about: str
    shown: bool = True


@dataclass(frozen=True)
class Notice:
    """A warning or failure: its code, whom it is about, what is the matter, and what to do."""

    code: str
    about: str
    detail: str
    advice: str


def html(
    results: Results, dataset: Dataset | None = None, title: str = "edgetrack report", made: datetime | None = None
) -> str:
    """The page.

    Args:
        results: at least one record.
        dataset: frames for the contact sheet of comparisons on it; without it there is none.
        title: of the page.
        made: when; None leaves the date out, so that the same results give the same page.
    """
    machines = [bench.value.machine for bench in results.benchmarks]
    return render(
        "page.html.j2",
        title,
        made,
        results=results,
        page={
            "paretos": list(_paretos(results)),
            "latencies": [_latency(i, bench) for i, bench in enumerate(results.benchmarks) if bench.value.results],
            "accuracies": [(trial, accuracy_table(known)) for trial, known in accuracies(results).items()],
            "evaluations": [
                {"source": source, "label": label, **_grid(table)} for source, label, table in _evaluations(results)
            ],
            "flags": list(_flags(results)),
            "gates": list(_gates(results)),
            "comparisons": [_comparison(i, found, dataset) for i, found in enumerate(results.comparisons)],
            "sensitivities": [
                {
                    "source": one.source,
                    "found": one.value,
                    "notes": sensitivity.lines(one.value),
                    "plot": plots.sensitivity_plot(f"sensitivity-{i}", one.value),
                }
                for i, one in enumerate(results.sensitivities)
            ],
            "tunings": [
                {"source": one.source, "system": one.value.system, "advice": one.value.advice}
                | _grid(tune_table(one.value))
                for one in results.tunings
            ],
        },
        findings=findings(results),
        headlines=headlines(results),
        table=speed_table(results),
        notices=list(notices(results)),
        processors=list(dict.fromkeys(machine.processor for machine in machines)),
        contents=contents(results),
        missing=missing(results),
        machine_facts=machine_facts,
        measured=measured,
    )


def markdown(results: Results, title: str = "edgetrack report") -> str:
    """The report without plots, for an issue or a job's summary."""
    blocks = [
        f"# {markdown_text(title)}",
        _items(f"**{one.kind}: {markdown_text(one.head)}.** {markdown_text(one.text)}" for one in findings(results)),
    ]
    if results.benchmarks:
        blocks += ["## Table", speed_table(results).text().markdown()]
    for trial, known in accuracies(results).items():
        blocks += [f"## AO on {markdown_text(trial.label)}", accuracy_table(known).text().markdown()]
    for _, label, table in _evaluations(results):
        blocks += [f"## {markdown_text(label)}", table.markdown()]
    for found in results.comparisons:
        blocks += [f"## {markdown_text(_sides(found.value))}", compare_table(found.value).markdown()]
    for one in results.sensitivities:
        blocks += [f"## Sensitivity: {markdown_text(f'{one.value.precision} on {one.value.dataset}')}"]
        blocks += [_items(markdown_text(line.strip()) for line in sensitivity.lines(one.value))]
    for tuned in results.tunings:
        blocks += [f"## Tuning of {markdown_text(tuned.value.system)}", tune_table(tuned.value).markdown()]
    for bench in results.benchmarks:
        blocks += [f"## Machine of {markdown_text(bench.source)}"]
        blocks += [_items(f"{name}: {markdown_text(value)}" for name, value in machine_facts(bench.value.machine))]
        blocks += [markdown_text(measured(bench.value.settings, bench.value.source)) + "."]
        blocks += [text for text in [_items(map(markdown_text, _scenario(bench.value)))] if text]
    warned = [
        f"**{markdown_text(one.code)}**: {markdown_text(f'{one.about}: {one.detail}')}"
        + (f"; {markdown_text(one.advice)}" if one.advice else "")
        for one in notices(results)
    ]
    if warned:
        blocks += ["## Warnings", _items(warned)]
    return "\n\n".join(blocks) + "\n"


def headlines(results: Results) -> list[Headline]:
    """Up to four figures: the most frames per second, that over PyTorch, the highest AO, the smallest bundle."""
    found = []
    benches = [[r for r in bench.value.results if not is_smoke(r)] for bench in results.benchmarks]
    ranked = by_speed([r for bench in benches for r in bench if not is_reference(r)])
    if ranked:
        best = ranked[0]
        beside = next(by_speed(bench) for bench in benches if any(r is best for r in bench))
        level = level_with_first(beside) if beside[0] is best else []
        found.append(_headline(f"{best.fps.track or 0.0:.1f}", "fps", best.label, [r.label for r in level]))
        if best.vs_pytorch.track is not None:
            found.append(Headline(f"{best.vs_pytorch.track:.2f}", "x PyTorch", "the same bundle, same machine"))
    scored = [(trial, one) for trial, known in meaningful(results).items() for one in known.values()]
    if scored:
        trial, top = max(scored, key=lambda pair: pair[1].ao)
        level_ao = [one.who.label for one, _ in level_with_best(trial, meaningful(results)[trial], results)]
        found.append(_headline(f"{top.ao:.3f}", "AO", f"{top.who.label} on {trial.label}", level_ao))
    if ranked:
        small = min(ranked, key=lambda result: result.size_mb)
        found.append(Headline(f"{small.size_mb:.1f}", "MiB", f"smallest: {small.label}"))
    return found


def _headline(figure: str, unit: str, who: str, level: list[str]) -> Headline:
    if not level:
        return Headline(figure, unit, f"highest: {who}")
    others = level[0] if len(level) == 1 else f"{len(level)} others"
    return Headline(figure, unit, f"{who}; no difference to {others} is shown", shown=False)


def contents(results: Results) -> str:
    """What the report is made from, such as `1 benchmark, 2 comparisons`."""
    kinds = (
        (len(results.benchmarks), "benchmark"),
        (len(results.evaluations), "evaluation"),
        (len(results.comparisons), "comparison"),
        (len(results.sensitivities), "sensitivity map"),
        (len(results.tunings), "tuning"),
    )
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in kinds if count)


def machine_facts(machine: MachineRecord) -> list[tuple[str, str]]:
    """A machine as names and values; what is not known is left out."""
    cores = (
        (machine.usable_cores, "usable"),
        (machine.physical_cores, "physical"),
        (machine.logical_cores, "logical"),
    )
    memory, clock = machine.memory_total_mib, machine.current_mhz
    facts = [
        ("processor", machine.cpu_model or machine.architecture),
        ("cores", ", ".join(f"{count} {what}" for count, what in cores if count)),
        ("instructions", " ".join(machine.cpu_flags)),
        ("clock", f"{clock:.0f} MHz, governor {machine.governor or 'unknown'}" if clock else ""),
        ("memory", f"{memory / 1024:.1f} GiB" if memory else ""),
        ("load before", f"{machine.load_average[0]:.2f}" if machine.load_average else ""),
        ("device", " ".join(filter(None, [machine.device_model, machine.l4t and f"L4T {machine.l4t}"]))),
        ("GPU", ", ".join(f"{gpu.name} (driver {gpu.driver or 'unknown'})" for gpu in machine.gpus)),
        ("system", f"{machine.os}, kernel {machine.kernel}, {machine.architecture}, {machine.python}"),
        ("container", machine.container or ""),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()))),
    ]
    return [(name, value) for name, value in facts if value]


def measured(settings: BenchConfig, source: SourceNote) -> str:
    """How a benchmark was made, in a sentence."""
    width, height = source.size
    rate = "" if settings.fps is None else f" at {settings.fps:g} fps"
    streams = "" if settings.streams <= 1 else f" of {settings.streams} trackers"
    profile = "" if settings.profile is None else f" (profile {settings.profile})"
    turns = "windows" if settings.scenario == "soak" else "interleaved rounds"
    return (
        f"Scenario {settings.scenario}{rate}{streams}: {settings.rounds} {turns} on {settings.device}{profile}, "
        f"{counted(settings.threads, 'thread')}, at least "
        f"{settings.duration_s:g} s and {settings.iterations} frames of each after {settings.warmup_s:g} s of warm-up; "
        f"{source.spec} ({width}x{height}), camera frames {source.camera}"
    )


def notices(results: Results) -> Iterator[Notice]:
    """Every warning once with those it is about, then what failed, then what could not be read."""
    for bench in results.benchmarks:
        about: dict[BenchWarning, list[str]] = {}
        for result in bench.value.results:
            for warning in result.warnings:
                about.setdefault(warning, []).append(result.label)
        for warning, labels in about.items():
            who = "all" if len(labels) == len(bench.value.results) > 1 else ", ".join(labels)
            yield Notice(warning.code, f"{bench.source}: {who}", warning.detail, warning.advice)
        for failure in bench.value.failures:
            yield Notice("failed", f"{bench.source}: {failure.candidate}", f"{failure.error}: {failure.message}", "")
    groups = [(record.source, result.failures) for record in results.evaluations for result in record.value.results]
    groups += [(found.source, found.value.failures) for found in results.comparisons]
    for source, failures in groups:
        for failed in failures:
            yield Notice("failed", f"{source}: {failed.name}", failed.error, "")
    for skipped in results.skipped:
        yield Notice("left out", skipped.source, skipped.reason, "")


def missing(results: Results) -> list[tuple[str, str]]:
    """What would complete the report: what is not there, and what to type to have it."""
    bundle = next((r.label for b in results.benchmarks for r in b.value.results if not is_reference(r)), "BUNDLE")
    wanted = (
        (results.benchmarks, "speed, memory, size", f"edgetrack bench {bundle} --output out/bench.json"),
        (results.evaluations, "accuracy with intervals", f"edgetrack eval {bundle} DATASET"),
        (results.comparisons, "what one bundle costs against another", "edgetrack compare A B --dataset DATASET"),
        (
            results.sensitivities,
            "what each stage costs in a lower precision",
            "edgetrack export TRACKER --precision int8 --sensitivity --val SEQUENCES",
        ),
    )
    return [(what, command) for records, what, command in wanted if not records]


def points_of(bench: BenchRecord, known: Mapping[Identity, Accuracy], figure: str) -> list[plots.Point]:
    """The candidates whose accuracy is known: `AO`, `AUC`, or AO under a camera's clock, as `AO at 30 fps`."""
    found = []
    for result in (one for one in bench.results if not is_smoke(one)):
        one = known.get(speed_identity(result))
        if one is None or not result.fps.track:
            continue
        value, interval = _accuracy_of(one, figure)
        if value is not None:
            found.append(plots.Point(result.label, result.fps.track, value, interval, result.size_mb))
    return found


def _accuracy_of(one: Accuracy, figure: str) -> tuple[float | None, tuple[float, float] | None]:
    clocked = {_at(rate): ao for rate, ao in one.streaming}
    return {"AO": (one.ao, one.interval), "AUC": (one.auc, one.auc_interval)}.get(figure, (clocked.get(figure), None))


def _at(rate: float) -> str:
    return f"AO at {rate:g} fps"


def _paretos(results: Results) -> Iterator[dict[str, Any]]:
    """Accuracy against speed of one benchmark in one trial, offline and by camera rate; then against parameters."""
    planes = []
    for trial, known in meaningful(results).items():
        rates = sorted({rate for one in known.values() for rate, _ in one.streaming})
        for bench in results.benchmarks:
            for figure in ("AO", "AUC", *map(_at, rates)):
                caption = f"{figure} on {trial.label}; speed from {bench.source}"
                planes.append((figure, caption, plots.FPS, points_of(bench.value, known, figure)))
        sized = [
            plots.Point(one.who.label, one.parameters / 1e6, one.auc, one.auc_interval, None)
            for one in known.values()
            if one.parameters and one.auc is not None
        ]
        # Precisions of one network lie above one another: nothing is set against its size.
        if len({point.x for point in sized}) > 1:
            planes.append(("AUC", f"AUC on {trial.label} against parameters", plots.PARAMETERS, sized))
    for count, (figure, caption, across, points) in enumerate(plane for plane in planes if plane[3]):
        yield {
            "figure": figure,
            "caption": caption,
            "what": across.column,
            "plot": plots.pareto_plot(f"pareto-{count}", points, figure, across),
            "table": point_table(points, figure, across),
        }


def _latency(index: int, bench: Sourced[BenchRecord]) -> dict[str, Any]:
    results, telemetry = bench.value.results, bench.value.telemetry
    enough = [result for result in results if not is_smoke(result)]
    few = [f"{r.label}: {counted(r.latency_ms.track.count, 'frame')} only, not drawn" for r in results if is_smoke(r)]
    drawn = {
        "speed": plots.speed_plot(f"speed-{index}", enough),
        "histogram": plots.histogram_plot(f"spread-{index}", enough),
        "timeline": plots.timeline_plot(f"time-{index}", enough),
        "waterfall": plots.waterfall_plot(f"stages-{index}", enough),
    } if enough else {}  # fmt: skip
    return {
        "source": bench.source,
        "record": bench.value,
        "drawn": drawn,
        "notes": [*few, *_scenario(bench.value)],
        "sensors": Markup() if telemetry is None else plots.sensor_plot(f"sensor-{index}", telemetry),
        "soaks": [
            {"label": result.label, **_grid(_soak_table(result.soak))} for result in results if result.soak is not None
        ],
    }


def _evaluations(results: Results) -> Iterator[tuple[str, str, Table]]:
    """Source, label and table of each evaluation."""
    for record in results.evaluations:
        for result in record.value.results:
            label = f"{bundle_label(result.bundle, result.precision_hint)} on {result.dataset}"
            boxes, *flag = eval_tables(result)
            yield record.source, label, boxes
            for table in flag:
                yield record.source, f"{label}: the flag lost", table


def _flags(results: Results) -> Iterator[dict[str, Any]]:
    """The curve of each evaluation whose score was put to the test."""
    found = [result for record in results.evaluations for result in record.value.results]
    for index, result in enumerate(found):
        if result.flag is not None and (plot := flag_plot(f"flag-{index}", result.flag)):
            label = bundle_label(result.bundle, result.precision_hint)
            yield {"label": f"{label} on {result.dataset}", "plot": plot}


def _gates(results: Results) -> Iterator[dict[str, Any]]:
    """What the gates of a tracker did, in the longest sequences of each evaluation."""
    count = 0
    for record in results.evaluations:
        for result in record.value.results:
            watched = [one for one in result.sequences if one.diagnostics]
            for one in sorted(watched, key=lambda one: (-one.frames, one.name))[:MOST_GATED]:
                plot = gates_plot(f"gates-{count}", one)
                count += 1
                if plot:
                    label = f"{bundle_label(result.bundle, result.precision_hint)} on {one.name}"
                    marked = f" ({', '.join(one.attributes)})" if one.attributes else ""
                    table = correlation_table(one)
                    yield {"label": label + marked, "plot": plot, "table": None if table is None else _grid(table)}


def _soak_table(found: SoakOutcome) -> Table:
    """A long run, a row for each window."""
    columns = (
        Column("seconds", align="left"),
        Column("frames"),
        Column("track ms", 2),
        Column("p99 ms", 2),
        Column("resident MiB", 2),
    )
    rows = [
        (f"{one.start_s:.0f} to {one.end_s:.0f}", one.frames, one.p50, one.p99, one.rss_mb) for one in found.windows
    ]
    return Table(columns, rows)


def _comparison(index: int, found: Sourced[CompareRecord], dataset: Dataset | None) -> dict[str, Any]:
    record = found.value
    shown = dataset is not None and dataset.name == record.dataset
    return {
        "source": found.source,
        "title": _sides(record),
        **_grid(compare_table(record)),
        "plot": plots.divergence_plot(f"apart-{index}", record) if compared_frames(record) >= FEWEST_FRAMES else "",
        "sheet": contact_sheet(record, Path(found.source), dataset) if dataset is not None and shown else None,
    }


def _sides(found: CompareRecord) -> str:
    a, b = side_identity(found.a), side_identity(found.b)
    return f"{a.label} (A) and {b.label} (B)"


def _grid(table: Table) -> dict[str, Any]:
    """A table as the template draws it."""
    return {"headings": [column.title for column in table.columns], "rows": table.cells(), "notes": table.notes}


def _scenario(bench: BenchRecord) -> Iterator[str]:
    """What the scenario found of each candidate, energy, and the sensors' readings."""
    for result in bench.results:
        yield from scenario_notes(result)
    yield from telemetry_note(bench)


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
