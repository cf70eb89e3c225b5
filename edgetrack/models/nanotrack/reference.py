"""NanoTrack's two graphs computed as published: the baseline that every export is held against."""

from __future__ import annotations

from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule
from edgetrack.models.nanotrack.graphs import SEARCH, TEMPLATE, maps
from edgetrack.models.nanotrack.network import NanoTrack


def _image(crop: Tensor) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W), values and colours as they are."""
    return crop.permute(2, 0, 1).unsqueeze(0).float()


class _Template(nn.Module):
    def __init__(self, network: NanoTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, template: Tensor) -> Tensor:
        return self.network.template(_image(template))


class _Step(nn.Module):
    def __init__(self, network: NanoTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.step(_image(search), features)


def reference(network: NanoTrack) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` on the published modules.

    The per-target cache is the published one, the template's features; `loc` is taken before the published
    exponential, as the shipped graphs return it.
    """
    network = network.eval()
    features = TensorInfo(name="template_features", dtype="float32", shape=(1, network.backbone.channels, 8, 8))
    return (
        GraphModule("template", "init", _Template(network).eval(), (TEMPLATE,), (features,)),
        GraphModule("step", "step", _Step(network).eval(), (SEARCH, features), maps(network)),
    )
