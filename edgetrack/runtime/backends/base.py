"""What a backend is: a class that opens one graph file and runs it on buffers that are made once.

A public method checks state and input and names the fix; a private one does the work. A new backend subclasses
`CompiledGraph`, implements `_open`, `_infer` and `_close`, and gets a row in
`edgetrack.capabilities`. What else it can do, it says by overriding a class method.
"""

from __future__ import annotations

import abc
import pkgutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import GraphInfo, Manifest, TensorInfo
from edgetrack.bundle.reader import Bundle
from edgetrack.errors import BundleError, BundleIntegrityError, DeviceUnavailableError, EdgetrackError, UsageError

GraphSignature = dict[str, tuple[str, tuple[int, ...]]]
"""Name of an input or output -> dtype, shape."""


_SHOWN = 600


class StructureFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a bundle that cannot be run here: whether it passed, and what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class BackendOptions:
    """How a bundle is to be run.

    Attributes:
        device: `cpu`, `cuda:0`, ...; what a backend cannot serve it refuses (DeviceUnavailableError).
        threads: threads of one inference; at least 1.
        precision_hint: arithmetic asked of the backend at run time (`bf16`), None for the bundle's own precision.
        cache: folder for what a backend compiles, or None for no cache.
        operators: those that the tracker's family needs beyond plain ones, see `Procedure.operators`.
    """

    device: str = "cpu"
    threads: int = 1
    precision_hint: str | None = None
    cache: Path | None = None
    operators: frozenset[str] = frozenset()

    def require_cpu(self, backend: str) -> None:
        """Raise DeviceUnavailableError for any device but the processor."""
        if self.device != "cpu":
            raise DeviceUnavailableError(
                f"{backend} bundles run on the CPU here, not on {self.device!r}; use --device cpu"
            )

    def refuse_hint(self, backend: str, target: str | None = None) -> None:
        """Raise UsageError where a precision hint is given, with the precisions that `target` is exported in."""
        if self.precision_hint is not None:
            from edgetrack.capabilities import find_target

            export = f", or export with --precision {'|'.join(find_target(target).precisions)}" if target else ""
            raise UsageError(
                f"{backend} takes no precision hint, given {self.precision_hint!r}; drop --precision-hint{export}"
            )


