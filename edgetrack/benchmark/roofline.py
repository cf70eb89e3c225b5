"""This machine's measured roof: the best rate of 1x1 convolutions at a precision and a number of threads.

A graph of F FLOPs (two per multiply-accumulate) cannot take less than F / (gflops * 1e9) seconds here; how near it
comes is what `roofline.model` of a benchmark says. The roof is the best of many runs over several chains of
convolutions, each small enough to stay in cache, so that arithmetic and not memory is the limit.

Native runtimes fight over threads within one process: measure beside graphs of the same engine only.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import ClassVar, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from edgetrack.benchmark.clock import Clock, MonotonicClock
from edgetrack.benchmark.machine import cpu_flags
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.runtime.backends.openvino import shared_core

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_RUNS_IN_A_ROW = 8
"""Runs of one chain before the next takes over, so that its weights are in cache for all but the first."""


class Roofline(msgspec.Struct, frozen=True):
    """The best rate found; `gflops` and `shape` are None where it cannot be measured, and `reason` says why.

    `gflops` is in 1e9 FLOP/s (two per multiply-accumulate; integer operations count the same), `shape` the chain that
    reached it, `runs` how many runs of all chains it was the best of.
    """

    precision: str
    threads: int
    gflops: float | None
    engine: str
    shape: str | None
    runs: int
    reason: str | None = None


class Chain(msgspec.Struct, frozen=True):
    """1x1 convolutions one after another on a `size` x `size` map; `widths` are the channels, the input's first."""

    size: int
    widths: tuple[int, ...]

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate of the convolutions, without bias and activation."""
        return 2 * self.size**2 * sum(c * d for c, d in zip(self.widths, self.widths[1:], strict=False))

    @property
    def shape(self) -> str:
        """Such as "1x128x32x32 -> 512 -> 128"."""
        return " -> ".join([f"1x{self.widths[0]}x{self.size}x{self.size}", *map(str, self.widths[1:])])


CHAINS = (
    Chain(32, (128, *(512, 128) * 4)),
    Chain(32, (192,) * 9),
    Chain(32, (256, *(512, 256) * 4)),
    Chain(16, (384, *(768, 384) * 4)),
    Chain(16, (512,) * 9),
)
"""Maps and widths as small trackers have them."""


class RooflineProbe(Protocol):
    """One chain in one engine."""

    engine: str
    chain: Chain

    def prepare(self) -> None:
        """Build what `run_once` runs.

        Raises:
            BackendMissingError: the engine is not installed.
            DeviceUnavailableError: the engine does not compute in that precision, or with that many threads, here.
        """

    def run_once(self) -> tuple[int, float]:
        """Run the chain once: its FLOPs and the seconds it took."""


class _Probe:
    """What the engines' probes share: `prepare` sets `_compute`, which runs the chain once."""

    def __init__(self, precision: str, threads: int, chain: Chain, clock: Clock) -> None:
        self.chain = chain
        self._precision = precision
        self._threads = threads
        self._clock = clock
        self._compute: Callable[[], object] = _unprepared

    def run_once(self) -> tuple[int, float]:
        """Run the chain once: its FLOPs and the seconds it took."""
        start = self._clock.now_ns()
        self._compute()
        return self.chain.flops, (self._clock.now_ns() - start) / 1e9


class OpenVinoProbe(_Probe):
    """A chain on OpenVINO's CPU plugin; "int8" is unsigned activations and signed per-channel weights.

    Where the processor lacks the hinted precision the plugin runs another without a word (BF16 for FP16, FP32 for
    BF16), and it caps the threads, so `prepare` reads both back from the compiled model.
    """

    engine = "openvino"
    _HINTS: ClassVar = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
    _RUNTIME: ClassVar = {"fp32": {"f32"}, "fp16": {"f16"}, "bf16": {"bf16"}, "int8": {"u8", "i8"}}

    def prepare(self) -> None:
        """Compile the chain and check that it runs as asked; see `RooflineProbe.prepare`."""
        ov = _imported("openvino")
        config = {
            "INFERENCE_PRECISION_HINT": self._HINTS[self._precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
        }
        try:
            compiled = shared_core().compile_model(self._model(ov), "CPU", config)
        except RuntimeError as error:
            raise DeviceUnavailableError(f"openvino does not compile {self._precision} here: {error}") from error
        threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        if threads != self._threads:
            raise DeviceUnavailableError(f"openvino runs {threads} threads here where {self._threads} were asked for")
        ran = {
            node.get_rt_info()["runtimePrecision"].astype(str)
            for node in compiled.get_runtime_model().get_ordered_ops()
            if node.get_rt_info()["layerType"].astype(str) == "Convolution"
        }
        if not ran or not ran <= self._RUNTIME[self._precision]:
            kinds = ", ".join(sorted(ran)) or "something else"
            raise DeviceUnavailableError(f"openvino runs {self._precision} convolutions as {kinds} on this processor")
        image = _pixels(self.chain).T.reshape(1, -1, self.chain.size, self.chain.size).copy()
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(image))
        self._compute = request.infer
        self._compute()

    def _model(self, ov: ModuleType) -> object:
        op = ov.opset13
        image = op.parameter([1, self.chain.widths[0], self.chain.size, self.chain.size], np.float32, name="image")
        flow = image
        low, high = np.float32(0), np.float32(4)
        for kernel in _kernels(self.chain):
            weights = op.constant(kernel.T[:, :, None, None].copy())
            if self._precision == "int8":
                flow = op.fake_quantize(flow, low, high, low, high, 256)
                bound = np.abs(kernel.T).max(axis=1).reshape(-1, 1, 1, 1)
                weights = op.fake_quantize(weights, -bound, bound, -bound, bound, 255)
            flow = op.convolution(flow, weights, [1, 1], [0, 0], [0, 0], [1, 1])
            flow = op.relu(op.add(flow, np.zeros((1, kernel.shape[1], 1, 1), np.float32)))
        mean = op.reduce_mean(flow, np.array([2, 3]), keep_dims=False)  # a small output: its copy is not the chain's
        return ov.Model([mean], [image], "roofline")


