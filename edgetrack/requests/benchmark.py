"""What to measure, and measuring it on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from edgetrack.benchmark.config import BenchConfig, BenchRequest
from edgetrack.benchmark.run import Environment, measure
from edgetrack.benchmark.scenarios import find_scenario
from edgetrack.box import Box
from edgetrack.capabilities import best_target
from edgetrack.exporting.isolated import export_isolated
from edgetrack.io import parse_duration
from edgetrack.presentation.progress import Progress
from edgetrack.requests import at_least

if TYPE_CHECKING:
    from edgetrack.benchmark.record import BenchRecord
    from edgetrack.devices.profiles import DeviceChoice


def bench_request(
    bundles: Sequence[str],
    *,
    threads: int | Literal["auto"] | None,
    warmup: float,
    duration: str | float | None,
    iterations: int,
    rounds: int | None,
    scenario: str,
    fps: float | None,
    streams: int | None,
    batched: bool,
    source: str | None,
    box: str | None,
    precision_hint: str | None,
    reference: str | None,
    no_reference: bool,
    attainable: bool,
    timeout: str | float,
    output: Path | None,
    overwrite: bool,
) -> BenchRequest:
    """What to measure; see `edgetrack.api.bench`."""
    auto, count = threads == "auto", None if threads == "auto" else threads
    at_least(1, threads=count, rounds=rounds, streams=streams)
    seconds = find_scenario(scenario).default_duration_s
    config = BenchConfig(
        scenario=scenario,
        threads=count or 0,
        auto_threads=auto,
        warmup_s=warmup,
        duration_s=seconds if duration is None else parse_duration(str(duration), "--duration", zero_allowed=True),
        iterations=iterations,
        rounds=rounds or 0,
        fps=fps,
        streams=streams or 0,
        batched=batched,
    )
    return BenchRequest(
        config,
        bundles=tuple(bundles),
        hint=precision_hint,
        reference=reference,
        with_reference=not no_reference,
        attainable=attainable,
        source=source or BenchRequest.source,
        box=None if box is None else Box.parse(box),
        output=output,
        overwrite=overwrite,
        timeout_s=parse_duration(str(timeout), "--timeout"),
    )


def bench_here(
    request: BenchRequest, choice: DeviceChoice, progress: Progress, notify: Callable[[str], None]
) -> BenchRecord:
    """Measure on this machine, as its profile says; raises what `benchmark.run.measure` raises."""
    profile = choice.profile
    device = choice.device if profile is None else next(iter(profile.backends.values()))
    config = msgspec.structs.replace(request.config, device=device, profile=choice.profile_name)
    request = replace(request, config=config)
    if profile is not None:
        request = replace(request, places=profile.backends, expected=profile.expectation())
    environment = Environment(
        export=export_for_bench,
        notify=notify,
        progress=progress,
        best_target=best_target if profile is None else lambda device: profile.best_target(),
    )
    return measure(request, environment)


def export_for_bench(
    tracker: str | None, target: str, output: Path | None, weights: str | None, overrides: Sequence[str]
) -> Path:
    """See `benchmark.candidates.Export`. What a converter loads, or breaks, stays out of the process that measures."""
    return export_isolated(tracker or "default", target, output, weights, overrides, progress=lambda line: None)
