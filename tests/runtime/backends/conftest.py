"""Graph files of the real backends, to open and to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from edgetrack.arrays import Array
from edgetrack.bundle import open_bundle, read_npz
from edgetrack.bundle.manifest import GraphInfo
from edgetrack.capabilities import backend_of
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from tests.toy import toy

__all__ = ["toy"]


class GraphFile(NamedTuple):
    """A graph's description and a copy of its files that a test may change."""

    target: str
    info: GraphInfo
    path: Path

    def open(self, info: GraphInfo | None = None, **options: object) -> CompiledGraph:
        return backend_of(self.target)(info or self.info, self.path, BackendOptions(**options))

    @property
    def data(self) -> Path:
        """The file that holds the weights."""
        return self.path.with_suffix(".bin") if self.target == "openvino" else self.path


@pytest.fixture
def graph_file(exported: Callable[..., Path], tmp_path: Path) -> Callable[..., GraphFile]:
    """graph_file("onnx") -> the template graph of an exported bundle, copied."""

    def copy(target: str, name: str = "template") -> GraphFile:
        with open_bundle(exported(target)) as bundle:
            info = bundle.manifest.graph(name)
            for file in bundle.manifest.files:
                shutil.copy(bundle.path(file), tmp_path)
        return GraphFile(target, info, tmp_path / info.file)

    return copy


@pytest.fixture
def recorded(exported: Callable[..., Path]) -> Callable[..., dict[str, dict[str, Array]]]:
    """recorded("onnx") -> what PyTorch took ("in") and gave ("out") of the template graph on the first sample."""

    def read(target: str, name: str = "template") -> dict[str, dict[str, Array]]:
        with open_bundle(exported(target)) as bundle:
            arrays = read_npz(bundle.path("golden.npz"))
        sides: dict[str, dict[str, Array]] = {"in": {}, "out": {}}
        for key, array in arrays.items():
            sample, graph, side, tensor = key.split("/")
            if (sample, graph) == ("0", name):
                sides[side][tensor] = array
        return sides

    return read
