"""What is on the page: sections of sentences, tables and plots, ready for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from edgetrack.benchmark.record import BenchRecord as Benchmark
from edgetrack.evaluation import comparison_report, present, sensitivity
from edgetrack.evaluation.comparison_record import Comparison
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.sensitivity import Sensitivity
from edgetrack.report import table, words
from edgetrack.report.accuracy_plots import Point, pareto_plot
from edgetrack.report.contact import Sheet, contact_sheet
from edgetrack.report.difference_plots import divergence_plot, sensitivity_plot
from edgetrack.report.latency_plots import histogram_plot, timeline_plot
from edgetrack.report.model import Accuracy, Identity, Results, Sourced, Trial, accuracies, meaningful, speed_identity
from edgetrack.report.sensor_plots import sensor_plot
from edgetrack.report.speed_plots import speed_plot, waterfall_plot
from edgetrack.report.table import Table


@dataclass(frozen=True)
class Pareto:
    """Accuracy against speed of one benchmark in one trial; `figure` is `AO` or `AO at N fps`."""

    figure: str
    trial: str
    source: str
    plot: Markup
    table: Table


@dataclass(frozen=True)
class Latency:
    """Plots of one benchmark, what its scenario and the sensors found, and the windows of its soaks."""

    source: str
    record: Benchmark
    speed: Markup
    histogram: Markup
    timeline: Markup
    waterfall: Markup
    notes: tuple[str, ...]
    sensors: Markup
    soaks: tuple[Soak, ...]


@dataclass(frozen=True)
class Soak:
    """A long run window by window, as text."""

    label: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Apart:
    """A comparison: its table and notes as text, its curves, its frames where a data set was given."""

    source: str
    found: Comparison
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    plot: Markup
    sheet: Sheet | None


@dataclass(frozen=True)
class Stages:
    """An accuracy control's map."""

    source: str
    found: Sensitivity
    notes: tuple[str, ...]
    plot: Markup


@dataclass(frozen=True)
class Scored:
    """An evaluation's table."""

    source: str
    label: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """All sections; those without material are empty."""

    paretos: tuple[Pareto, ...]
    latencies: tuple[Latency, ...]
    accuracies: tuple[tuple[Trial, Table], ...]
    evaluations: tuple[Scored, ...]
    comparisons: tuple[Apart, ...]
    sensitivities: tuple[Stages, ...]


def make_page(results: Results, dataset: Dataset | None) -> Page:
    """Draw everything; frames are shown of comparisons on the given data set."""
    return Page(
        paretos=tuple(_paretos(results)),
        latencies=tuple(_latency(i, bench) for i, bench in enumerate(results.benchmarks) if bench.value.results),
        accuracies=tuple((trial, table.accuracy_table(trial, known)) for trial, known in accuracies(results).items()),
        evaluations=tuple(_evaluations(results)),
        comparisons=tuple(_apart(i, found, dataset) for i, found in enumerate(results.comparisons)),
        sensitivities=tuple(_stages(i, found) for i, found in enumerate(results.sensitivities)),
    )


def points_of(bench: Benchmark, known: Mapping[Identity, Accuracy], rate: float | None) -> list[Point]:
    """The contestants whose AO is known: offline, or under a camera of `rate` frames per second."""
    found = []
    for result in bench.results:
        one = known.get(speed_identity(result))
        if one is None or not result.fps.track:
            continue
        ao = one.ao if rate is None else dict(one.streaming).get(rate)
        if ao is not None:
            interval = one.interval if rate is None else None
            found.append(Point(result.label, result.fps.track, ao, interval, result.size_mb))
    return found


def _paretos(results: Results) -> Iterator[Pareto]:
    count = 0
    for bench in results.benchmarks:
        for trial, known in meaningful(results).items():
            rates = sorted({rate for one in known.values() for rate, _ in one.streaming})
            for rate in (None, *rates):
                points = points_of(bench.value, known, rate)
                if points:
                    figure = "AO" if rate is None else f"AO at {rate:g} fps"
                    plot = pareto_plot(f"pareto-{count}", points, figure)
                    yield Pareto(figure, trial.label, bench.source, plot, table.point_table(points, figure))
                    count += 1


def _latency(index: int, bench: Sourced[Benchmark]) -> Latency:
    results = bench.value.results
    return Latency(
        source=bench.source,
        record=bench.value,
        speed=speed_plot(f"speed-{index}", results),
        histogram=histogram_plot(f"spread-{index}", results),
        timeline=timeline_plot(f"time-{index}", results),
        waterfall=waterfall_plot(f"stages-{index}", results),
        notes=tuple(words.scenario(bench.value)),
        sensors=Markup() if bench.value.telemetry is None else sensor_plot(f"sensor-{index}", bench.value.telemetry),
        soaks=tuple(
            Soak(result.label, words.SOAK_HEADINGS, tuple(words.soak_rows(result.soak)))
            for result in results
            if result.soak is not None
        ),
    )


def _evaluations(results: Results) -> Iterator[Scored]:
    for record in results.evaluations:
        for result in record.value.results:
            hint = "" if result.precision_hint is None else f"@{result.precision_hint}"
            yield Scored(
                source=record.source,
                label=f"{result.bundle}{hint} on {result.dataset}",
                headings=tuple(present.headings(result)),
                rows=tuple(map(tuple, present.rows(result))),
                notes=tuple(present.notes(result)),
            )


def _apart(index: int, found: Sourced[Comparison], dataset: Dataset | None) -> Apart:
    record = found.value
    shown = dataset is not None and dataset.name == record.dataset
    return Apart(
        source=found.source,
        found=record,
        headings=comparison_report.HEADINGS,
        rows=tuple(map(tuple, comparison_report.rows(record))),
        notes=tuple(comparison_report.notes(record)),
        plot=divergence_plot(f"apart-{index}", record),
        sheet=contact_sheet(record, Path(found.source), dataset) if dataset is not None and shown else None,
    )


def _stages(index: int, found: Sourced[Sensitivity]) -> Stages:
    return Stages(
        source=found.source,
        found=found.value,
        notes=tuple(sensitivity.lines(found.value)),
        plot=sensitivity_plot(f"sensitivity-{index}", found.value),
    )
