from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.signal import lfilter

from edgetrack.benchmark.candidates import opened
from edgetrack.benchmark.config import SourceNote
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.protocol import Loaded, PeakMemory, Rate, Ready, Roofline, RoundSamples
from edgetrack.benchmark.run import Environment, measure
from edgetrack.box import Box
from edgetrack.gate.report import GateReport, GateSamples, SideNote, TurnsMs
from edgetrack.gate.rounds import GateSide, TurnRunner, turn_config
from edgetrack.presentation.progress import no_progress
from edgetrack.system.machine import MachineRecord
from tests.builders import bench_request, write_scripted

SOURCE = "synthetic:drift?frames=6&size=96x64"
MACHINE = MachineRecord(
    os="an OS", kernel="6.1", architecture="x86_64", python="CPython 3.11", usable_cores=2, packages={}
)
FRAMES = BenchFrames(SourceNote(spec="given", size=(96, 64), box=Box(1, 2, 3, 4), camera="decoded"), "read")


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle("a") writes a bundle with constant outputs; returns its path."""
    return lambda name: write_scripted(tmp_path / name)


class Machine:
    """A machine that people share, with a clock of its own; its latencies, in milliseconds, are those of a frame.

    Every frame's latency is multiplied by a slow state (first-order autoregression, so that neighbours are alike), by
    lognormal jitter, at times by a spike, in bursts of some fifty frames by another program, and by a drift.

    Args:
        seed: of the noise.
        jitter, state: standard deviations of the logarithm.
        spike, burst: chance of a spike per frame, and of a burst's start per thousand frames.
        drift: how much slower the machine is after `drift_s` seconds, as a share; negative is faster.
        place: standard deviation of the logarithm of what a process's place in memory makes of its speed.
    """

    MEMORY = 0.98
    BURST_FRAMES = 50

    def __init__(self, seed, *, jitter=0.05, state=0.04, spike=0.01, burst=0.5, drift=0.0, drift_s=180.0, place=0.005):
        self.rng = np.random.default_rng(seed)
        self.now, self.level, self.busy = 0.0, 0.0, 0
        self.jitter, self.state, self.spike, self.burst = jitter, state, spike, burst
        self.drift, self.drift_s, self.place = drift, drift_s, place

    def now_ns(self):
        return round(self.now * 1e9)

    def frames(self, base_ms, count):
        """float64 (count,) of frames that take `base_ms` where nothing disturbs; the clock goes on by their sum."""
        rng, keep = self.rng, self.MEMORY
        steps = np.sqrt(1 - keep**2) * self.state * rng.normal(size=count)
        state, (self.level,) = lfilter([1.0], [1.0, -keep], steps, zi=[keep * self.level])
        self.level = state[-1]
        disturbed = np.zeros(count)
        for end in [self.busy, *(np.flatnonzero(rng.random(count) < self.burst / 1000) + self.BURST_FRAMES)]:
            disturbed[max(0, end - self.BURST_FRAMES) : end] = 1
            self.busy = max(self.busy, end)
        self.busy = max(0, self.busy - count)
        spikes = np.where(rng.random(count) < self.spike, rng.exponential(1.0, count), 0.0)
        slow = 1 + self.drift * min(1.0, self.now / self.drift_s)
        found = (
            base_ms * np.exp(state + self.jitter * rng.normal(size=count)) * (1 + spikes) * (1 + 0.5 * disturbed) * slow
        )
        self.now += found.sum() / 1000
        return found


STEADY = {"jitter": 0.02, "state": 0.01, "spike": 0.005, "burst": 0.0}


class SimulatedWorker:
    """Answers as a worker process does, with the latencies of a simulated machine."""

    REST_S = 0.15
    LOAD_S = 1.5

    def __init__(self, machine, base_ms, rss_mb=280.0):
        self.machine, self.rss_mb = machine, rss_mb
        # No two processes run at quite the same speed: where they lie in memory differs.
        self.base_ms = base_ms * np.exp(machine.place * machine.rng.normal())

    def ask(self, request, expect, timeout_s):
        if expect is Loaded:
            self.machine.now += self.LOAD_S
            return Loaded(float(400 * np.exp(0.1 * self.machine.rng.normal())), 50.0, request.threads, {"fake": "1"})
        if expect is PeakMemory:
            return PeakMemory(float(self.rss_mb * np.exp(0.01 * self.machine.rng.normal())))
        if expect is Ready:
            return Ready()
        if expect is Rate:
            return Rate(Roofline("fp32", 1, 0.001, "simulated", "a chain", 3))
        self.machine.frames(self.base_ms, request.discarded + 1)
        whole = self.machine.frames(self.base_ms, max(request.frames, round(1000 * request.seconds / self.base_ms)))
        tenth = (whole / 10).tolist()
        wall_s = float(whole.sum() / 1000)
        return RoundSamples(
            kind=request.kind,
            crop=tenth,
            graphs=(0.8 * whole).tolist(),
            decode=tenth,
            read=[0.0] * len(whole),
            whole=whole.tolist(),
            cpu_s=wall_s,
            wall_s=wall_s,
        )

    def wait_idle(self):
        self.machine.now += self.REST_S
        return True

    def close(self):
        pass


@pytest.fixture(scope="session")
def fake_bundle(tmp_path_factory):
    return opened(write_scripted(tmp_path_factory.mktemp("gate") / "fake"))


@pytest.fixture(scope="session")
def simulated(fake_bundle):
    """simulated(machine, 1.1) -> turns of a candidate that takes 1.1 times the baseline's 20 ms; None: no baseline."""

    def rounds(machine, ratio, *, base_ms=20.0, baseline=True, **candidate):
        sides = [
            GateSide(
                "candidate",
                fake_bundle,
                lambda label, threads: SimulatedWorker(machine, ratio * base_ms, **candidate),
            )
        ]
        if baseline:
            sides.append(GateSide("baseline", fake_bundle, lambda label, threads: SimulatedWorker(machine, base_ms)))
        return TurnRunner(sides, FRAMES, turn_config("cpu", 1), 60.0, no_progress)

    return rounds


