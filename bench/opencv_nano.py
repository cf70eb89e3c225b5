"""NanoTrack in edgetrack against OpenCV's own TrackerNano: the same frames and threads, interleaved in one run.

    python bench/opencv_nano.py BUNDLE[@HINT] ... --backbone backbone.onnx --head head.onnx [--source SEQUENCE]

Each tracker has a process of its own, which waits while another one works. OpenCV's models are those that its
documentation names for TrackerNano (v2). Prints medians of `update` in milliseconds and their ratio to OpenCV's, with
the 5 % and 95 % quantiles over rounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 40


def frames_of(source: str) -> tuple[list[Any], Any]:
    """All frames of a source with ground truth, decoded, and the first box."""
    from edgetrack.media import open_source

    with open_source(source) as frames:
        truth = frames.ground_truth
        if truth is None or truth[0] is None:
            raise SystemExit(f"{source} has no box for its first frame; give a sequence folder or synthetic:NAME")
        return list(frames), truth[0]


def ours(name: str, threads: int) -> Any:
    """A bundle, loaded."""
    import edgetrack

    bundle, _, hint = name.partition("@")
    return edgetrack.load(bundle, threads=threads, precision_hint=hint or None)


def opencv(backbone: Path, head: Path) -> Any:
    """OpenCV's tracker."""
    import cv2

    params = cv2.TrackerNano_Params()
    params.backbone, params.neckhead = str(backbone), str(head)
    return cv2.TrackerNano_create(params)


def work(pipe: Connection, spec: tuple[str, Any], source: str, threads: int) -> None:
    """In a process: load, start, then time as many updates as asked for, again and again."""
    import cv2

    cv2.setNumThreads(threads)
    images, box = frames_of(source)
    kind, what = spec
    tracker = ours(what, threads) if kind == "ours" else opencv(*what)
    start = tuple(box) if kind == "ours" else tuple(int(value) for value in box)
    index = len(images)
    while (count := pipe.recv()) is not None:
        spent = []
        for _ in range(count):
            if index >= len(images):
                tracker.init(images[0], start)
                index = 1
            before = time.perf_counter_ns()
            tracker.update(images[index])
            spent.append((time.perf_counter_ns() - before) / 1e6)
            index += 1
        pipe.send(spent)
    pipe.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--source", default="synthetic:drift?frames=120&size=1280x720")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--updates", type=int, default=60, help="in each round")
    wish = parser.parse_args()
    specs = [("opencv", (wish.backbone, wish.head)), *(("ours", name) for name in wish.bundles)]
    labels = ["OpenCV TrackerNano", *wish.bundles]
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for spec in specs:
        mine, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, spec, wish.source, wish.threads), daemon=True)
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    rounds: list[list[float]] = [[] for _ in specs]
    for number in range(-1, wish.rounds):
        for pipe, medians in zip(pipes, rounds, strict=True):
            pipe.send(WARM_UP if number < 0 else wish.updates)
            spent = pipe.recv()
            if number >= 0:
                medians.append(float(np.median(spent)))
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    base = np.array(rounds[0])
    print(f"{wish.source}, {wish.threads} threads, {wish.rounds} interleaved rounds of {wish.updates} updates")
    for label, medians in zip(labels, rounds, strict=True):
        each = np.array(medians)
        low, high = np.quantile(base / each, [0.05, 0.95])
        middle = float(np.median(each))
        print(
            f"{label:<48}{middle:7.2f} ms{1000 / middle:8.0f} fps   {np.median(base / each):5.2f} x OpenCV "
            f"({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
