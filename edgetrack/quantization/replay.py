"""From a calibration set to what every graph is fed: the tracker is put where each item says, and its inputs kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.bundle.manifest import GraphRole
from edgetrack.errors import CalibrationError
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.exporting.lowering import Inputs
from edgetrack.quantization.calibration import CalibrationSet, Item, Numbers, Part
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import prepare_text
from edgetrack.runtime.trackers.base import Procedure

Clips = Callable[[Part], Mapping[str, Clip]]
"""Opens the data set of a part: clips by name."""


def replay(
    chosen: CalibrationSet,
    clips: Clips,
    procedure: Procedure,
    graphs: Mapping[str, CompiledGraph],
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, list[Inputs]]:
    """What each graph is fed for each item: graph -> list of input name -> array.

    A graph that runs once a target (`init`) has an entry for each target of the set, any other an entry for each item:
    one that runs when it is chosen, what it would have been fed. State tensors are what the tracker carries at that
    moment: one that remembers tracks the frames between the items too. Where a clip has one image a frame and the
    tracker takes two, its negative is the second; where nothing is said of a target and the tracker reads text, a
    stand-in is said.

    Raises:
        CalibrationError: a clip or frame of the set is not there.
        SourceError, SourceInterruptedError: a clip cannot be read.
    """
    fed: dict[str, list[Inputs]] = {name: [] for name in graphs}
    for part in chosen.parts:
        available = clips(part)
        for name, items in _by_clip(part.items).items():
            if name not in available:
                raise CalibrationError(
                    f"calibration set {chosen.name!r} names clip {name!r}, which {part.dataset} has not; "
                    "give the data set that it was made from"
                )
            progress(f"calibration: {len(items)} crops of {name}")
            _replay_clip(available[name], items, procedure, graphs, fed)
    return fed


def _by_clip(items: Iterable[Item]) -> dict[str, list[Item]]:
    by: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by[item.clip].append(item)
    return by


def _by_target(items: Iterable[Item]) -> dict[tuple[int, Numbers], dict[int, list[Item]]]:
    """Targets one after the other, which are then followed in order of frames: a clip is read once for each target."""
    targets: dict[tuple[int, Numbers], dict[int, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        targets[item.template_frame, item.template][item.frame].append(item)
    return targets


class SampleOrigin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an entry of `replay` comes from.

    Attributes:
        dataset, clip: of the set.
        template_frame, template: frame (from 0) and box (x, y, w, h in pixels) that the tracker was started with.
        frame, box: what was searched, and around which box; None for a graph that runs once a target.
    """

    dataset: str
    clip: str
    template_frame: int
    template: Numbers
    frame: int | None = None
    box: Numbers | None = None


def origins(chosen: CalibrationSet, role: GraphRole) -> tuple[SampleOrigin, ...]:
    """Where the entries of a graph of that role come from, in the order of `replay`."""
    found = []
    for part in chosen.parts:
        for clip, items in _by_clip(part.items).items():
            for (start, template), due in _by_target(items).items():
                target = SampleOrigin(dataset=part.dataset, clip=clip, template_frame=start, template=template)
                if role == "init":
                    found.append(target)
                    continue
                for frame in sorted(due):
                    found += [msgspec.structs.replace(target, frame=frame, box=item.box) for item in due[frame]]
    return tuple(found)


def _replay_clip(
    clip: Clip,
    items: list[Item],
    procedure: Procedure,
    graphs: Mapping[str, CompiledGraph],
    fed: dict[str, list[Inputs]],
) -> None:
    prepare_text(procedure, clip.text)
    for (start, template), due in _by_target(items).items():
        last = max(due)
        with clip.open(min(clip.images, procedure.modalities)) as frames:
            index = -1
            for index, plain in enumerate(frames):
                frame = with_stand_in(plain, procedure.modalities)
                if index == start:
                    procedure.init(frame, Box(*template))
                    _keep(graphs, "init", fed)
                elif index > start and index not in due and procedure.remembers:
                    # What lies between is remembered too.
                    procedure.update(frame, lambda stage: None)
                for item in due.get(index, ()):
                    procedure.reset_box(Box(*item.box))
                    procedure.update(frame, lambda stage: None)
                    _keep(graphs, "step", fed)
                if index == last:
                    break
        if index < last:
            raise CalibrationError(
                f"clip {clip.name!r} has {index + 1} frames, the calibration set asks for frame {last}"
            )


def _keep(graphs: Mapping[str, CompiledGraph], role: str, fed: dict[str, list[Inputs]]) -> None:
    made = {key: buffer for graph in graphs.values() for key, buffer in graph.outputs.items()}
    for name, graph in graphs.items():
        if graph.info.role == role:
            fed[name].append({key: np.array(buffer) for key, buffer in graph.inputs.items()})
        elif role == "step" and graph.info.role == "choice":
            fed[name].append({key: np.array(made[key]) for key in graph.inputs})
