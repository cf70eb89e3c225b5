"""The reference bundle: the published network's tensors as safetensors, run by eager PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgetrack.exporting.targets.base import Exporter

if TYPE_CHECKING:
    from torch import nn

    from edgetrack.models.base import GraphModule

FILE = "weights.safetensors"


class TorchExporter(Exporter):
    """Writes the network's tensors, once for all graphs."""

    reads_onnx = False

    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """See `Exporter`; `opset` has no meaning here."""
        from edgetrack.checkpoints import save_safetensors

        path = folder / FILE
        if not path.exists():
            network = cast("nn.Module", graph.module.network)
            kept = {key: metadata[key] for key in ("tracker", "family", "configuration") if key in metadata}
            save_safetensors(network.state_dict(), path, kept)
        return FILE
