"""What stands beside the plots: the figures at the top, machines, warnings and failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgetrack.benchmark.config import BenchConfig, SourceNote
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.record import BenchRecord
from edgetrack.benchmark.scenarios.soak import SoakOutcome
from edgetrack.benchmark.table import scenario_notes, telemetry_note
from edgetrack.benchmark.warnings import BenchWarning
from edgetrack.report.model import Results, meaningful
from edgetrack.report.speed_plots import by_speed, is_reference

SOAK_HEADINGS = ("seconds", "frames", "track ms", "p99 ms", "resident MB")


@dataclass(frozen=True)
class Headline:
    """A large figure, its unit, and what it is of."""

    figure: str
    unit: str
    about: str


@dataclass(frozen=True)
class Notice:
    """A warning or failure: its code, whom it is about, what is the matter, and what to do."""

    code: str
    about: str
    detail: str
    advice: str


def headlines(results: Results) -> list[Headline]:
    """Up to four figures: the most frames per second, that over PyTorch, the highest AO, the smallest bundle."""
    found = []
    ranked = by_speed([r for bench in results.benchmarks for r in bench.value.results if not is_reference(r)])
    if ranked:
        best = ranked[0]
        found.append(Headline(f"{best.fps.track or 0.0:.1f}", "fps", f"highest: {best.label}"))
        if best.vs_pytorch.track is not None:
            found.append(Headline(f"{best.vs_pytorch.track:.2f}", "x PyTorch", "the same bundle, same machine"))
    scored = [(trial, one) for trial, known in meaningful(results).items() for one in known.values()]
    if scored:
        trial, top = max(scored, key=lambda pair: pair[1].ao)
        found.append(Headline(f"{top.ao:.3f}", "AO", f"highest: {top.who.label} on {trial.label}"))
    if ranked:
        small = min(ranked, key=lambda result: result.size_mb)
        found.append(Headline(f"{small.size_mb:.1f}", "MB", f"smallest: {small.label}"))
    return found


def processors(results: Results) -> list[str]:
    """Of the machines that were measured on, each name once."""
    machines = [bench.value.machine for bench in results.benchmarks]
    return list(dict.fromkeys(machine.cpu_model or machine.architecture for machine in machines))


def contents(results: Results) -> str:
    """What the report is made from, such as `1 benchmark, 2 comparisons`."""
    kinds = (
        (len(results.benchmarks), "benchmark"),
        (len(results.evaluations), "evaluation"),
        (len(results.comparisons), "comparison"),
        (len(results.sensitivities), "sensitivity map"),
    )
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in kinds if count)


def machine_facts(machine: MachineRecord) -> list[tuple[str, str]]:
    """A machine as names and values; what it does not say is left out."""
    cores = [f"{machine.usable_cores} usable" if machine.usable_cores else "", _of(machine.physical_cores, "physical")]
    memory = machine.memory_total_mib
    facts = [
        ("processor", machine.cpu_model or machine.architecture),
        ("cores", ", ".join(filter(None, [*cores, _of(machine.logical_cores, "logical")]))),
        ("instructions", " ".join(machine.cpu_flags)),
        (
            "clock",
            f"{machine.current_mhz:.0f} MHz, governor {machine.governor or 'unknown'}" if machine.current_mhz else "",
        ),
        ("memory", f"{memory / 1024:.1f} GB" if memory else ""),
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
        f"{settings.threads} threads, at least "
        f"{settings.duration_s:g} s and {settings.iterations} frames of each after {settings.warmup_s:g} s of warm-up; "
        f"{source.spec} ({width}x{height}), camera frames {source.camera}"
    )


def scenario(bench: BenchRecord) -> Iterator[str]:
    """What the scenario found of each contestant, energy, and what was read beside."""
    for result in bench.results:
        yield from scenario_notes(result)
    yield from telemetry_note(bench)


def soak_rows(found: SoakOutcome) -> Iterator[tuple[str, ...]]:
    """A long run, a row for each window."""
    for one in found.windows:
        p99, rss = ("-" if value is None else f"{value:.2f}" for value in (one.p99, one.rss_mb))
        yield (f"{one.start_s:.0f} to {one.end_s:.0f}", str(one.frames), f"{one.p50:.2f}", p99, rss)


def notices(results: Results) -> Iterator[Notice]:
    """Every warning once with those it is about, then what failed, then what could not be read."""
    for bench in results.benchmarks:
        about: dict[BenchWarning, list[str]] = {}
        for result in bench.value.results:
            for caution in result.warnings:
                about.setdefault(caution, []).append(result.label)
        for caution, labels in about.items():
            who = "all" if len(labels) == len(bench.value.results) > 1 else ", ".join(labels)
            yield Notice(caution.code, f"{bench.source}: {who}", caution.detail, caution.advice)
        for failure in bench.value.failures:
            yield Notice("failed", f"{bench.source}: {failure.candidate}", f"{failure.error}: {failure.message}", "")
    for record in results.evaluations:
        for evaluated in record.value.results:
            for failed in evaluated.failures:
                yield Notice("failed", f"{record.source}: {failed.name}", failed.error, "")
    for found in results.comparisons:
        for failed in found.value.failures:
            yield Notice("failed", f"{found.source}: {failed.name}", failed.error, "")
    for skipped in results.skipped:
        yield Notice("left out", skipped.source, skipped.reason, "")


def missing(results: Results) -> list[tuple[str, str]]:
    """What would make the report whole: what is not there, and what to type to have it."""
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


def _of(count: int | None, what: str) -> str:
    return f"{count} {what}" if count else ""
