"""Results as the commands write them, small and made up, and a browser that is really there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetrack.benchmark import record as bench
from edgetrack.benchmark.config import BenchConfig, SourceNote
from edgetrack.benchmark.latency import Latency
from edgetrack.benchmark.protocol import RoundSamples
from edgetrack.benchmark.scenarios.soak import soak_outcome
from edgetrack.benchmark.warnings import of_run
from edgetrack.box import Box
from edgetrack.evaluation import comparison as compared
from edgetrack.evaluation import results as eval_results
from edgetrack.evaluation.execution.ledger import SavedRun, encoded, file_for, save
from edgetrack.evaluation.metrics import Scores, divergence
from edgetrack.evaluation.protocols.anchored import Difference
from edgetrack.evaluation.protocols.one_pass import OnePassRun
from edgetrack.media import load_scene
from edgetrack.quantization.accuracy_control import Sensitivity, StageFinding
from edgetrack.system.jetson import PowerMode
from edgetrack.system.machine import MachineRecord
from edgetrack.system.sampler import Expectation
from edgetrack.system.timeline import Series, Timeline, Window, energy_of

MACHINE = MachineRecord(
    os="an OS",
    kernel="1",
    architecture="x86_64",
    python="CPython",
    cpu_model="a CPU",
    usable_cores=2,
    packages={"a": "1"},
)
SCENE, FRAMES = "drift", 12


def latency(rounds) -> Latency:
    values = np.concatenate(rounds)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(values, [50, 90, 95, 99]))
    return Latency(
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        mean=float(values.mean()),
        min=float(values.min()),
        max=float(values.max()),
        cv=0.1,
        count=len(values),
        interval=None,
    )


def contestant(
    name, ms, *, rounds=8, spread=0.02, seed=0, hint=None, size=10.0, pytorch=None, **changes
) -> bench.BenchResult:
    """A result whose track latency is about `ms`; `name` is TRACKER-TARGET-PRECISION."""
    rng = np.random.default_rng(seed)
    model = [(ms * np.exp(spread * rng.standard_normal(30))).tolist() for _ in range(rounds)]
    track = [[value + 0.3 for value in each] for each in model]
    tracker, target, precision = name.split("-")[-3:]
    found = latency(track)
    return bench.BenchResult(
        **{
            "bundle": name,
            "tracker": tracker,
            "target": target,
            "precision": precision,
            "hint": hint,
            "weights": "official",
            "device": "cpu",
            "threads": 2,
            "versions": {},
            "latency_ms": bench.Latencies(model=latency(model), track=found, camera=None),
            "fps": bench.Fps(model=1000 / latency(model).p50, track=1000 / found.p50, camera=None),
            "waterfall_ms": bench.Waterfall(crop=0.1, graphs=ms, decode=0.2, outside=0.3, read=3.0),
            "memory_mb": bench.MemoryUse(peak_rss=200.0),
            "size_mb": size,
            "load_ms": 300.0,
            "first_ms": 40.0,
            "cores_busy": 2.0,
            "vs_pytorch": bench.VersusPytorch(track=pytorch),
            "vs_pytorch_interval": bench.PytorchInterval(track=pytorch and (0.95 * pytorch, 1.05 * pytorch)),
            "vs_paper": bench.VersusPaper(fps=37.0, ratio=1000 / found.p50 / 37, cpu="a Core i9", source="arXiv"),
            "roofline": bench.RooflineRatio(model=1.3),
            "warnings": [],
            "samples_ms": bench.SamplesMs(
                model=model,
                track=track,
                camera=[],
                crop=[[0.1] * 30] * rounds,
                decode=[[0.2] * 30] * rounds,
                read=[],
            ),
            **changes,
        }
    )


def benchmark(*results, **changes) -> bench.BenchRecord:
    settings = BenchConfig(
        scenario="stream", device="cpu", threads=2, warmup_s=1.0, duration_s=2.0, iterations=100, rounds=8
    )
    source = SourceNote(spec="synthetic:drift", size=(320, 240), box=Box(1, 2, 3, 4), camera="decoded")
    return bench.BenchRecord(
        **{
            "complete": True,
            "machine": MACHINE,
            "settings": settings,
            "source": source,
            "results": list(results),
            "failures": [],
            **changes,
        }
    )


def jetson_soak() -> bench.BenchRecord:
    """Ten minutes at 30 fps on a Jetson that throttles after six; every figure is the benchmark's own."""
    count, span = 10, 60.0
    slices = [
        RoundSamples(
            kind="soak", crop=[0.5] * 1800, graphs=[9.0 + k / 10] * 1800, decode=[0.5] * 1800, queued=[0.0] * 1800,
            whole=[10.0 + k / 10] * 1795 + [40.0] * 5, cpu_s=30.0, wall_s=span,
        )
        for k in range(count)
    ]  # fmt: skip
    times = [float(t) for t in range(0, 600, 5)]
    readings = {
        ("tegrastats", "power_w", "VDD_IN"): [6.0 + (t > 360) for t in times],
        ("tegrastats", "temperature_c", "tj"): [45.0 + t / 20 for t in times],
        ("tegrastats", "clock_mhz", "GPU"): [1020.0 if t < 360 else 620.0 for t in times],
        ("tegrastats", "load_percent", "GPU"): [50.0 for _ in times],
        ("process", "rss_mb", "smat-tensorrt-fp16"): [None if t == 0 else 300.0 for t in times],
    }
    timeline = Timeline(
        interval_s=5.0,
        t_s=times,
        series=[Series(source, quantity, name, values) for (source, quantity, name), values in readings.items()],
        windows=[Window("smat-tensorrt-fp16", "soak", k * span, (k + 1) * span, span, 1800) for k in range(count)],
        power_mode=PowerMode("15W", True),
    )
    soak = soak_outcome(slices, 30.0, timeline, "smat-tensorrt-fp16")
    rails = ("tegrastats:VDD_IN",)
    one = contestant("smat-tensorrt-fp16", 10.0, seed=5, weights="trained-here")
    one = msgspec.structs.replace(
        one,
        soak=soak,
        energy={"soak": energy_of(timeline, one.label, "soak", rails)},
        warnings=[*of_run(timeline, one.label, ["soak"], Expectation(rails=rails))],
    )
    settings = BenchConfig(
        scenario="soak", device="cuda:0", threads=2, warmup_s=1.0, duration_s=600.0, iterations=100, rounds=count,
        fps=30.0, profile="jetson-orin-nano",
    )  # fmt: skip
    return benchmark(one, settings=settings, telemetry=timeline)


