"""The PyTorch reference's own: one network for all graphs, and files that hold another one."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgetrack.bundle import open_bundle
from edgetrack.errors import BundleIntegrityError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.torch import backend
from edgetrack.runtime.session import load


def test_graphs_of_a_bundle_share_one_network_and_free_it_together(exported: Callable[..., Path]) -> None:
    gc.collect()
    before = len(backend._networks)
    with load(exported("torch")) as tracker:
        template, step = tracker.graphs.values()
        assert template._module.module.network is step._module.module.network
        assert len(backend._networks) == before + 1
    gc.collect()
    assert len(backend._networks) == before


def test_every_graph_runs_on_its_own_number_of_threads(graph_file: Callable[..., Any]) -> None:
    before = torch.get_num_threads()
    file = graph_file("torch")
    one, two = file.open(threads=1), file.open(threads=2)
    used = []
    try:
        for graph in (one, two, one):
            graph.run()
            used.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
        one.close()
        two.close()
    assert used == [1, 2, 1]


@pytest.mark.parametrize(
    ("metadata", "change", "words"),
    [
        ({}, {}, "network '' is not known"),
        ({"tracker": "nothing"}, {}, "network 'nothing' is not known"),
        ({"tracker": "smat"}, {"neck.BN_x.weight": None}, "1 missing"),
        ({"tracker": "smat"}, {"neck.BN_x.weight": torch.zeros(3)}, "1 misshapen"),
        ({"tracker": "smat"}, {"other": torch.zeros(3)}, "1 unexpected"),
    ],
)
def test_file_with_another_network_is_refused(
    graph_file: Callable[..., Any], metadata: dict[str, str], change: dict[str, Any], words: str
) -> None:
    file = graph_file("torch")
    tensors = {name: value for name, value in (load_file(file.path) | change).items() if value is not None}
    save_file(tensors, file.path, metadata)
    with pytest.raises(BundleIntegrityError, match=words):
        file.open()


def test_graph_that_the_tracker_lacks_is_refused(graph_file: Callable[..., Any]) -> None:
    file = graph_file("torch")
    with pytest.raises(BundleIntegrityError, match="smat has no graph 'other'; it has: template, step"):
        file.open(msgspec.structs.replace(file.info, name="other"))


def test_file_from_before_there_were_families_names_the_tracker(exported: Callable[..., Path], tmp_path: Path) -> None:
    with open_bundle(exported("torch", tracker="nanotrack_v3")) as bundle:
        info = bundle.manifest.graph("step")
        path = tmp_path / "weights.safetensors"
        save_file(load_file(bundle.path(info.file)), path, {"tracker": "nanotrack_v3"})
    graph = backend.TorchGraph(info, path, BackendOptions())
    graph.run()
    graph.close()
