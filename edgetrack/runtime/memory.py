"""Memories of past frames, of crops or of what a graph made of them: which a frame asks for, and how many are kept.

Entry 0 is the first frame's crop; one more is appended for each tracked frame. t counts tracked frames from 1: when
frame t is searched, entries 0..t-1 are there.
"""

from __future__ import annotations

import itertools
import math
import re
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgetrack.arrays import Array
from edgetrack.errors import UsageError

MINUTE = 1800
"""Frames in a minute of video at 30 frames a second."""


def _uniform(t: int, count: int) -> tuple[int, ...]:
    # As published: with one template, it is the first frame's.
    if t <= count or count == 1:
        return tuple(range(min(t, count)))
    step = t // count
    return tuple(sorted({0, *(j * step + step // 2 for j in range(count))}))


def _nearest(t: int, count: int) -> tuple[int, ...]:
    return tuple(range(max(0, t - count), t))


def _fixed(t: int, count: int) -> tuple[int, ...]:
    if t <= count or count == 1:
        return (*range(min(t, count)), *[t - 1] * (count - t))
    step = t // (count - 1)
    return (0, *(j * step + step // 2 for j in range(count - 1)))


def _spread(t: int, count: int) -> tuple[int, ...]:
    return tuple(j * t // count for j in range(count)) if t > count else _fixed(t, count)


def _latest(t: int, count: int) -> tuple[int, ...]:
    if t <= count:
        return _fixed(t, count)
    return (t - 1,) if count == 1 else tuple(j * (t - 1) // (count - 1) for j in range(count))


def _plain_number(text: str) -> int:
    """A number of at most eight digits; -1 for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 8 else -1


CONFIDENT = "confident"
"""The rule that asks for scores: without any it is `nearest`, whose number of entries it has."""
_RULES: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "uniform": _uniform,
    "nearest": _nearest,
    "fixed": _fixed,
    "spread": _spread,
    "latest": _latest,
    CONFIDENT: _nearest,
}


@dataclass(frozen=True)
class MemorySchedule:
    """Which entries a frame asks for; written `RULE:COUNT`.

    Attributes:
        rule: `uniform`, the middles of `count` equal spans of the past and entry 0; `nearest`, the last `count`;
            `fixed`, always `count`: entry 0 and the middles of `count` - 1 spans; `spread`, always `count`: where
            `count` equal spans begin; `latest`, always `count`: evenly from entry 0 to the newest; `confident`, entry 0
            and the `count` - 1 of the highest scores.
        count: 1 or more. With 1, all but `nearest` and `latest` ask for entry 0.
    """

    rule: str
    count: int

    @classmethod
    def parse(cls, text: str, *, scored: bool = False) -> MemorySchedule:
        """`uniform:3` and the like.

        Args:
            text: as it is written.
            scored: whether the tracker keeps scores, which `confident` asks for.

        Raises:
            ValueError: it is none, or asks for scores that are not kept.
        """
        rule, _, count = text.partition(":")
        if rule not in _RULES or not 1 <= _plain_number(count) <= 64:
            raise ValueError(f"schedule {text!r}: expected {', '.join(_RULES)} and a count of 1..64, such as uniform:3")
        if rule == CONFIDENT and not scored:
            raise ValueError(f"schedule {text!r}: this tracker keeps no scores of past frames, use uniform:{count}")
        return cls(rule, int(count))

    def choose(self, t: int) -> tuple[int, ...]:
        """Entries for tracked frame t >= 1, in order of time; `MemoryBank.chosen` of a rule that asks for scores."""
        return _RULES[self.rule](t, self.count)

    @property
    def first_only(self) -> bool:
        """Whether nothing but entry 0 is ever asked for."""
        return self.count == 1 and self.rule not in ("nearest", "latest")

    @property
    def scored(self) -> bool:
        """Whether entries are chosen by their scores."""
        return self.rule == CONFIDENT

    @property
    def most(self) -> int:
        """The most entries that are ever asked for."""
        return self.count + 1 if self.rule == "uniform" and self.count > 1 else self.count

    @property
    def full_at(self) -> int:
        """The tracked frame, from 1, at which for the first time as many entries are asked for as ever."""
        return next(t for t in itertools.count(1) if len(self.choose(t)) == self.most)

    @property
    def bound(self) -> int | None:
        """How many entries are kept whatever the retention, where a frame asks for all that later ones may ask for."""
        return self.count if self.rule == "nearest" or self.scored or self.first_only else None


FORGOTTEN = 0.01
"""An entry that has faded to this weight is gone."""
ABSENT = 1e4
"""Graphs subtract this from the similarity of what `present` calls 0."""


class Retention(NamedTuple):
    """How entries are kept; written `exact`, `exact:disk`, `bounded:M` or `decay:G`.

    Attributes:
        limit: the most entries, or None for all that may be asked for again.
        disk: kept in a temporary file.
        fade: by how much an entry's weight shrinks with each frame, but for the first frame's; None: not at all. The
            newest entries are kept, those above `FORGOTTEN`.
    """

    limit: int | None
    disk: bool
    fade: float | None = None

    @property
    def keeps_sources(self) -> bool:
        """Whether an `EncodedMemory` keeps sources, not their codes: without a bound, what is kept must be small."""
        return self.limit is None

    @classmethod
    def parse(cls, text: str, *, fades: bool = False) -> Retention:
        """Read what a recipe or a user wrote.

        Args:
            text: as it is written.
            fades: whether the tracker weighs what it remembers, which `decay` asks for.

        Raises:
            ValueError: it is none, or asks for weights that the tracker does not have.
        """
        if text in ("exact", "exact:disk"):
            return cls(None, text == "exact:disk")
        kind, _, limit = text.partition(":")
        if kind == "bounded" and 2 <= _plain_number(limit) <= 1_000_000:
            return cls(int(limit), False)
        if kind == "decay" and re.fullmatch(r"0?\.\d{1,6}", limit) and 0 < float(limit) < 1:
            if not fades:
                raise ValueError(f"memory {text!r}: this tracker does not weigh past frames, use bounded:64")
            return cls(2 + int(math.log(FORGOTTEN) / math.log(float(limit))), False, float(limit))
        further = (
            ", bounded:M with M of 2 or more, or decay:G with G between 0 and 1"
            if fades
            else " or bounded:M with M of 2 or more"
        )
        raise ValueError(f"memory {text!r}: expected exact, exact:disk{further}")


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that past frames take.

    Attributes:
        entry_bytes: of one entry.
        retention: as chosen.
        schedule: which entries are asked for.
    """

    entry_bytes: int
    retention: Retention
    schedule: MemorySchedule

    def entries(self, frames: int) -> int:
        """Entries kept after a number of tracked frames."""
        return frames + 1 if self._bound is None else min(frames + 1, self._bound)

    def nbytes(self, frames: int) -> int:
        """Bytes kept after a number of tracked frames."""
        return self.entries(frames) * self.entry_bytes

    def text(self) -> str:
        """One line; MB of 10^6 bytes."""
        where = " in a temporary file" if self.retention.disk and self.schedule.bound is None else ""
        entry = f"{self.entry_bytes / 1e3:.0f} kB an entry"
        if self._bound is not None:
            most = "1 entry" if self._bound == 1 else f"{self._bound} entries"
            return f"{entry}, {most} at most: {self._bound * self.entry_bytes / 1e6:.1f} MB{where}"
        return (
            f"{entry}, one a frame without end{where}: {self.nbytes(MINUTE) / 1e6:.0f} MB after a minute at 30 fps; "
            "bounded:M bounds it"
        )

    @property
    def _bound(self) -> int | None:
        return self.retention.limit if self.schedule.bound is None else self.schedule.bound


class MemoryBank:
    """Entries of one shape, by the number of their frame.

    `bounded:M` keeps every s-th entry, the first and the newest; when there would be more than M, s doubles. What is
    gone is answered with the nearest that is kept: the error is at most s / 2 frames (tested).
    """

    def __init__(self, retention: Retention, schedule: MemorySchedule, shape: tuple[int, ...], dtype: Any) -> None:
        self.schedule = schedule
        self._retention = retention
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._count = 0
        self._spacing = 1
        self._held: dict[int, Array] = {}
        self._scores: dict[int, float] = {}
        disk = retention.disk and schedule.bound is None
        self._file = _File(int(np.prod(shape)) * self._dtype.itemsize) if disk else None

    @property
    def estimate(self) -> MemoryEstimate:
        """The memory that it takes."""
        entry = int(np.prod(self._shape)) * self._dtype.itemsize
        return MemoryEstimate(entry, self._retention, self.schedule)

    @property
    def nbytes(self) -> int:
        """Bytes of the entries that lie in memory now."""
        return sum(entry.nbytes for entry in self._held.values())

    @property
    def count(self) -> int:
        """How many entries were appended: t of the next frame."""
        return self._count

    @property
    def spacing(self) -> int:
        """How far kept entries are apart."""
        return self._spacing

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()
        self._scores.clear()
        self._count, self._spacing = 0, 1

    def chosen(self) -> tuple[int, ...]:
        """The entries that the next frame asks for, in order of time; the earlier one of two with one score.

        Where entries fade, the schedule's choice among those that are left.
        """
        if self._retention.fade is not None:
            left = sorted(self._held)
            return tuple(left[place] for place in self.schedule.choose(len(left)))
        if not self.schedule.scored:
            return self.schedule.choose(self._count)
        best = sorted(self._scores, key=lambda index: (-self._scores[index], index))
        return tuple(sorted(best[: self.schedule.count]))

    def presence(self, index: int) -> float:
        """What a graph's `present` says of an entry: 1, or less by the logarithm of its weight over `ABSENT`."""
        if self._retention.fade is None or index == 0:
            return 1.0
        return 1 + (self._count - 1 - index) * math.log(self._retention.fade) / ABSENT

    def append(self, entry: Array, score: float = math.inf) -> None:
        """Take a copy of the newest entry, and the score with which it was found: infinity for the first frame's."""
        number = self._count
        self._count += 1
        if self._file is not None:
            self._file.write(number, entry)
            return
        if self.schedule.bound is not None:
            self._keep_chosen(number, entry, score)
        elif self._retention.fade is not None:
            self._keep_newest(number, entry)
        else:
            self._keep_spaced(number, entry)

    def _keep_chosen(self, number: int, entry: Array, score: float) -> None:
        if self.schedule.scored:
            self._scores[number] = score
        chosen = self.chosen()
        if number in chosen:
            self._held[number] = np.array(entry, self._dtype)
        for index in [index for index in self._held if index not in chosen]:
            del self._held[index]
        self._scores = {index: score for index, score in self._scores.items() if index in chosen}

    def _keep_newest(self, number: int, entry: Array) -> None:
        self._held[number] = np.array(entry, self._dtype)
        oldest = number + 2 - (self._retention.limit or 2)
        for index in [index for index in self._held if 0 < index < oldest]:
            del self._held[index]

    def _keep_spaced(self, number: int, entry: Array) -> None:
        before = number - 1
        if self._retention.limit is not None and before % self._spacing:
            self._held.pop(before, None)
        self._held[number] = np.array(entry, self._dtype)
        while self._retention.limit is not None and len(self._held) > self._retention.limit:
            self._spacing *= 2
            for index in [i for i in self._held if i % self._spacing and i != number]:
                del self._held[index]

    def read(self, index: int, out: Array) -> int:
        """Copy an entry, or the nearest that is kept, into `out`; returns its number.

        Raises:
            IndexError: there was never such an entry.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"entry {index} of a memory of {self._count}")
        if self._file is not None:
            self._file.read(index, out)
            return index
        kept = index if index in self._held else min(self._held, key=lambda held: (abs(held - index), held))
        np.copyto(out, self._held[kept])
        return kept


class _File:
    """Entries in an unnamed temporary file, gone with this object."""

    def __init__(self, entry_bytes: int) -> None:
        self._entry_bytes = entry_bytes
        try:
            self._file = tempfile.TemporaryFile(prefix="edgetrack-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"no temporary file for the memory: {error.strerror}; set TMPDIR, or use exact") from None
        weakref.finalize(self, self._file.close)

    def write(self, slot: int, entry: Array) -> None:
        data = np.ascontiguousarray(entry).view(np.uint8).reshape(-1).data
        try:
            self._file.seek(slot * self._entry_bytes)
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            raise UsageError(
                f"the memory's temporary file cannot grow: {error.strerror}; set TMPDIR to a larger disk, or use "
                "memory bounded:M"
            ) from None

    def read(self, slot: int, out: Array) -> None:
        target = out.view(np.uint8).reshape(-1).data
        self._file.seek(slot * self._entry_bytes)
        while target:
            got = self._file.readinto(target)
            if not got:
                raise UsageError("the memory's temporary file is shorter than what was written to it; start again")
            target = target[got:]


class EncodedMemory:
    """Sources of one shape (a crop and where the target is in it) and their codes (what a graph made of them).

    `bounded:M` keeps M codes. `exact` and `exact:disk` keep all sources, which are smaller; a code that is asked for
    again is made again, unless it lies in the graph's input still.
    """

    def __init__(
        self,
        retention: Retention,
        schedule: MemorySchedule,
        source: Array,
        codes: Array,
        present: Array,
        encode: Callable[[Array, Array], None],
    ) -> None:
        """Make an empty memory.

        Args:
            source: one source, for its shape and dtype.
            codes: (T, ..), the graph's input, written in place.
            present: (1, T), the graph's input that says which codes there are: see `MemoryBank.presence`, or 0.
            encode: makes a code of a source: reads the first array, writes the second.
        """
        self._codes, self._present, self._encode = codes, present, encode
        self._newest = np.zeros_like(codes[0])
        self._source = np.zeros_like(source)
        self._sources = retention.keeps_sources
        entry = self._source if self._sources else self._newest
        self.bank = MemoryBank(retention, schedule, entry.shape, entry.dtype)
        self._held: list[int | None] = [None] * len(codes)

    def clear(self) -> None:
        """Forget all."""
        self.bank.clear()
        self._held = [None] * len(self._held)
        self._newest[...] = 0
        self._source[...] = 0

    def append(self, source: Array, code: Array) -> None:
        """Take copies of the newest source and its code; of a code that is not finite, the ones before stay."""
        with np.errstate(all="ignore"):
            finite = bool(np.isfinite(code.sum()))
        if finite:
            np.copyto(self._source, source)
            np.copyto(self._newest, code)
        self.bank.append(self._source if self._sources else self._newest)

    def recall(self, wanted: Sequence[int]) -> None:
        """Put the codes of these entries, in any order, into the graph's input; at most T. One may be asked for twice.

        Raises:
            IndexError: there was never such an entry.
        """
        used: set[int] = set()
        missing = []
        for index in wanted:
            slot = next((s for s, held in enumerate(self._held) if held == index and s not in used), None)
            if slot is None:
                missing.append(index)
            else:
                used.add(slot)
        for index in missing:
            slot = next(s for s in range(len(self._held)) if s not in used)
            self._held[slot] = None
            self._fetch(index, self._codes[slot])
            self._held[slot] = index
            used.add(slot)
        self._present[0] = [
            self.bank.presence(held) if slot in used and held is not None else 0.0
            for slot, held in enumerate(self._held)
        ]

    def _fetch(self, index: int, out: Array) -> None:
        if index == self.bank.count - 1:
            np.copyto(out, self._newest)
        elif index in self._held:
            np.copyto(out, self._codes[self._held.index(index)])
        elif self._sources:
            source = np.empty_like(self._source)
            self.bank.read(index, source)
            self._encode(source, out)
        else:
            self.bank.read(index, out)