class TorchProbe(_Probe):
    """A chain as PyTorch linear layers over the pixels; FP32 everywhere, BF16 where the processor computes in it."""

    engine = "torch"
    _BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

    def prepare(self) -> None:
        """Make the tensors; see `RooflineProbe.prepare`."""
        torch = _imported("torch")
        if self._precision not in ("fp32", "bf16"):
            raise DeviceUnavailableError(f"torch has no {self._precision} convolution on this processor's CPU backend")
        if self._precision == "bf16" and not self._BF16_FLAGS & set(cpu_flags()):
            raise DeviceUnavailableError("this processor has no BF16 arithmetic; torch would only imitate it")
        kind = torch.bfloat16 if self._precision == "bf16" else torch.float32
        layers = [
            (torch.from_numpy(kernel.T.copy()).to(kind), torch.zeros(kernel.shape[1], dtype=kind))
            for kernel in _kernels(self.chain)
        ]
        image = torch.from_numpy(_pixels(self.chain)).to(kind)

        def compute() -> None:
            flow = image
            for weights, bias in layers:
                flow = torch.nn.functional.linear(flow, weights, bias)

        self._compute = compute
        self.run_once()

    def run_once(self) -> tuple[int, float]:
        """Run the chain once: its FLOPs and seconds. The process's thread count is put back afterwards."""
        torch = _imported("torch")
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                return super().run_once()
        finally:
            torch.set_num_threads(before)


class NumpyProbe(_Probe):
    """A chain as numpy matrix products, FP32; the threads are those that the BLAS library was started with."""

    engine = "numpy"

    def prepare(self) -> None:
        """Make the matrices; see `RooflineProbe.prepare`."""
        if self._precision != "fp32":
            raise DeviceUnavailableError(f"numpy computes FP32 only, not {self._precision}: install openvino")
        threads = blas_threads(os.environ)
        if threads != self._threads:
            raise DeviceUnavailableError(
                f"numpy's BLAS runs {threads} threads where {self._threads} were asked for: "
                f"start Python with OMP_NUM_THREADS={self._threads}"
            )
        layers = [
            (kernel, np.empty((self.chain.size**2, kernel.shape[1]), np.float32)) for kernel in _kernels(self.chain)
        ]
        image = _pixels(self.chain)

        def compute() -> None:
            flow = image
            for kernel, out in layers:
                flow = np.matmul(flow, kernel, out=out)

        self._compute = compute
        self.run_once()


_ENGINES: dict[str, type[OpenVinoProbe] | type[TorchProbe] | type[NumpyProbe]] = {
    probe.engine: probe for probe in (OpenVinoProbe, TorchProbe, NumpyProbe)
}


class RooflineContestant:
    """The search for the roof in slices, so that it can take turns with the graphs that are held against it.

    Args:
        precision: one of `PRECISIONS`.
        threads: 1 or more.
        engine: "openvino", "torch" or "numpy"; by default the first of them that is installed. There is no falling back
            to another engine where that one lacks the precision.
        clock: times the runs and the slices.
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
        engine = engine or next(name for name in _ENGINES if importlib.util.find_spec(name))
        _check_name("engine", engine, tuple(_ENGINES))
        self._precision = precision
        self._threads = threads
        self._clock = clock or MonotonicClock()
        self._probes = probes or [_ENGINES[engine](precision, threads, chain, self._clock) for chain in CHAINS]
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

    def slice(self, seconds: float) -> None:
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


def measure(
    precision: str,
    threads: int,
    *,
    duration_s: float = 2.0,
    clock: Clock | None = None,
    engine: str | None = None,
) -> Roofline:
    """This machine's roof for a precision and a number of threads, in about `duration_s` seconds.

    Arguments and errors are those of `RooflineContestant`; a precision that cannot be measured here is no error but a
    `Roofline` with a reason and no rate.

    Raises:
        BackendMissingError: the engine that was asked for is not installed.
    """
    contestant = RooflineContestant(precision, threads, engine=engine, clock=clock)
    contestant.prepare()
    contestant.slice(duration_s)
    return contestant.result()


def blas_threads(environ: Mapping[str, str]) -> int:
    """How many threads numpy's BLAS was started with: what its variables in `environ` say, or else the usable cores."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS"):
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kernels(chain: Chain) -> list[npt.NDArray[np.float32]]:
    """One matrix [in, out] per convolution, scaled so that the flow neither fades into denormals nor overflows."""
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((c, d)) / np.sqrt(c)).astype(np.float32)
        for c, d in zip(chain.widths, chain.widths[1:], strict=False)
    ]


def _pixels(chain: Chain) -> npt.NDArray[np.float32]:
    """The input map as [pixels, channels], values in [0, 1)."""
    return np.random.default_rng(1).random((chain.size**2, chain.widths[0]), dtype=np.float32)


def _imported(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BackendMissingError(f"{package} cannot be imported ({error}): pip install {package}") from error


def _unprepared() -> None:
    raise UsageError("run_once before prepare: call prepare first")


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError(f"{what} {name!r}: expected one of {', '.join(known)}")
