"""The numbers that trackers share which remember template crops of past frames."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from edgetrack.runtime.memory import Bank, Retention, Schedule


class TemplateMemorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Crops of the OSTrack family and a memory of them; `schedule` and `memory` as in `edgetrack.runtime.memory`.

    `lost_below` is ours: a confidence under it flags the result as lost; the box is reported and followed all the same.
    """

    template_factor: float
    template_size: int
    search_factor: float
    search_size: int
    clip_margin: float
    schedule: str
    memory: str
    lost_below: float

    def __post_init__(self) -> None:
        positive = (self.template_factor, self.template_size, self.search_factor, self.search_size, self.clip_margin)
        if not all(0 < value < math.inf for value in positive) or not math.isfinite(self.lost_below):
            raise ValueError(f"sizes, factors and margin must be positive and all numbers finite, found {self}")
        Schedule.parse(self.schedule)
        Retention.parse(self.memory)

    @property
    def entry(self) -> tuple[int, ...]:
        """Shape of what is remembered of a frame: its template crop."""
        return self.template_size, self.template_size, 3

    def bank(self) -> Bank:
        """An empty memory."""
        return Bank(Retention.parse(self.memory), Schedule.parse(self.schedule), self.entry, np.uint8)
