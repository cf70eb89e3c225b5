from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgetrack.errors
from edgetrack.benchmark.protocol import Roofline
from edgetrack.benchmark.roofline import (
    CHAINS,
    PRECISIONS,
    NumpyProbe,
    RooflineSearch,
    blas_threads,
)
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.runtime.backends.base import Chain
from edgetrack.system.clock import ManualClock, MonotonicClock

SMALL = Chain(4, (8, 16, 8))
USABLE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class FakeProbe:
    """Runs in a time that a list states, on a manual clock."""

    engine = "fake"

    def __init__(self, clock, seconds, chain=SMALL, error=None):
        self.chain = chain
        self.runs = 0
        self._clock = clock
        self._seconds = itertools.cycle(seconds)
        self._error = error

    def prepare(self):
        if self._error is not None:
            raise self._error

    def run_once(self):
        self.runs += 1
        seconds = next(self._seconds)
        self._clock.advance(round(seconds * 1e9))
        return self.chain.flops, seconds


def search(clock, *probes):
    made = RooflineSearch("fp32", 1, clock=clock, probes=probes)
    made.prepare()
    return made


def measure(precision, threads, *, duration_s=0.1, engine=None):
    made = RooflineSearch(precision, threads, engine=engine)
    made.prepare()
    made.search(duration_s)
    return made.result()


class TestChains:
    def test_shipped_chains_fit_a_cache_and_outweigh_their_input(self):
        for chain in CHAINS:
            weights = sum(c * d for c, d in itertools.pairwise(chain.widths))
            assert 4 * weights < 16 * 2**20
            assert chain.flops > 100 * chain.size**2 * chain.widths[0]


