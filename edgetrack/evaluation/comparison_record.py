"""What a comparison of two bundles found, as JSON. B is held against A; overlaps are 0..1, null: not to be had."""

from __future__ import annotations

import msgspec

from edgetrack.evaluation.difference import Difference
from edgetrack.evaluation.openloop import MapError
from edgetrack.evaluation.record import Failure


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle, and its AO over the compared sequences: one pass, and mean over short runs from anchors."""

    bundle: str
    hint: str | None
    tracker: str
    target: str
    precision: str
    weights: str
    ao: float | None
    anchored_ao: float | None


class OnePassDelta(msgspec.Struct, frozen=True, kw_only=True):
    """AO of B minus AO of A from one pass each; `low`, `high` bootstrapped over sequences, null with fewer than two."""

    value: float
    low: float | None
    high: float | None


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Each fed its own boxes; the first frame, in which both are given the same box, is left out.

    Attributes:
        mean_iou: of A's and B's boxes over all frames.
        iou_above_0_9: share of frames in which it is above 0.9 (`iou_above_0.9` in JSON).
        first_divergence: median, over the sequences that diverge, of the first frame with an IoU of 0.5 or less.
        diverged, recovered: sequences that do, and of these, sequences that come above 0.9 again and stay above 0.5.
        sequences: of how many.
    """

    mean_iou: float
    iou_above_0_9: float = msgspec.field(name="iou_above_0.9")
    first_divergence: float | None
    diverged: int
    recovered: int
    sequences: int


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True):
    """Both placed at A's boxes before every frame.

    Attributes:
        box_error: mean of 1 - IoU of A's and B's boxes; center_px: mean distance of their centres in pixels.
        maps: errors of the maps that both have by name and shape; empty where they share none.
    """

    box_error: float
    center_px: float
    maps: list[MapError]


class SequencePair(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence.

    Attributes:
        frames: that both tracked; ao_a, ao_b: one pass, null where nothing is annotated.
        mean_iou, iou_above_0_9: as in `Agreement`, null for a single frame.
        first_divergence, recovery: see `Divergence`; frames counted from 0, null where it never comes to that.
        open_loop_error: mean of 1 - IoU on the same crops.
        iou: of A's and B's boxes in every frame.
    """

    name: str
    frames: int
    ao_a: float | None
    ao_b: float | None
    mean_iou: float | None
    iou_above_0_9: float | None = msgspec.field(name="iou_above_0.9")
    first_divergence: int | None
    recovery: int | None
    open_loop_error: float | None
    iou: list[float]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgetrack compare --json` prints.

    Attributes:
        a, b: the bundles.
        dataset, limit: its name, and frames of each sequence that were asked for.
        anchor_spacing, anchor_length: of the short runs.
        delta_ao: B minus A over paired short runs; null with fewer than two.
        one_pass: B minus A over whole sequences; null where nothing is annotated.
        agreement: null where no sequence has a second frame.
        open_loop: null where no sequence was replayed.
        error_gain: mean of 1 - IoU when each is fed its own boxes over that on the same crops; null where the latter
            is 0.
        sequences: that both tracked; failures: `BUNDLE: SEQUENCE` and why.
    """

    schema: int = 1
    a: Side
    b: Side
    dataset: str
    limit: int | None
    threads: int
    anchor_spacing: int
    anchor_length: int
    delta_ao: Difference | None
    one_pass: OnePassDelta | None
    agreement: Agreement | None
    open_loop: OpenLoop | None
    error_gain: float | None
    sequences: list[SequencePair]
    failures: list[Failure]
