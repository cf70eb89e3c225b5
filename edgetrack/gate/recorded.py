"""Bundles and records as `edgetrack check` takes them: `smat-openvino-fp32@bf16`, `bench.json`, `bench.json:NAME`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.bundle.ref import BundleRef
from edgetrack.capabilities import open_ref
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.gate.evidence import Evidence, arrays
from edgetrack.gate.record import SideNote, TurnsMs

_SUFFIX = ".json"
_LARGEST_FILE = 2**28


@dataclass(frozen=True)
class Recording:
    """One result of a record that `edgetrack bench -o` wrote."""

    path: Path
    record: BenchRecord
    result: BenchResult

    @property
    def evidence(self) -> Evidence:
        """What it says; its rounds count as turns, and it knows one process only."""
        result, samples = self.result, self.result.samples_ms
        return Evidence(
            turns={"model": [arrays(samples.model)], "track": [arrays(samples.track)]},
            processes={"load_ms": [result.load_ms], "peak_rss_mb": [result.memory_mb.peak_rss]},
            size_mb=result.size_mb,
            single=True,
        )

    @property
    def turns_ms(self) -> TurnsMs:
        """Its samples, for the report."""
        return TurnsMs(model=self.result.samples_ms.model, track=self.result.samples_ms.track)

    @property
    def note(self) -> SideNote:
        """Its part in the report."""
        result = self.result
        return SideNote(
            bundle=result.label,
            tracker=result.tracker,
            target=result.target,
            precision=result.precision,
            weights=result.weights,
            size_mb=result.size_mb,
            versions=result.versions,
            load_ms=[result.load_ms],
            peak_rss_mb=[result.memory_mb.peak_rss],
            recorded=True,
            code=None,
        )


def open_given(text: str, option: str, like: str | None = None) -> BundleRef | Recording:
    """A bundle, or one result of a record.

    Args:
        text: see the module. Of a record with several results, `like` is taken where it has that one.
        option: how it was given, for messages.
        like: the other side's label.

    Raises:
        UsageError: no such file, no record, or one whose samples are of no use.
        UnknownNameError: the record does not hold that bundle.
        EdgetrackError: the bundle cannot be opened.
    """
    path, _, wanted = (text, "", "") if text.endswith(_SUFFIX) else text.partition(f"{_SUFFIX}:")
    if not text.endswith(_SUFFIX) and not wanted:
        return open_ref(text)
    file = Path(path if text.endswith(_SUFFIX) else path + _SUFFIX)
    record = BenchRecord.from_json(_read(file, option), source=str(file))
    results = {result.label: result for result in record.results}
    name = wanted or (next(iter(results)) if len(results) == 1 else like or "")
    if name not in results:
        raise UnknownNameError(
            f"{file} holds {', '.join(results) or 'no results'}; say which one: {option} {file}:NAME".strip()
        )
    _check(file, results[name])
    return Recording(file, record, results[name])


def _read(file: Path, option: str) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(
            f"{option} {file} cannot be read: {error.strerror}; give a bundle, or a bench.json".strip()
        ) from None
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"{file} is larger than {_LARGEST_FILE >> 20} MB; give what `edgetrack bench -o` wrote")
    return data


def _check(file: Path, result: BenchResult) -> None:
    for rounds in (result.samples_ms.model, result.samples_ms.track):
        if not rounds or not all(turn and min(turn) > 0 and max(turn) < math.inf for turn in rounds):
            raise UsageError(
                f"{file} has a round of {result.label} without positive, finite samples; record it again: "
                f"edgetrack bench {result.label} -o {file} --overwrite"
            )