class TestSearch:
    def test_best_of_all_runs_is_the_roofline(self):
        clock = ManualClock()
        made = search(clock, FakeProbe(clock, [0.02, 0.01, 0.04]))
        made.search(0.13)
        result = made.result()
        assert result.gflops == pytest.approx(SMALL.flops / 0.01 / 1e9)
        assert (result.engine, result.shape, result.runs, result.reason) == ("fake", SMALL.shape, 6, None)

    def test_every_chain_gets_a_turn_and_the_fastest_is_named(self):
        clock = ManualClock()
        slow, fast = FakeProbe(clock, [0.002]), FakeProbe(clock, [0.001], Chain(4, (8, 32)))
        made = search(clock, slow, fast)
        made.search(1.0)
        assert made.result().shape == "1x8x4x4 -> 32"
        assert abs(slow.runs - fast.runs) <= 8

    @given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=8))
    def test_slices_add_up_and_the_roofline_never_falls(self, slices):
        clock = ManualClock()
        made = search(clock, FakeProbe(clock, [0.03, 0.05, 0.01, 0.02]))
        seen = []
        for seconds in slices:
            made.search(seconds)
            seen.append(made.result())
        assert all(a.gflops <= b.gflops and a.runs < b.runs for a, b in itertools.pairwise(seen))
        assert seen[0].runs >= 1

    def test_a_slice_lasts_until_its_time_is_over(self):
        clock = ManualClock()
        made = search(clock, FakeProbe(clock, [0.01]))
        made.search(0.1)
        assert clock.now_ns() == 100_000_000

    def test_a_run_too_short_for_the_clock_is_no_infinite_rate(self):
        clock = ManualClock(step_ns=1000)
        made = search(clock, FakeProbe(clock, [0.0]))
        made.search(0.0)
        assert made.result().gflops == 0.0

    def test_a_precision_that_the_engine_lacks_is_a_reason_and_not_a_rate(self):
        clock = ManualClock(step_ns=1)
        probe = FakeProbe(clock, [0.01], error=DeviceUnavailableError("no such arithmetic"))
        made = search(clock, probe)
        made.search(0.1)
        assert made.result() == Roofline("fp32", 1, None, "fake", None, 0, "no such arithmetic")
        assert probe.runs == 0

    def test_before_any_run_the_result_says_so(self):
        clock = ManualClock()
        unprepared = RooflineSearch("fp32", 1, clock=clock, probes=[FakeProbe(clock, [0.01])])
        assert unprepared.result().reason == "not measured yet"
        unprepared.prepare()
        assert unprepared.result().reason == "no run yet"

    def test_a_missing_engine_is_an_error(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(BackendMissingError, match=r"pip install 'edgetrack\[openvino\]'"):
            measure("fp32", 1, engine="openvino")

    @pytest.mark.parametrize("installed", [("openvino", "torch", "numpy"), ("torch", "numpy"), ("numpy",)])
    def test_the_first_installed_engine_is_taken(self, monkeypatch, installed):
        absent = {"openvino", "torch"} - set(installed)
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
        assert RooflineSearch("fp32", 1).result().engine == installed[0]

    @pytest.mark.parametrize(
        ("precision", "threads", "engine", "error", "message"),
        [
            ("fp64", 1, None, UnknownNameError, "expected one of: fp32, fp16, bf16, int8"),
            ("fp32", 1, "cuda", UnknownNameError, "expected one of: openvino, torch, numpy"),
            ("fp32", 0, None, UsageError, "expected 1 or more"),
        ],
    )
    def test_refuses(self, precision, threads, engine, error, message):
        with pytest.raises(error, match=message):
            RooflineSearch(precision, threads, engine=engine)

    def test_result_survives_json(self):
        result = Roofline("bf16", 2, 1.5, "fake", SMALL.shape, 3)
        assert msgspec.json.decode(msgspec.json.encode(result), type=Roofline) == result


def test_blas_threads_follow_the_variables_that_blas_reads():
    assert blas_threads({"OMP_NUM_THREADS": "3"}) == 3
    assert blas_threads({"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "5"}) == 5
    assert blas_threads({"OMP_NUM_THREADS": "all"}) == blas_threads({}) >= 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_measures_or_says_why_not(precision):
    pytest.importorskip("openvino")
    result = measure(precision, 1, duration_s=0.05, engine="openvino")
    assert (result.precision, result.threads, result.engine) == (precision, 1, "openvino")
    if result.gflops is None:
        assert precision in result.reason
        assert result.runs == 0
    else:
        assert result.gflops > 0
        assert result.shape in {chain.shape for chain in CHAINS}


def test_numpy_probe_that_was_not_prepared_says_what_to_do():
    with pytest.raises(UsageError, match="call prepare first"):
        NumpyProbe(SMALL, "fp32", 1, now_ns=ManualClock().now_ns).run_once()


def test_numpy_measures_fp32_at_the_threads_that_blas_has():
    probe = NumpyProbe(SMALL, "fp32", blas_threads(os.environ), now_ns=ManualClock(step_ns=500).now_ns)
    probe.prepare()
    assert probe.run_once() == (SMALL.flops, 500 / 1e9)


@pytest.mark.parametrize(("precision", "more", "message"), [("bf16", 0, "FP32 only"), ("fp32", 1, "OMP_NUM_THREADS")])
def test_numpy_refuses_what_it_cannot_do(precision, more, message):
    probe = NumpyProbe(SMALL, precision, blas_threads(os.environ) + more, now_ns=MonotonicClock().now_ns)
    with pytest.raises(DeviceUnavailableError, match=message):
        probe.prepare()


@given(st.sampled_from(CHAINS))
def test_values_neither_fade_nor_overflow_along_a_chain(chain):
    flow = chain.pixels()[:8]
    for kernel in chain.kernels():
        flow = flow @ kernel
    assert 0.05 < np.abs(flow).mean() < 20


def test_importing_the_package_loads_no_backend():
    modules = ["roofline", "run", "table", "worker"]
    code = (
        f"import importlib, sys; [importlib.import_module('edgetrack.benchmark.' + m) for m in {modules}]; "
        "print({'torch', 'onnx', 'openvino', 'onnxruntime'} & set(sys.modules))"
    )
    root = Path(edgetrack.errors.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
