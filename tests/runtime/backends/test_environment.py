"""A backend in an environment of its own: what the worker computes, and workers and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.environments.setup import EnvironmentState
from edgetrack.errors import BackendMissingError, BundleError, BundleIntegrityError, UsageError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.environment import EnvironmentGraph
from tests.toy import toy_environment


class ToyGraph(EnvironmentGraph):
    engine = "toy"
    environment = toy_environment()


class MissingGraph(EnvironmentGraph):
    engine = "toy"
    environment = toy_environment(name="missing")


INFO = GraphInfo(
    name="step",
    role="step",
    file="step.json",
    inputs=(TensorInfo(name="search", dtype="uint8", shape=(2, 2, 3)),),
    outputs=(TensorInfo(name="score", dtype="float32", shape=(2, 2, 3)),),
)


def opened(folder: Path, **changed: Any) -> ToyGraph:
    graph = {"factors": {"score": [0.5, "float32"]}, **changed}
    (folder / "step.json").write_text(json.dumps(graph))
    return ToyGraph(INFO, folder / "step.json", BackendOptions())


@pytest.mark.usefixtures("toy")
def test_a_graph_runs_in_the_environment_and_its_process_ends(tmp_path: Path) -> None:
    ToyGraph.import_package()
    stated = {"inputs": {"search": ["uint8", [2, 2, 3]]}, "outputs": {"score": ["float32", [2, 2, 3]]}}
    graph = opened(tmp_path, **stated)
    assert graph.placement == "cpu"
    score, pid = graph.outputs["score"], graph._process.pid
    for value in (4, 250):
        graph.inputs["search"][:] = value
        graph.run()
        np.testing.assert_array_equal(score, np.full((2, 2, 3), value / 2, np.float32))
    graph.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"refused": "no such graph"}, "no such graph"),
        ({"inputs": {"search": ["uint8", [2, 2]]}}, "the manifest says"),
        ({"outputs": {"score": "float32"}}, "cannot be opened in toy: broke its protocol"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_no_process_left(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(BundleIntegrityError, match=said):
        opened(tmp_path, **changed)
    assert set(psutil.Process().children()) == before


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "factors", [{"other": [1, "float32"]}, {"score": [1, "float64"]}, {}, {"score": [1, "float32"], "b": [1, "uint8"]}]
)
def test_outputs_that_do_not_fit_are_refused(tmp_path: Path, factors: dict[str, Any]) -> None:
    graph = opened(tmp_path, factors=factors)
    with pytest.raises(BundleError, match=r"the engine gave .*, the manifest says"):
        graph.run()
    graph.close()


@pytest.mark.usefixtures("toy")
def test_a_worker_that_dies_is_a_bundle_error(tmp_path: Path) -> None:
    graph = opened(tmp_path)
    psutil.Process(graph._process.pid).kill()
    with pytest.raises(BundleError, match="fails while it runs in toy: the process was killed by SIGKILL"):
        graph.run()
    graph.close()


def test_what_it_cannot_do_is_said_before_anything_is_started(tmp_path: Path, toy: EnvironmentState) -> None:
    with pytest.raises(UsageError, match="toy takes no precision hint"):
        ToyGraph(INFO, tmp_path / "step.json", BackendOptions(precision_hint="bf16"))
    with pytest.raises(BackendMissingError, match="type: edgetrack target setup missing"):
        MissingGraph(INFO, tmp_path / "step.json", BackendOptions())
    with pytest.raises(BackendMissingError, match="type: edgetrack target setup missing"):
        MissingGraph.import_package()
