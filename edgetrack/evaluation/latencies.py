"""Latencies that `edgetrack bench --json` recorded, on this device or another, to be replayed."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgetrack.bundle.ref import bundle_label
from edgetrack.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Recorded:
    """Milliseconds of successive updates of one bundle.

    Attributes:
        label: the bundle's name, with its hint where it had one.
        samples: in the order in which they were measured; finite and 0 or more, one at least.
    """

    label: str
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.array(self.samples, np.float64)
        if not (values.size and np.isfinite(values).all() and (values >= 0).all()):
            raise UsageError(
                f"the recorded latencies of {self.label} are no {len(self.samples)} finite milliseconds of 0 or more; "
                "record them again with: edgetrack bench BUNDLE -o bench.json"
            )

    @property
    def digest(self) -> str:
        """A hash of the samples."""
        return hashlib.sha256(np.array(self.samples, "<f8").tobytes()).hexdigest()

    def replay(self, seed: str) -> Iterator[float]:
        """The samples in their order, over and over, from a place that the seed (a sequence's name) decides.

        Their order is kept because slow updates come in rows (throttling, another process), and what delays a stream is
        the row.
        """
        start = int(np.random.default_rng(zlib.crc32(seed.encode())).integers(len(self.samples)))
        return itertools.chain(self.samples[start:], itertools.cycle(self.samples))


class _Samples(msgspec.Struct):
    track: list[list[float]]


class _Result(msgspec.Struct):
    bundle: str
    samples_ms: _Samples
    hint: str | None = None

    @property
    def label(self) -> str:
        return bundle_label(self.bundle, self.hint)


class _Bench(msgspec.Struct):
    schema: int
    results: list[_Result]


def read_latencies(spec: str, label: str) -> Recorded:
    """The track latencies of one bundle in a file that `edgetrack bench -o` wrote.

    Args:
        spec: the file, or `FILE:BUNDLE` where it holds others than the one that is evaluated.
        label: the bundle that is evaluated, which is taken where the file has it and nothing else is said; a file with
            one bundle needs no name.

    Raises:
        UsageError: no such file, or no benchmark's.
        UnknownNameError: the file does not hold that bundle.
    """
    path, _, wanted = (spec, "", "") if Path(spec).is_file() or ":" not in spec else spec.rpartition(":")
    results = {result.label: result for result in _read(Path(path)).results}
    if not wanted:
        wanted = next(iter(results)) if len(results) == 1 else label
    if wanted not in results:
        raise UnknownNameError(
            f"{path} holds no latencies of {wanted!r}; it has: {', '.join(results) or 'none'}; "
            f"give one of them as --latencies {path}:NAME"
        )
    return Recorded(wanted, tuple(ms for turn in results[wanted].samples_ms.track for ms in turn))


def _read(path: Path) -> _Bench:
    try:
        bench = msgspec.json.decode(path.read_bytes(), type=_Bench)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"latencies {path} cannot be read: {reason}; give FILE or FILE:BUNDLE") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not what `edgetrack bench -o` writes: {error}") from error
    if bench.schema != 1:
        raise UsageError(f"{path} has schema {bench.schema}; this edgetrack reads schema 1; record it again")
    return bench
