"""Batches of pairs, made by worker processes, the same ones whatever their number."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from itertools import count
from multiprocessing import util

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from edgetrack.errors import SourceInterruptedError
from edgetrack.training.pairs import Pair, PairMaker

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Templates and searches, uint8 (B, size, size, 3) BGR; boxes float32 (B, 4); positive, bool (B,)."""


class Pairs(Dataset[Pair | SourceInterruptedError]):
    """A pair maker as a dataset without an end; errors are handed over as values, so that they keep their message."""

    def __init__(self, maker: PairMaker) -> None:
        self.maker = maker

    def __getitem__(self, index: int) -> Pair | SourceInterruptedError:
        try:
            return self.maker(index)
        except SourceInterruptedError as error:
            return error


class _Numbers(Sampler[list[int]]):
    """Numbers of the pairs of one batch after the other, without an end."""

    def __init__(self, first: int, batch: int) -> None:
        self.first, self.batch = first, batch

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + self.batch)) for start in count(self.first, self.batch))


def collate(items: list[Pair | SourceInterruptedError]) -> Batch | SourceInterruptedError:
    """Pairs as one batch, or the first error among them."""
    pairs = []
    for item in items:
        if isinstance(item, SourceInterruptedError):
            return item
        pairs.append(item)
    templates, searches, boxes = (torch.from_numpy(np.stack([p[n] for p in pairs])) for n in range(3))
    return templates, searches, boxes, torch.tensor([p.positive for p in pairs])


def batches(maker: PairMaker, first: int, batch: int, workers: int, *, pinned: bool = False) -> Iterator[Batch]:
    """Batches without an end, from pair number `first` on.

    Workers are started afresh rather than forked: a fork of a process that has computed with threads can hang.

    Args:
        maker: of the pairs.
        first: number of the first pair.
        batch: pairs a batch.
        workers: processes; 0 makes them here.
        pinned: keep batches in memory that a GPU copies from directly.

    Raises:
        SourceInterruptedError: a picture can no longer be read.
    """
    loader: Iterable[Batch | SourceInterruptedError] = DataLoader(
        Pairs(maker),
        batch_sampler=_Numbers(first, batch),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pinned,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
    )
    for item in loader:
        if isinstance(item, SourceInterruptedError):
            raise item
        yield item


def _start_worker(_number: int) -> None:
    # Ctrl-C goes to the whole group; the main process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # The thread that sends batches through torch does not survive Python's shutdown: leave before it, last of all.
    util.Finalize(None, os._exit, args=(0,), exitpriority=-100)
