"""What a benchmark is asked for: `BenchConfig` says how to measure, `BenchRequest` what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgetrack.box import Box
from edgetrack.capabilities import is_device
from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.io import check_output
from edgetrack.system.sampler import Expectation

DEFAULT_SOURCE = "synthetic:drift?frames=120&size=1280x720"
_DAY_S = 86_400.0
_MOST_ROUNDS = 1000


class BenchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure: the command line fills it, every worker receives it, the record keeps it as its `settings`.

    Attributes:
        scenario: how frames arrive, a key of `scenarios.SCENARIOS`.
        device: where candidates run that have no place of their own: cpu, cuda:0, or what else their targets offer;
            in a record all places, joined by "and".
        threads: of every candidate; 0: all usable cores.
        warmup_s: seconds before the first round, and at least 10 frames.
        duration_s, iterations: seconds and frames of each candidate and speed over all rounds; both are reached.
        rounds: how often every candidate is measured, interleaved with the others; 0: the scenario's own number.
        fps: frames per second that arrive; None: the scenario's own rate, or back to back.
        streams: trackers that run at once; 0: the scenario's own number.
        batched: whether these are targets of one tracker for several, in place of trackers of their own.
        profile: name of the device's profile.
        auto_threads: whether each candidate finds its own number by a race, `threads` at most.
    """

    scenario: str = "stream"
    device: str = "cpu"
    threads: int = 0
    warmup_s: float = 1.0
    duration_s: float = 6.0
    iterations: int = 150
    rounds: int = 0
    fps: float | None = None
    streams: int = 0
    batched: bool = False
    profile: str | None = None
    auto_threads: bool = False

    @property
    def round_s(self) -> float:
        """Seconds of one candidate in one round."""
        return self.duration_s / self.rounds

    @property
    def round_frames(self) -> int:
        """Fewest frames of one candidate in one round."""
        return math.ceil(self.iterations / self.rounds)

    def check(self) -> None:
        """Check every value but those that only its scenario understands.

        Raises:
            DeviceUnavailableError: a device that cannot be measured.
            UsageError: a number outside its range.
        """
        if not is_device(self.device):
            raise DeviceUnavailableError(
                f"device {self.device!r} cannot be measured here; expected cpu, cuda:0, or what else a target offers "
                "(`edgetrack list --targets`)"
            )
        for name, value, low, high in (
            ("threads", self.threads, 0, math.inf),
            ("iterations", self.iterations, 1, math.inf),
            ("rounds", self.rounds, 0, _MOST_ROUNDS),
            ("warmup", self.warmup_s, 0, _DAY_S),
            ("duration", self.duration_s, 0, _DAY_S),
        ):
            if not low <= value <= high:
                upper = "or more" if high == math.inf else f"to {high:g}"
                raise UsageError(f"{name} {value}: expected {low} {upper}")


@dataclass(frozen=True)
class BenchRequest:
    """What to measure, and how.

    Attributes:
        bundles: each with an optional `@HINT`; none: those in `./out`.
        hint: precision hint for every bundle whose target takes it.
        reference: the PyTorch bundle to compare with; None: one is found or made.
        with_reference: whether to compare with PyTorch.
        attainable: whether to time each candidate's layers alone, see `protocol.Attainable`.
        source, box: the frames, and the target in the first of them.
        output: where the record is saved after each round.
        overwrite: whether the output may exist.
        timeout_s: longest wait for one answer of a worker, in seconds.
        expected: what the device's profile expects.
        places: where on the device each target runs; empty: all candidates run on `config.device`.
    """

    config: BenchConfig = field(default_factory=BenchConfig)
    bundles: tuple[str, ...] = ()
    hint: str | None = None
    reference: str | None = None
    with_reference: bool = True
    attainable: bool = False
    source: str = DEFAULT_SOURCE
    box: Box | None = None
    output: Path | None = None
    overwrite: bool = False
    timeout_s: float = 120.0
    expected: Expectation = field(default_factory=Expectation)
    places: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check what does not depend on the scenario.

        Raises:
            UsageError: values that exclude each other or are out of range, or an output that exists.
        """
        if not 0 < self.timeout_s <= _DAY_S:
            raise UsageError(f"timeout {self.timeout_s}: expected seconds above 0, up to {_DAY_S:g}")
        if self.reference is not None and not self.with_reference:
            raise UsageError("--reference and --no-reference exclude each other; give one of them")
        self.check_output()

    def check_output(self) -> None:
        """See that nothing is overwritten unasked.

        Raises:
            UsageError: the output exists.
        """
        check_output(self.output, overwrite=self.overwrite)


class SourceNote(msgspec.Struct, frozen=True, kw_only=True):
    """What was tracked: the source as given, its frame size (width, height) and the box (x, y, w, h), in pixels.

    `camera` says what the camera speed reads.
    """

    spec: str
    size: tuple[int, int]
    box: Box
    camera: str