def difference(value, low, high, verdict, margin=0.005) -> Difference:
    more = 90 if verdict == "undecided" else None
    return Difference(
        value=value, low=low, high=high, verdict=verdict, runs=100, sequences=10, margin=margin, more_runs=more
    )


def side(name, ao, hint=None, weights="official") -> compared.CompareSide:
    tracker, target, precision = name.split("-")[-3:]
    return compared.CompareSide(
        bundle=name,
        hint=hint,
        tracker=tracker,
        target=target,
        precision=precision,
        weights=weights,
        ao=ao,
        anchored_ao=ao,
    )


def pair(name, curve, first=None, recovery=None) -> compared.SequencePair:
    return compared.SequencePair(
        name=name,
        frames=len(curve),
        ao_a=0.7,
        ao_b=0.69,
        mean_iou=float(np.mean(curve)),
        iou_above_0_9=0.5,
        first_divergence=first,
        recovery=recovery,
        open_loop_error=0.01,
        iou=list(curve),
    )


def comparison(a, b, delta, sequences=None, dataset="clips") -> compared.CompareRecord:
    sequences = sequences or [pair(f"clip{i}", [1.0, 0.95, 0.9, 0.8 - 0.02 * i]) for i in range(10)]
    return compared.CompareRecord(
        a=a,
        b=b,
        dataset=dataset,
        limit=None,
        threads=1,
        anchor_spacing=25,
        anchor_length=50,
        delta_ao=delta,
        one_pass=None,
        agreement=compared.Agreement(
            mean_iou=0.9, iou_above_0_9=0.6, first_divergence=3.0, diverged=2, recovered=1, sequences=10
        ),
        open_loop=None,
        error_gain=None,
        sequences=sequences,
        failures=[],
    )


def evaluated(name, ao, interval, *, streaming=None, sequences=10, hint=None, **changes) -> eval_results.EvalResult:
    ones = [eval_results.SequenceResult(name=f"clip{i}", frames=20, lost=0, fps=50.0, ao=ao) for i in range(sequences)]
    clock = streaming and eval_results.StreamingResult(
        ao=streaming, rate=30.0, latencies="measured", median_ms=10.0, processed=1.0, staleness=1.0
    )
    return eval_results.EvalResult(
        bundle=name,
        weights="official",
        dataset="clips",
        layout="plain",
        averaging="sequences",
        device="cpu",
        precision_hint=hint,
        frames=20 * sequences,
        limit=None,
        fps=50.0,
        jobs=1,
        threads=1,
        interval=dict.fromkeys(Scores.__struct_fields__, interval),
        sequences=ones,
        failures=[],
        ao=ao,
        streaming=clock or None,
        **changes,
    )


