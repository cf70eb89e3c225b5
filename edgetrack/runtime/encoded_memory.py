"""A memory of what a graph made of past frames: kept as it is where it is bounded, made again where it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrack.runtime.memory import Bank, Forecast, Retention, Schedule

Array = NDArray[Any]
Encode = Callable[[Array, Array], None]
"""Makes a code of a source: reads the first array, writes the second."""


def keeps_sources(retention: Retention) -> bool:
    """Whether sources are kept, not their codes: without a bound, what is kept must be small."""
    return retention.limit is None


def forecast_of(retention: Retention, schedule: Schedule, source_bytes: int, code_bytes: int) -> Forecast:
    """What such a memory will take."""
    entry = source_bytes if keeps_sources(retention) else code_bytes
    return Forecast(entry, retention, schedule)


class EncodedMemory:
    """Sources of one shape (a crop and where the target is in it) and their codes (what a graph made of them).

    `bounded:M` keeps M codes. `exact` and `exact:disk` keep all sources, which are smaller; a code that is asked for
    again is made again, unless it lies in the graph's input still.
    """

    def __init__(
        self, retention: Retention, schedule: Schedule, source: Array, codes: Array, present: Array, encode: Encode
    ) -> None:
        """Make an empty memory.

        Args:
            source: one source, for its shape and dtype.
            codes: (T, ..), the graph's input, written in place.
            present: (1, T), the graph's input that says which codes there are: 1 or 0.
            encode: makes a code of a source.
        """
        self._codes, self._present, self._encode = codes, present, encode
        self._newest = np.zeros_like(codes[0])
        self._source = np.zeros_like(source)
        self._sources = keeps_sources(retention)
        entry = self._source if self._sources else self._newest
        self.bank = Bank(retention, schedule, entry.shape, entry.dtype)
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
            sound = bool(np.isfinite(code.sum()))
        if sound:
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
        self._present[0] = [slot in used for slot in range(len(self._held))]

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
