"""SMAT's training: one template and one search crop, all tensors, the centre head's loss (arXiv 2309.03979, Eq. 4)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from edgetrack.training.method import Batch, CenterMethod, to_images


class SmatMethod(CenterMethod):
    """Search crops of any size with an even number of cells at stride 16."""

    stride = 32

    def maps(self, network: nn.Module, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield network(to_images(batch.templates[:, 0, 0]), to_images(batch.searches[:, 0, 0]))


METHOD = SmatMethod
