"""Where calibration crops come from: named lists, and data sets on which the tracker is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgetrack.evaluation.datasets import SYNTHETIC, Dataset, open_dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.quantization.calibration import DEFAULT, CalibrationSet, Part, find_set, make_set, set_names
from edgetrack.quantization.collect import Wish, collect
from edgetrack.runtime.trackers.base import Procedure


@dataclass(frozen=True)
class Sources:
    """What `--calib` named, in order: sets by name or file, and data sets; `wish.size` is shared by the latter.

    Attributes:
        names: at least one.
        layout: of the data sets; found out where None.
    """

    names: tuple[str, ...] = (DEFAULT,)
    layout: str | None = None
    wish: Wish = field(default_factory=Wish)

    def choose(self, procedure: Procedure, progress: Callable[[str], None]) -> CalibrationSet:
        """The items of all of them as one set.

        Raises:
            CalibrationError, DatasetError, UnknownNameError: one of them is not what it should be.
        """
        if len(self.names) == 1 and _is_set(self.names[0]):
            return find_set(self.names[0])
        parts: list[Part] = []
        collected = [name for name in self.names if not _is_set(name)]
        for name in self.names:
            if _is_set(name):
                parts.extend(find_set(name).parts)
            else:
                size = max(1, self.wish.size // len(collected))
                wish = Wish(size, self.wish.seed, self.wish.centre_jitter, self.wish.scale_jitter)
                dataset = open_dataset(name, self.layout)
                items = collect(_sequences(dataset), procedure, wish, progress)
                parts.append(Part(dataset=dataset.where, layout=_layout(dataset), items=items))
        about = f"collected by running the tracker, seed {self.wish.seed}"
        return make_set("collected", tuple(parts), about)

    def clips(self, part: Part) -> Mapping[str, Clip]:
        """The clips of a part that it names.

        Raises:
            DatasetError, SequenceError: the data set is not there, or a sequence of it cannot be read.
        """
        dataset = open_dataset(part.dataset, part.layout)
        wanted = {item.clip for item in part.items}
        return {entry.name: dataset.read(entry) for entry in dataset.entries if entry.name in wanted}


def _is_set(name: str) -> bool:
    return name.endswith(".toml") or (name in set_names() and not Path(name).exists())


def _layout(dataset: Dataset) -> str | None:
    return None if dataset.where.startswith(SYNTHETIC) else dataset.layout


def _sequences(dataset: Dataset) -> Sequence[Clip]:
    return [dataset.read(entry) for entry in dataset.entries]
