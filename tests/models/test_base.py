"""How a tracker's network is found, and what a graph takes and gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.errors import UnknownNameError
from edgetrack.models.base import GraphModule, bgr_image_to_rgb, find_model
from edgetrack.models.smat import Network


def test_smat_is_found() -> None:
    assert find_model("smat").Network is Network


@pytest.mark.parametrize("name", ["", "base", "layers", "untrained", "nothing", "smat.network", "../smat", "SMAT"])
def test_what_is_no_tracker_is_named_in_the_error(name: str) -> None:
    with pytest.raises(UnknownNameError, match="is not known") as caught:
        find_model(name)
    assert repr(name) in str(caught.value)
    assert caught.value.exit_code == 2


def test_images_turn_from_bgr_bytes_to_rgb_fractions() -> None:
    image = torch.tensor([[[0, 51, 255], [10, 20, 30]]], dtype=torch.uint8)
    found = bgr_image_to_rgb(image)
    assert found.shape == (1, 3, 1, 2)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 0.2, 0.0]))
    torch.testing.assert_close(found[0, :, 0, 1], torch.tensor([30.0, 20.0, 10.0]) / 255)


class _Sums(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


def graph_of(module: nn.Module, *outputs: str) -> GraphModule:
    infos = [TensorInfo(name=name, dtype="float32", shape=(2,)) for name in ("a", "b", *outputs)]
    return GraphModule("sums", "step", module, tuple(infos[:2]), tuple(infos[2:]))


def test_outputs_are_named_in_order_and_carry_no_gradient() -> None:
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([10.0, 20.0])
    found = graph_of(_Sums(), "sum", "difference")(a, b)
    assert list(found) == ["sum", "difference"]
    assert found["difference"].tolist() == [-9, -18]
    assert not any(value.requires_grad for value in found.values())


def test_another_number_of_outputs_than_declared_is_an_error() -> None:
    graph = graph_of(_Sums(), "sum")
    with pytest.raises(ValueError, match="zip"):
        graph(*graph.example())


def test_examples_are_zeros_of_the_declared_kind() -> None:
    info = TensorInfo(name="image", dtype="uint8", shape=(4, 5, 3))
    (example,) = GraphModule("g", "init", nn.Identity(), (info,), (info,)).example()
    assert (example.dtype, tuple(example.shape), int(example.sum())) == (torch.uint8, (4, 5, 3), 0)
