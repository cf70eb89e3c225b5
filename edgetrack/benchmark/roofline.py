"""This machine's measured roofline: the best rate of 1x1 convolutions at a precision and a number of threads.

A graph of F FLOPs (two per multiply-accumulate) cannot take less than F / (gflops * 1e9) seconds here; how near it
comes is what `roofline.model` of a benchmark says. It is the best of many runs over several chains of
convolutions, each small enough to stay in cache, so that arithmetic and not memory is the limit.

Native runtimes fight over threads within one process: measure beside graphs of the same engine only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgetrack.benchmark.protocol import Roofline
from edgetrack.capabilities import TARGETS, backend_of
from edgetrack.errors import DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.resources import THREAD_VARIABLES, allowed_cores
from edgetrack.runtime.backends.base import Chain, RooflineProbe
from edgetrack.system.clock import Clock, MonotonicClock
from edgetrack.system.machine import cpu_flags

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_RUNS_IN_A_ROW = 8
"""Runs of one chain before the next takes over, so that its weights are in cache for all but the first."""


CHAINS = (
    Chain(32, (128, *(512, 128) * 4)),
    Chain(32, (192,) * 9),
    Chain(32, (256, *(512, 256) * 4)),
    Chain(16, (384, *(768, 384) * 4)),
    Chain(16, (512,) * 9),
)
"""Maps and widths as small trackers have them."""


class NumpyProbe(RooflineProbe):
    """A chain as numpy matrix products, FP32; the threads are those that the BLAS library was started with."""

    engine = "numpy"

    def _build(self) -> Callable[[], object]:
        if self.precision != "fp32":
            raise DeviceUnavailableError(f"numpy computes FP32 only, not {self.precision}: install {_offered()}")
        threads = blas_threads(os.environ)
        if threads != self.threads:
            raise DeviceUnavailableError(
                f"numpy's BLAS runs {threads} threads where {self.threads} were asked for: "
                f"start Python with OMP_NUM_THREADS={self.threads}"
            )
        layers = [
            (kernel, np.empty((self.chain.size**2, kernel.shape[1]), np.float32)) for kernel in self.chain.kernels()
        ]
        image = self.chain.pixels()

        def compute() -> None:
            flow = image
            for kernel, out in layers:
                flow = np.matmul(flow, kernel, out=out)

        return compute


def _engines() -> dict[str, tuple[type[RooflineProbe], bool]]:
    """Engine -> its probe, and whether it is installed: targets that have one in the table's order, then numpy."""
    found = {}
    for target in TARGETS:
        if (probe := backend_of(target.name).roofline_probe()) is not None:
            found[probe.engine] = (probe, target.installed)
    return {**found, NumpyProbe.engine: (NumpyProbe, True)}


def _offered() -> str:
    return next(name for name in _engines())


class RooflineSearch:
    """The search for the peak throughput in turns with the graphs that are compared with it.

    Args:
        precision: one of `PRECISIONS`.
        threads: 1 or more.
        engine: a target's with a probe, or "numpy"; by default the first of them that is installed. There is no
            falling back to another engine where that one lacks the precision.
        clock: times the runs.
        probes: the chains to run instead of `CHAINS` in the engine, at least one; all in one engine.

    Raises:
        UnknownNameError: a precision or engine that does not exist.
        UsageError: fewer than one thread.
    """

    def __init__(
        self,
        precision: str,
        threads: int,
        *,
        engine: str | None = None,
        clock: Clock | None = None,
        probes: Sequence[RooflineProbe] | None = None,
    ) -> None:
        _check_name("precision", precision, PRECISIONS)
        if threads < 1:
            raise UsageError(f"{threads} threads: expected 1 or more")
        engines = _engines()
        engine = engine or next(name for name, (_, installed) in engines.items() if installed)
        _check_name("engine", engine, tuple(engines))
        self._precision = precision
        self._threads = threads
        self._clock = clock or MonotonicClock()
        flags, (probe, _) = cpu_flags(), engines[engine]
        self._probes = probes or [
            probe(chain, precision, threads, now_ns=self._clock.now_ns, cpu_flags=flags) for chain in CHAINS
        ]
        self._best: tuple[float, str] | None = None
        self._runs = 0
        self._reason: str | None = "not measured yet"

    def prepare(self) -> None:
        """Build every chain; where the engine lacks the precision or the threads, `result` will say so.

        Raises:
            BackendMissingError: the engine is not installed.
        """
        try:
            for probe in self._probes:
                probe.prepare()
        except DeviceUnavailableError as error:
            self._reason = str(error)
        else:
            self._reason = None

    def search(self, seconds: float) -> None:
        """Run chains in turn for about `seconds`, at least one run; nothing where `prepare` found a reason not to."""
        if self._reason is not None:
            return
        end = self._clock.now_ns() + round(seconds * 1e9)
        while True:
            probe = self._probes[self._runs // _RUNS_IN_A_ROW % len(self._probes)]
            flops, elapsed = probe.run_once()
            self._runs += 1
            rate = flops / elapsed / 1e9 if elapsed > 0 else 0.0
            if self._best is None or rate > self._best[0]:
                self._best = (rate, probe.chain.shape)
            if self._clock.now_ns() >= end:
                return

    def result(self) -> Roofline:
        """The best of all runs so far."""
        gflops, shape = self._best or (None, None)
        return Roofline(
            precision=self._precision,
            threads=self._threads,
            gflops=gflops,
            engine=self._probes[0].engine,
            shape=shape,
            runs=self._runs,
            reason=self._reason if self._best or self._reason else "no run yet",
        )


def blas_threads(environ: Mapping[str, str]) -> int:
    """How many threads numpy's BLAS was started with: what its variables in `environ` say, or else the usable cores."""
    for name in THREAD_VARIABLES:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return len(allowed_cores() or ()) or os.cpu_count() or 1


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError.of(what, name, known)
