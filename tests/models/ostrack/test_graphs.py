"""OSTrack's network and graph against the official class with the same weights, in the closed loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetrack.box import Box
from edgetrack.bundle.manifest import GraphInfo
from edgetrack.exporting.parity import ModuleGraph
from edgetrack.exporting.recipe import find_recipe
from edgetrack.models.base import GraphModule, make_network, untrained_tensors
from edgetrack.models.ostrack import deploy, reference
from edgetrack.models.ostrack.network import OsTrack, centre_token
from edgetrack.runtime.trackers.center import CenterFamily
from tests.builders import scripted_manifest
from tests.conftest import Golden

TINY = {"search_size": 128, "template_size": 64, "dim": 32, "depth": 11, "heads": 2, "head_channels": 16}


def tiny(**changes: object) -> OsTrack:
    network = make_network("ostrack", {**TINY, **changes})
    network.load_state_dict(untrained_tensors(network, {}, {}))
    return network.eval()


@pytest.mark.parametrize(("size", "token"), [(8, 3 * 8 + 3), (12, 5 * 12 + 5)])
def test_the_ranking_token_is_the_published_one(size: int, token: int) -> None:
    assert centre_token(size) == token


@pytest.mark.parametrize("elimination", [True, False])
def test_deployed_graph_computes_what_the_published_one_does(elimination: bool) -> None:
    network = tiny(elimination=elimination)
    torch.manual_seed(0)
    crops = [torch.randint(0, 256, (size, size, 3), dtype=torch.uint8) for size in (64, 128)]
    (ours,), (theirs,) = deploy(network), reference(network)
    expected = theirs(*crops)
    for name, value in ours(*crops).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_elimination_keeps_the_published_shares_and_leaves_zeros() -> None:
    network = tiny()
    torch.manual_seed(0)
    template, search = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        features = network.backbone(template, search)
    gone = (features == 0).all(dim=1).sum()
    # 64 candidates: ceil(0.7 n) stay, three times.
    assert int(gone) == 64 - 23


def test_without_elimination_it_is_plain_attention() -> None:
    """All candidates stay: the same numbers as from an elimination that drops none."""
    network = tiny(elimination=False)
    crops = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        plain = network.backbone(*crops)
        tokens = network.backbone.tokens(*crops)
        for block in network.backbone.blocks:
            tokens = block(tokens)
        found: Tensor = network.backbone.norm(tokens)[:, -64:].transpose(1, 2).reshape(1, -1, 8, 8)
    torch.testing.assert_close(plain, found, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def published() -> OsTrack:
    recipe = find_recipe("ostrack_256")
    network = make_network("ostrack", recipe.configuration)
    network.load_state_dict(untrained_tensors(network, recipe.untrained.multipliers, recipe.untrained.overrides))
    assert isinstance(network, OsTrack)
    return network.eval()


def official_boxes(
    graphs: tuple[GraphModule, ...], golden: Golden, image: NDArray[np.uint8], case: str, count: int
) -> None:
    """Track with a graph as the official class did, and meet its maps and boxes."""
    record = golden.group(case)
    (module,) = graphs
    info = GraphInfo(name="step", role="step", file="step.pt", inputs=module.inputs, outputs=module.outputs)
    manifest = scripted_manifest(graphs=(info,), procedure=find_recipe("ostrack_256").procedure)
    procedure = CenterFamily(manifest, {"step": ModuleGraph(module)})
    frames = [np.ascontiguousarray(np.roll(image, (2 * t, 3 * t), (0, 1))[..., ::-1]) for t in range(count + 1)]
    procedure.init(frames[0], Box(*record["init_xywh"]))
    for t, frame in enumerate(frames[1:]):
        found = procedure.update(frame, lambda stage: None)
        np.testing.assert_allclose(procedure.score, record["score_map"][t][None], rtol=0, atol=2e-4)
        np.testing.assert_allclose(found.box, record["boxes_xywh"][t], rtol=0, atol=0.02)


def test_official_boxes(
    golden: Callable[[str], Golden], synthetic_image: NDArray[np.uint8], published: OsTrack
) -> None:
    official_boxes(reference(published), golden("seq_ostrack_b256"), synthetic_image, "a", 2)
    official_boxes(deploy(published), golden("seq_ostrack_b256"), synthetic_image, "b", 2)


@pytest.mark.full
@pytest.mark.parametrize("case", ["a", "b", "c"])
@pytest.mark.parametrize("make", [reference, deploy])
def test_official_boxes_of_whole_sequences(
    golden: Callable[[str], Golden],
    synthetic_image: NDArray[np.uint8],
    published: OsTrack,
    case: str,
    make: Callable[[OsTrack], tuple[GraphModule, ...]],
) -> None:
    official_boxes(make(published), golden("seq_ostrack_b256"), synthetic_image, case, 10)
