"""`ablate`: a tracker's configurations exported, measured in one interleaved run, evaluated; one row for each.

Each stage keeps what it made, so that the same request goes on where an interrupted one stopped:

    bundles/NAME     a configuration's bundle
    bench.json       one run in which all of them take turns
    eval/NAME        the runs of each on the data set, and their summary
    ablation.json    the rows
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgetrack import __version__
from edgetrack.ablation.table import AblationRecord, AblationRow, ablation_table
from edgetrack.benchmark.candidates import Notify
from edgetrack.benchmark.config import DEFAULT_SOURCE, BenchConfig, BenchRequest
from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.benchmark.run import Environment, measure
from edgetrack.benchmark.scenarios import resolve
from edgetrack.bundle import open_bundle
from edgetrack.bundle.integrity import MANIFEST_FILE
from edgetrack.bundle.manifest import Manifest, WeightsInfo, scalar_text
from edgetrack.capabilities import open_ref
from edgetrack.errors import EdgetrackError, UsageError, WeightsMismatchError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.results import EvalResult
from edgetrack.evaluation.run import evaluate
from edgetrack.exporting.pipeline import ExportPlan, ExportRequest, filled_network, plan
from edgetrack.exporting.recipe import UNTRAINED, Recipe, find_recipe
from edgetrack.io import encode_json, replace_whole
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.quantization.calibration import DEFAULT as DEFAULT_CALIBRATION
from edgetrack.quantization.calibration import CalibrationSources
from edgetrack.quantization.lower import LoweringRequest
from edgetrack.quantization.lower import export as export_bundle
from edgetrack.stats.bootstrap import ratio_of_medians

RECORD, MARKDOWN, BENCH = "ablation.json", "ablation.md", "bench.json"
MOST_CONFIGURATIONS = 64
_SEED = 0


@dataclass(frozen=True)
class AblationRequest:
    """What to compare, and on what.

    Attributes:
        tracker: a recipe's name, or the path of a recipe file.
        over: `KEY=A,B,C`, or `KEY` for all its choices; of several, every combination.
        one_by_one: of several, vary one key at a time instead, the others as they are without it.
        output: the folder of all that is made.
        dataset: what accuracy is measured on; None: it is not.
        settings: `KEY=VALUE` of all configurations.
        target, precision, weights: as of an export. Where the weights are not those of a configuration, it has
            untrained ones.
        frames: of each sequence, at most.
        jobs, threads: of the evaluation; threads of the measurement are `bench`'s.
        bench: how speed and memory are measured; None: they are not.
        source: the frames of the measurement.
    """

    tracker: str
    over: tuple[str, ...]
    output: Path
    dataset: Dataset | None
    target: str
    settings: tuple[str, ...] = ()
    one_by_one: bool = False
    precision: str = "fp32"
    weights: str | None = None
    frames: int | None = None
    jobs: int = 1
    threads: int | None = None
    bench: BenchConfig | None = field(default_factory=BenchConfig)
    source: str = DEFAULT_SOURCE

    def __post_init__(self) -> None:
        if self.dataset is None and self.bench is None:
            raise UsageError("neither accuracy nor speed is asked for; give --dataset, or leave --no-bench out")


@dataclass(frozen=True)
class _Made:
    """A configuration and its bundle; `note` says why its weights are not those that were asked for."""

    settings: tuple[str, ...]
    published: bool
    path: Path
    manifest: Manifest
    note: str


def configurations(recipe: Recipe, over: Sequence[str], *, one_by_one: bool = False) -> list[tuple[str, ...]]:
    """Every combination of the values, each as `KEY=VALUE` for each key.

    One by one: no key changed, then each value of a key that is not the recipe's own, alone.

    Raises:
        UsageError: no key, one that comes twice, one without values whose choices the recipe does not list, or more
            combinations than anybody would read.
        UnknownNameError: there is no such key or value.
    """
    axes: dict[str, list[str]] = {}
    for text in over:
        key, equals, values = text.partition("=")
        key = key.strip()
        if key in axes:
            raise UsageError(f"--over names {key} twice; give all its values in one --over {key}=A,B")
        if not equals and key in recipe.choices:
            axes[key] = [f"{key}={scalar_text(value)}" for value in recipe.choices[key]]
        elif not equals and key in recipe.values:
            raise UsageError(f"--over {key} names no values, and the recipe lists none; give --over {key}=A,B,C")
        else:
            axes[key] = list(dict.fromkeys(f"{key}={value.strip()}" for value in values.split(",")))
    if not axes:
        raise UsageError("nothing to compare; give --over KEY=A,B,C, such as --over memory=exact,bounded:16")
    for setting in itertools.chain(*axes.values()):
        recipe.overridden([setting])
    if one_by_one:
        changes = (text for text in itertools.chain(*axes.values()) if recipe.overridden([text])[1])
        found: list[tuple[str, ...]] = [(), *((text,) for text in changes)]
    else:
        found = list(itertools.product(*axes.values()))
    if len(found) > MOST_CONFIGURATIONS:
        raise UsageError(f"--over asks for {len(found)} configurations; at most {MOST_CONFIGURATIONS} go in a table")
    return found


def ablate(
    request: AblationRequest,
    progress: Progress = no_progress,
    notify: Notify = lambda line: None,
) -> AblationRecord:
    """Make the table; what an earlier call made for the same request is kept.

    Raises:
        UsageError, UnknownNameError: see `configurations` and `edgetrack.exporting.pipeline.plan`.
        WeightsMismatchError: the weights are not of the configuration that `settings` alone give.
        EdgetrackError: a configuration that cannot be exported, or a data set that cannot be opened.
    """
    recipe, _ = find_recipe(request.tracker).overridden(request.settings)
    wanted = configurations(recipe, request.over, one_by_one=request.one_by_one)
    filled_network(_plan(request, (), request.weights))
    made = []
    for number, settings in enumerate(wanted, 1):
        progress(f"exporting {' '.join(settings)}", number, len(wanted))
        made.append(_bundle(request, settings, notify))
    evaluated: dict[str, EvalResult] = {}
    for number, one in enumerate(made, 1):
        if request.dataset is not None:
            progress(f"evaluating {' '.join(one.settings)}", number, len(made))
            evaluated[one.manifest.name] = _evaluated(request, request.dataset, one, progress)
    measured = None if request.bench is None else _measured(request, request.bench, made, progress, notify)
    record = _record(request, recipe, made, evaluated, measured)
    replace_whole(request.output / RECORD, encode_json(record, indent=1) + b"\n")
    replace_whole(request.output / MARKDOWN, (ablation_table(record).markdown() + "\n").encode())
    return record


def _plan(request: AblationRequest, settings: Sequence[str], weights: str | None) -> ExportPlan:
    keys = {text.partition("=")[0].strip() for text in settings}
    common = (text for text in request.settings if text.partition("=")[0].strip() not in keys)
    work = plan(
        ExportRequest(
            request.tracker,
            request.target,
            request.precision,
            weights,
            overrides=(*common, *settings),
            overwrite=True,
        )
    )
    return replace(work, output=request.output / "bundles" / work.name)


def _bundle(request: AblationRequest, settings: tuple[str, ...], notify: Notify) -> _Made:
    """The bundle of a configuration: the one that is there, where it is what an export would make."""
    work, note = _plan(request, settings, request.weights), ""
    try:
        _, weights = filled_network(work)
    except WeightsMismatchError as error:
        note = str(error).splitlines()[0]
        work = _plan(request, settings, UNTRAINED)
        _, weights = filled_network(work)
    manifest = _kept(work, weights)
    if manifest is None:
        lowering = LoweringRequest(CalibrationSources((DEFAULT_CALIBRATION,), None))
        with open_bundle(export_bundle(work, lowering).path) as bundle:
            manifest = bundle.manifest
    else:
        notify(f"{work.output} is there already and is kept")
    return _Made(settings, not work.overrides, work.output, manifest, note)


def _kept(work: ExportPlan, weights: WeightsInfo) -> Manifest | None:
    """The manifest of the planned bundle, where it is there, whole, and says what an export would say now."""
    try:
        with open_bundle(work.output) as bundle:
            found = bundle.manifest
    except EdgetrackError:
        return None
    same = (
        (found.name, found.weights, found.overrides, found.procedure)
        == (work.name, weights, work.overrides, work.recipe.procedure)
        and found.tools.get("edgetrack") == __version__
    )  # fmt: skip
    return found if same else None


def _evaluated(request: AblationRequest, dataset: Dataset, one: _Made, progress: Progress) -> EvalResult:
    config = EvalConfig(
        dataset,
        jobs=request.jobs,
        threads=request.threads,
        frames=request.frames,
        output=request.output / "eval" / one.manifest.name,
    )
    return evaluate(open_ref(str(one.path)), config, progress).result


def _measured(
    request: AblationRequest, config: BenchConfig, made: Sequence[_Made], progress: Progress, notify: Notify
) -> BenchRecord:
    """One run of all bundles, or the one that is there, where it is newer than all of them and complete."""
    file = request.output / BENCH
    newest = max((one.path / MANIFEST_FILE).stat().st_mtime for one in made)
    if file.exists() and file.stat().st_mtime > newest:
        record = BenchRecord.from_json(file.read_bytes(), source=str(file))
        names = {result.bundle for result in record.results}
        same = (record.settings, record.source.spec, names) == (
            resolve(config), request.source, {one.manifest.name for one in made}
        )  # fmt: skip
        if record.complete and same:
            notify(f"{file} is there already and is kept")
            return record
    bench = BenchRequest(
        config,
        bundles=tuple(str(one.path) for one in made),
        with_reference=False,
        source=request.source,
        output=file,
        overwrite=True,
    )
    return measure(bench, Environment(notify=notify, progress=progress))


def _record(
    request: AblationRequest,
    recipe: Recipe,
    made: Sequence[_Made],
    evaluated: Mapping[str, EvalResult],
    measured: BenchRecord | None,
) -> AblationRecord:
    speeds = {} if measured is None else {result.bundle: result for result in measured.results}
    failed = {} if measured is None else {one.candidate: one.message for one in measured.failures}
    base = next((speeds.get(one.manifest.name) for one in made if one.published), None)

    def row(one: _Made) -> AblationRow:
        name, figures = one.manifest.name, evaluated.get(one.manifest.name)
        problems = [f"{fault.name}: {fault.error}" for fault in figures.failures] if figures else []
        problems += [failed[name]] if name in failed else []
        return AblationRow(
            configuration=list(one.settings),
            published=one.published,
            bundle=name,
            weights=one.manifest.weights.origin,
            note=one.note,
            **({} if figures is None else _accuracy(figures)),
            **({} if name not in speeds else _speed(speeds[name], base)),
            size_mib=sum(file.size for file in one.manifest.files.values()) / 2**20,
            paper_fps=one.manifest.paper.fps,
            paper_gb=one.manifest.paper.memory_gb,
            problem="; ".join(problems),
        )

    return AblationRecord(
        tracker=recipe.name,
        target=request.target,
        precision=request.precision,
        dataset=None if request.dataset is None else request.dataset.name,
        limit=request.frames,
        threads=None if measured is None else measured.settings.threads,
        rows=[row(one) for one in made],
    )


def _accuracy(found: EvalResult) -> dict[str, Any]:
    return {
        "ao": found.ao,
        "interval": found.interval.get("ao"),
        "sr50": found.sr50,
        "auc": found.auc,
        "diagnostics": found.diagnostics,
    }


def _speed(found: BenchResult, base: BenchResult | None) -> dict[str, Any]:
    rounds = [median(samples) for samples in found.samples_ms.track if samples]
    versus: float | None = None
    ends: tuple[float, float] | None = None
    if base is not None and base is not found and min(min(r, default=0) for r in found.samples_ms.track) > 0:
        # The rounds of one run: round i of both ran next to each other.
        pairs = list(zip(base.samples_ms.track, found.samples_ms.track, strict=False))
        ratio = ratio_of_medians([a for a, _ in pairs], [b for _, b in pairs], rng=np.random.default_rng(_SEED))
        versus = ratio.value
        ends = None if ratio.low is None or ratio.high is None else (ratio.low, ratio.high)
    return {
        "track_ms": found.latency_ms.track.p50,
        "rounds_ms": (min(rounds), max(rounds)) if rounds else None,
        "versus": versus,
        "versus_interval": ends,
        "peak_mib": found.memory_mb.peak_rss,
    }
