"""SMAT's two graphs computed as published: the baseline that every export is held against, in numbers and in speed."""

from __future__ import annotations

from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, bgr_image_to_rgb
from edgetrack.models.smat.graphs import MAPS, SEARCH, TEMPLATE
from edgetrack.models.smat.network import Smat

# The published per-target cache: the template behind layer_2.
FEATURES = TensorInfo(name="template_features", dtype="float32", shape=(1, 128, 32, 32))


class _Template(nn.Module):
    def __init__(self, network: Smat) -> None:
        super().__init__()
        self.network = network

    def forward(self, template: Tensor) -> Tensor:
        return self.network.template(bgr_image_to_rgb(template))


class _Step(nn.Module):
    def __init__(self, network: Smat) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.step(bgr_image_to_rgb(search), features)


def reference(network: Smat) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` on the published modules."""
    network = network.eval()
    return (
        GraphModule("template", "init", _Template(network).eval(), (TEMPLATE,), (FEATURES,)),
        GraphModule("step", "step", _Step(network).eval(), (SEARCH, FEATURES), MAPS),
    )
