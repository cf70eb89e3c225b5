"""ATSTrack's per-frame procedure (sheet 5): words once, then crop, past templates, step, decode, remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box, clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import CropRule, Image, Scratch, crop_square
from edgetrack.runtime.decode import Map, all_finite, decode_center, map_back
from edgetrack.runtime.memory import Forecast, Schedule
from edgetrack.runtime.text import clip_tokens
from edgetrack.runtime.trackers.base import Decision, Frame, Mark, Procedure, read_settings
from edgetrack.runtime.trackers.template_memory import TemplateMemorySettings
from edgetrack.runtime.window import hann_open

LOCATION = "location"


class AtsTrackSettings(TemplateMemorySettings, frozen=True):
    """The numbers of the procedure; the schedule has always as many entries, for the graph takes no fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if Schedule.parse(self.schedule).rule not in ("fixed", "spread"):
            raise ValueError(f"schedule {self.schedule!r}: expected one of always as many entries, fixed or spread")


def _attributes(manifest: Manifest) -> tuple[str, ...]:
    """What the bundle reads: the inputs of its graph `text`, which a bundle without language has not."""
    return tuple(t.name for graph in manifest.graphs if graph.name == "text" for t in graph.inputs)


def _check_graphs(manifest: Manifest, settings: AtsTrackSettings) -> None:
    """Hold the manifest's graphs against what the procedure reads and writes, before anything is written anywhere."""
    step, attributes = manifest.graph("step"), _attributes(manifest)
    found = [{t.name: t.shape for t in side} for side in (step.inputs, step.outputs)]
    count, slots = Schedule.parse(settings.schedule).count, 2 if attributes else 1
    score, dim = found[1].get("score", ()), found[0].get("tokens", (0,))[-1]
    inputs: dict[str, tuple[int, ...]] = {
        "search": (settings.search_size, settings.search_size, 3),
        "templates": (count, *settings.entry),
        "tokens": (1, slots, dim),
    }
    if attributes:
        text = manifest.graph("text")
        words = text.inputs[0].shape[-1]
        inputs |= {"language": (len(attributes), words, dim), "mask": (len(attributes), words)}
        if LOCATION in attributes:
            inputs["median"] = (1, words)
        found += [{t.name: t.shape for t in side} for side in (text.inputs, text.outputs)]
    expected = [
        inputs,
        {
            "score": (1, 1, *score[2:]),
            "size": (1, 2, *score[2:]),
            "offset": (1, 2, *score[2:]),
            "next_tokens": (1, slots, dim),
        },
    ]
    if attributes:
        expected += [dict.fromkeys(attributes, (1, words)), {"language": inputs["language"]}]
    if found != expected or len(score) != 4 or score[2] != score[3]:
        raise BundleError(
            f"the graphs of bundle {manifest.name!r} do not suit ATSTrack's procedure: found {found}, expected "
            f"{expected}; export it again"
        )


class AtsTrackProcedure(Procedure):
    """Graphs `text` (phrases -> words, once) and `step` (crops, tokens, words -> score, size, offset, next tokens)."""

    remembers: ClassVar[bool] = True

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, AtsTrackSettings)
        _check_graphs(manifest, settings)
        self.attributes = _attributes(manifest)
        self.template_rule = CropRule(settings.template_factor, settings.template_size)
        self.search_rule = CropRule(settings.search_factor, settings.search_size)
        self.margin, self.lost_below = settings.clip_margin, settings.lost_below
        self.step = graphs["step"]
        self.search, self.templates = (cast(Image, self.step.inputs[name]) for name in ("search", "templates"))
        self.tokens_in = cast(Map, self.step.inputs["tokens"])
        self.score, self.size, self.offset, self.next_tokens = (
            cast(Map, self.step.outputs[name]) for name in ("score", "size", "offset", "next_tokens")
        )
        self.start: NDArray[np.float32] = np.zeros_like(self.tokens_in)
        self.carried = np.zeros_like(self.tokens_in)
        self.window = hann_open(self.score.shape[-1])
        self.response = np.empty_like(self.window)
        self.scratch = Scratch()
        self.crop = np.empty(settings.entry, np.uint8)
        self.bank = settings.bank()
        self.state = Box(0.0, 0.0, 0.0, 0.0)

    @classmethod
    def forecast(cls, manifest: Manifest) -> Forecast:
        return read_settings(manifest.procedure, AtsTrackSettings).bank().forecast

    def describe(self, phrases: Mapping[str, str]) -> None:
        if not self.attributes:
            super().describe(phrases)
        text = self.graphs["text"]
        room = next(iter(text.inputs.values())).shape[-1]
        # All phrases are read before anything is changed.
        ids = {name: clip_tokens(phrases[name], room, name) for name in self.attributes if name in phrases}
        mask = cast(Map, self.step.inputs["mask"])
        mask[...] = 0
        for row, name in enumerate(self.attributes):
            found = ids.get(name, [])
            text.inputs[name][...] = 0
            text.inputs[name][0, : len(found)] = found
            mask[row, : len(found)] = 1
        text.run()
        words = cast(Map, text.outputs["language"])
        np.copyto(self.step.inputs["language"], words)
        if LOCATION in self.attributes:
            median = self.step.inputs["median"]
            median[...] = 0
            if count := len(ids.get(LOCATION, [])):
                median[0, (count - 1) // 2] = 1
        # Before the first frame nothing was seen, and the words stand for themselves.
        self.start[0, 1] = words[mask > 0].mean(axis=0)

    def init(self, frame: Frame, box: Box) -> None:
        self.bank.clear()
        np.copyto(self.carried, self.start)
        self.state = box
        self._remember(frame)

    def update(self, frame: Frame, mark: Mark) -> Decision:
        resize_factor = crop_square(frame, self.state, self.search_rule, self.search, self.scratch)
        # Written just before the graph runs: who records what it is fed reads it afterwards.
        np.copyto(self.tokens_in, self.carried)
        for slot, index in enumerate(self.bank.schedule.choose(self.bank.count)):
            self.bank.read(index, self.templates[slot])
        mark("crop")
        self.step.run()
        mark("graphs")
        if not all_finite(self.score, self.size, self.offset, self.next_tokens):
            # An entry all the same: entries are counted as frames.
            self._remember(frame)
            return Decision(self.state, 0.0, "the graph returned NaN or infinity; the last box is kept")
        np.copyto(self.carried, self.next_tokens)
        peak = decode_center(self.score, self.size, self.offset, self.window, self.response)
        box = map_back(peak, self.state, self.search_rule.size, resize_factor)
        self.state = clip(box, frame.shape[0], frame.shape[1], self.margin)
        self._remember(frame)
        mark("decode")
        reason = f"score {peak.score:.3f} is below {self.lost_below:g}" if peak.score < self.lost_below else None
        return Decision(self.state, peak.score, reason)

    def place(self, box: Box) -> None:
        self.state = box

    def _remember(self, frame: Frame) -> None:
        crop_square(frame, self.state, self.template_rule, self.crop, self.scratch)
        self.bank.append(self.crop)


PROCEDURE = AtsTrackProcedure