def sensitivity() -> Sensitivity:
    return Sensitivity(
        precision="int8",
        dataset="clips",
        max_drop=0.005,
        spacing=20,
        length=30,
        first=difference(-0.0126, -0.024, -0.001, "worse"),
        last=difference(-0.002, -0.007, 0.002, "undecided"),
        stages=[
            StageFinding(stage="reg", gained=difference(0.015, 0.004, 0.029, "better"), ms=0.06),
            StageFinding(stage="stem", gained=difference(-0.001, -0.009, 0.008, "undecided"), ms=-0.001),
        ],
        kept=["reg"],
        fp32_ms=1.3,
        first_ms=0.9,
        last_ms=1.0,
        hints_ms={"bf16": 0.91},
        met=True,
        advice="int8 is faster than fp32 here, but the hint bf16 is faster still.",
    )


def write(path: Path, record: msgspec.Struct) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(record))
    return path


def write_comparison_with_runs(folder: Path, names=("smat-openvino-fp32", "smat-openvino-int8")) -> Path:
    """What `edgetrack compare -o FOLDER` leaves of two trackers on a built-in scene, B going astray and coming back."""
    scene = load_scene(SCENE, frames=FRAMES)
    truth = [scene.box(i) for i in range(FRAMES)]
    astray = [Box(b.x + (60 if 4 <= i <= 6 else 0), b.y, b.w, b.h) for i, b in enumerate(truth)]
    for name, boxes in zip(names, (truth, astray), strict=True):
        run = OnePassRun(size=(320, 240), boxes=boxes, scores=[None] * FRAMES, lost=[False] * FRAMES, ms=[1.0] * FRAMES)
        saved = SavedRun(key="k", bundle=name, weights="official", dataset="x", sequence=SCENE, run=encoded(run))
        save(saved, file_for(folder / name, SCENE, "0123456789abcdef"))
    curve = divergence(truth, astray)
    one = pair(SCENE, curve.iou, curve.first, curve.recovery)
    delta = difference(-0.02, -0.03, -0.01, "worse")
    found = comparison(side(names[0], 0.7), side(names[1], 0.68), delta, [one], dataset=f"synthetic-{SCENE}")
    return write(folder / "comparison.json", found)


def four() -> list[bench.BenchResult]:
    """Four of one tracker, the reference last: INT8 is fast, ONNX as exact as OpenVINO and slower."""
    return [
        contestant("smat-openvino-fp32", 20.0, seed=1, pytorch=2.8),
        contestant("smat-openvino-int8", 8.0, seed=2, size=5.0, pytorch=7.0),
        contestant("smat-onnx-fp32", 24.0, seed=3, pytorch=2.4),
        contestant("smat-torch-fp32", 57.0, seed=4, weights="untrained"),
    ]


def write_one_of_each(folder: Path) -> Path:
    """A folder with one result of each kind under names that say nothing."""
    write(folder / "a.json", benchmark(*four()))
    results = [
        evaluated("smat-openvino-fp32", 0.72, (0.6, 0.8), streaming=0.7),
        evaluated("smat-openvino-int8", 0.7, None),
    ]
    write(folder / "deep" / "b.json", eval_results.EvalRecord(results=results))
    delta = difference(-0.02, -0.03, -0.01, "worse")
    found = comparison(side("smat-openvino-fp32", 0.72), side("smat-openvino-int8", 0.7), delta)
    write(folder / "deep" / "c.json", found)
    write(folder / "d.json", sensitivity())
    (folder / "manifest.json").write_text('{"schema": 1, "name": "no result"}')
    (folder / "broken.json").write_text("{")
    return folder


@pytest.fixture
def contestants() -> list[bench.BenchResult]:
    return four()


@pytest.fixture
def results_folder(tmp_path: Path) -> Path:
    return write_one_of_each(tmp_path / "out")


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A browser; skips where no Chromium is installed.

    Ends with its module: Playwright keeps an event loop running in the thread, in which no other test could run one.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed; type: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
