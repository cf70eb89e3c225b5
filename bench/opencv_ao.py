"""OpenCV's trackers on a data set, scored as `edgetrack eval` scores bundles: to compare a bundle's AO with.

    python bench/opencv_ao.py DATASET mil
    python bench/opencv_ao.py DATASET nano backbone.onnx head.onnx
    python bench/opencv_ao.py DATASET vit vittrack.onnx

A box is kept where a tracker reports that it lost the target. Boxes are whole pixels, as OpenCV takes and gives them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np

from edgetrack.box import Box
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.metrics import score
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.evaluation.protocols.one_pass import OnePass
from edgetrack.runtime.session import Result, Timing


def nano(backbone: str, head: str) -> Any:
    """TrackerNano; its models are NanoTrack v2's."""
    params = cv2.TrackerNano_Params()
    params.backbone, params.neckhead = backbone, head
    return cv2.TrackerNano_create(params)


def vit(network: str) -> Any:
    """TrackerVit."""
    params = cv2.TrackerVit_Params()
    params.net = network
    return cv2.TrackerVit_create(params)


MAKERS: dict[str, Callable[..., Any]] = {"nano": nano, "vit": vit, "mil": lambda: cv2.TrackerMIL_create()}


class Peer:
    """An OpenCV tracker behind the two methods that evaluation uses."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.tracker = make()
        self.box = Box(0, 0, 1, 1)

    def init(self, frame: Any, box: Iterable[float]) -> None:
        """A new tracker each time: OpenCV's are not meant to be started twice."""
        self.box = Box(*box)
        self.tracker = self.make()
        self.tracker.init(frame, tuple(int(value) for value in self.box))

    def update(self, frame: Any) -> Result:
        """The box, or the last one where the target is lost."""
        found, box = self.tracker.update(frame)
        if found:
            self.box = Box(*map(float, box))
        return Result(self.box, score=float(found), lost=not found, reason=None, timing=Timing(0.0, 0.0, 0.0))


def main() -> None:
    """Track and print AO: one pass, and short runs from anchors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("tracker", choices=sorted(MAKERS))
    parser.add_argument("models", nargs="*")
    parser.add_argument("--anchors", type=int, default=25)
    parser.add_argument("--anchor-length", type=int, default=50)
    args = parser.parse_args()
    dataset, anchors = open_dataset(args.dataset), Anchored(args.anchors, args.anchor_length)
    peer = Peer(lambda: MAKERS[args.tracker](*args.models))
    full, short = [], []
    for entry in dataset.entries:
        clip = dataset.read(entry)
        run = OnePass().run(peer, clip)
        found = np.array(run.boxes, np.float64)
        scored = score(found, clip.truth, clip.visible, dataset.rules, run.size)
        full.append(scored.scores.ao)
        short.append(anchors.run(peer, clip).ao)
        print(f"{clip.name:<20} AO {full[-1]:.3f}  from anchors {short[-1]:.3f}", flush=True)
    print(f"{args.tracker}: AO {np.mean(full):.4f}, from anchors {np.mean(short):.4f}, {len(full)} sequences")


if __name__ == "__main__":
    main()