@pytest.fixture(scope="session")
def machine():
    return Machine


@pytest.fixture(scope="session")
def simulated_start():
    """simulated_start(machine, {"a": 1.1}) starts workers of 20 ms a frame, times what is said for their label."""

    def starter(machine, ratios=None, base_ms=20.0):
        return lambda label, threads: SimulatedWorker(machine, base_ms * (ratios or {}).get(label, 1.0))

    return starter


@pytest.fixture
def bench(tmp_path, simulated_start):
    """bench(path, ..., ratios={"a": 1.1}) is `edgetrack bench -o` on a simulated machine; returns the record's path."""

    def record(*bundles, ratios=None, seed=0, name="bench.json", **changes):
        output = tmp_path / name
        options = {"threads": 1, "rounds": 8, "duration_s": 8.0, "source": SOURCE, "with_reference": False, **changes}
        environment = Environment(start=simulated_start(Machine(seed, **STEADY), ratios))
        measure(bench_request(*bundles, output=output, overwrite=True, **options), environment)
        return output

    return record


@pytest.fixture(scope="session")
def steady():
    """A machine that hardly anybody shares."""
    return STEADY


@pytest.fixture
def source():
    return SOURCE


def side(name="a"):
    return SideNote(
        bundle=name,
        tracker="smat",
        target="fake",
        precision="fp32",
        weights="untrained",
        size_mb=16.7,
        versions={},
        load_ms=[1.0],
        peak_rss_mb=[2.0],
        recorded=False,
        code=None,
    )


def report(*findings, verdict="fail", exit_code=1, **changes):
    known = GateReport(
        verdict=verdict,
        exit_code=exit_code,
        budget="mine",
        budget_note="",
        design="paired",
        candidate=side("head"),
        baseline=side("base"),
        machine=MACHINE,
        device="cpu",
        threads=2,
        source="synthetic:drift",
        alpha=0.02,
        blocks=16,
        looks=1,
        seconds=40.0,
        findings=list(findings),
        differences=[],
        notes=[],
        samples_ms=GateSamples(candidate=TurnsMs(model=[], track=[]), baseline=None),
    )
    return msgspec.structs.replace(known, **changes)