def allocate(tensors: tuple[TensorInfo, ...]) -> dict[str, Array]:
    """Zeroed C-order arrays for a list of tensors, aligned to 64 bytes so that no backend copies them."""
    buffers: dict[str, Array] = {}
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        size = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
        raw = np.zeros(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        buffers[tensor.name] = raw[start : start + size].view(dtype).reshape(tensor.shape)
    return buffers


class CompiledGraph(abc.ABC):
    """One graph, opened on a device, with its input and output buffers.

    Write into `inputs[name]`, call `run()`, read `outputs[name]`: the arrays are the same ones on every call.
    `engine` is the backend's name in records, `probe` and `layer_timer` the `module:Class` of its `RooflineProbe` and
    its `LayerTimer`, if any. `arithmetic` says how it rounds where that is the same on every machine; empty where
    processor and versions decide. `same_peak` is what the same arithmetic may differ by, of an output's largest
    magnitude. `placement` is where the backend says that the graph runs, once it is open: `GPU.0 in f16`; empty where
    that cannot be a question.
    """

    engine: ClassVar[str]
    probe: ClassVar[str] = ""
    layer_timer: ClassVar[str] = ""
    arithmetic: ClassVar[str] = ""
    same_peak: ClassVar[float] = 0.02
    """Threads add up in another order, and a sum beside a rounding edge falls to the other side: SMAT in INT8 moves by
    0.0024 of the largest magnitude."""
    placement: str = ""

    @classmethod
    def runs_here(cls) -> bool:
        """Whether this operating system can run the backend; where it cannot, `check_structure` reads its files."""
        return True

    @classmethod  # noqa: B027
    def import_package(cls) -> None:
        """Import what opens its graphs, for `doctor`: a package that is installed may still not load.

        Raises:
            BackendMissingError: it cannot be imported.
        """

    @classmethod  # noqa: B027
    def require_hint(cls, hint: str) -> None:
        """Check, before anything is loaded, that this machine can compute as a precision hint asks.

        Raises:
            DeviceUnavailableError: it cannot.
        """

    @classmethod
    def devices_here(cls) -> tuple[str, ...]:
        """The devices that this installation finds here, as `--device` takes them, for `doctor`; empty: not asked."""
        return ()

    @classmethod  # noqa: B027
    def require_device_here(cls, device: str) -> None:
        """Check, before anything is loaded, that the installed package reaches a device of its target.

        Raises:
            BackendMissingError, DeviceUnavailableError: it does not; not every backend can tell so early.
        """

    @classmethod
    def doubt(cls, manifest: Manifest, options: BackendOptions) -> str:
        """What may go wrong with a bundle on this machine, as a sentence for who opens it; empty: nothing is known."""
        return ""

    @classmethod
    def check_structure(cls, bundle: Bundle) -> list[StructureFinding]:
        """All that can be said of a bundle without computing anything."""
        return []

    @classmethod
    def roofline_probe(cls) -> type[RooflineProbe] | None:
        """What measures the peak rate of this backend on the processor; None where nothing does."""
        return cast("type[RooflineProbe]", pkgutil.resolve_name(cls.probe)) if cls.probe else None

    def __init__(self, info: GraphInfo, path: Path, options: BackendOptions) -> None:
        """Open a graph file.

        Raises:
            BackendMissingError: the backend's package is not installed.
            DeviceUnavailableError: the device is not on this machine.
            BundleIntegrityError: the file is not the graph that the manifest describes.
        """
        if options.threads < 1:
            raise UsageError(f"threads is {options.threads}; give 1 or more")
        self.info = info
        self.inputs = allocate(info.inputs)
        self.outputs = allocate(info.outputs)
        self._closed = False
        try:
            self._open(path, options)
        except (EdgetrackError, OSError, MemoryError):
            raise
        except Exception as error:  # dynamic shapes, ports without names, types that NumPy has not; each its own class
            raise BundleIntegrityError(self._failed("cannot be opened", error)) from error

    def run(self) -> None:
        """Compute `outputs` from `inputs`.

        Raises:
            BundleError: the graph fails on them; the message names the graph and what the backend says of the node.
        """
        if self._closed:
            raise UsageError(f"graph {self.info.name!r} is closed; load the bundle again")
        try:
            self._infer()
        except (EdgetrackError, OSError, MemoryError):
            raise
        except Exception as error:  # the backends' exceptions share no base class; their text names the node
            raise BundleError(self._failed("fails while it runs", error)) from error

    def _failed(self, what: str, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        text = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
        return f"graph {self.info.name!r} {what} in {self.engine}: {text}; export the bundle again"

    def close(self) -> None:
        """Release the backend's memory; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._close()

    def _check_signature(self, side: str, found: GraphSignature) -> None:
        """Compare what a file declares with the manifest."""
        expected = {t.name: (t.dtype, t.shape) for t in (self.info.inputs if side == "inputs" else self.info.outputs)}
        if found != expected:
            raise BundleIntegrityError(
                f"graph {self.info.name!r}: the file's {side} are {found}, the manifest says {expected}; "
                "export the bundle again"
            )

    @abc.abstractmethod
    def _open(self, path: Path, options: BackendOptions) -> None: ...

    @abc.abstractmethod
    def _infer(self) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...


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

    def kernels(self) -> list[NDArray[np.float32]]:
        """One matrix [in, out] per convolution, scaled so that values neither become denormals nor overflow."""
        rng = np.random.default_rng(0)
        return [
            (rng.standard_normal((c, d)) / np.sqrt(c)).astype(np.float32)
            for c, d in zip(self.widths, self.widths[1:], strict=False)
        ]

    def pixels(self) -> NDArray[np.float32]:
        """The input map as [pixels, channels], values in [0, 1)."""
        return np.random.default_rng(1).random((self.size**2, self.widths[0]), dtype=np.float32)


class RooflineProbe(abc.ABC):
    """One chain of convolutions in one engine: `prepare` once, then `run_once` as often as wanted.

    Args:
        chain: what is computed.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        threads: 1 or more.
        now_ns: a clock in nanoseconds.
        cpu_flags: the processor's features, as Linux names them.
    """

    engine: ClassVar[str]

    def __init__(
        self,
        chain: Chain,
        precision: str,
        threads: int,
        *,
        now_ns: Callable[[], int],
        cpu_flags: Collection[str] = (),
    ) -> None:
        self.chain, self.precision, self.threads = chain, precision, threads
        self._now_ns, self._cpu_flags = now_ns, cpu_flags
        self._compute: Callable[[], object] | None = None

    def prepare(self) -> None:
        """Build what `run_once` runs, and run it once.

        Raises:
            BackendMissingError: the engine is not installed.
            DeviceUnavailableError: the engine does not compute in that precision, or with that many threads, here.
        """
        self._compute = self._build()
        self.run_once()

    def run_once(self) -> tuple[int, float]:
        """Run the chain once: its FLOPs and the seconds it took."""
        if self._compute is None:
            raise UsageError("run_once before prepare: call prepare first")
        start = self._now_ns()
        self._compute()
        return self.chain.flops, (self._now_ns() - start) / 1e9

    @abc.abstractmethod
    def _build(self) -> Callable[[], object]:
        """What computes the chain once when it is called."""
