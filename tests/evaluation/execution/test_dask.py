"""Evaluation on the processes of a real Dask cluster on this machine."""

from __future__ import annotations

import sys

import pytest

from edgetrack.capabilities import open_ref
from edgetrack.errors import BackendMissingError, BundleError, UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.execution.dask import run_on_cluster
from edgetrack.evaluation.execution.ledger import Setup, Work
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.evaluation.run import evaluate

DEADLY = """
import os, signal
from edgetrack.evaluation.datasets.clip import Clip

class Deadly(Clip):
    def open(self, images=1):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def deadly(tmp_path_factory):
    """A folder with a module that the workers can import too: spawned processes take over sys.path."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "deadly_remote_sequences.py").write_text(DEADLY)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def cluster(deadly):
    """Two worker processes; a worker that dies is not given its task again."""
    distributed = pytest.importorskip("distributed")
    import dask

    settings = {"distributed.scheduler.allowed-failures": 0, "logging.distributed": "critical"}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made,
    ):
        yield made


def given(bundle, root, output, **fields):
    return open_ref(str(bundle)), EvalConfig(open_dataset(root), output=output, **fields)


def test_the_cluster_finds_what_local_processes_find(cluster, make_bundle, plain_dataset, tmp_path) -> None:
    bundle, root = make_bundle(), plain_dataset("a", "b", "c", frames=6)
    plan = Anchored(2, 2)
    there = evaluate(*given(bundle, root, tmp_path / "there", scheduler=cluster.scheduler_address, anchors=plan))
    here = evaluate(*given(bundle, root, tmp_path / "here", anchors=plan, threads=1))
    assert there.result.failures == []
    assert there.result.ao == here.result.ao
    assert there.result.anchored == here.result.anchored
    assert [run.boxes for _, run in there.runs] == [run.boxes for _, run in here.runs]
    assert there.result.scheduler == cluster.scheduler_address
    told = []
    evaluate(
        *given(bundle, root, tmp_path / "there", scheduler=cluster.scheduler_address, anchors=plan),
        lambda what, done, total: told.append(what),
    )
    assert len(told) == 6
    assert all(what.endswith("kept from an earlier run") for what in told)


def test_a_relative_data_set_is_found_by_workers_elsewhere(
    cluster, make_bundle, plain_dataset, tmp_path, monkeypatch
) -> None:
    root = plain_dataset("a")
    monkeypatch.chdir(tmp_path)
    found = evaluate(*given(make_bundle(), root.name, tmp_path / "kept", scheduler=cluster.scheduler_address))
    assert found.result.failures == []
    assert found.result.frames == 4


def test_a_worker_that_dies_costs_its_sequence_alone(cluster, make_bundle, plain_dataset, tmp_path) -> None:
    from deadly_remote_sequences import Deadly

    dataset = open_dataset(plain_dataset("a", "b", "c"))
    read = [dataset.read(entry) for entry in dataset.entries]
    read[1] = Deadly(**vars(read[1]))
    works = [Work(s, None, tmp_path / f"{s.name}.json", ("key", "bundle", "weights", "data")) for s in read]
    outcomes = {}
    setup = Setup(make_bundle(), "cpu", 1, None)
    run_on_cluster(works, setup, cluster.scheduler_address, lambda w, error: outcomes.update({w.clip.name: error}))
    assert outcomes["a"] is None
    assert outcomes["c"] is None
    assert outcomes["b"].startswith("WorkerError: the Dask workers that tracked it died")
    assert sorted(p.name for p in tmp_path.glob("?.json")) == ["a.json", "c.json"]


def test_images_that_workers_cannot_open_are_that_sequences_failure(
    cluster, make_bundle, plain_dataset, tmp_path
) -> None:
    root = plain_dataset("a", "b")
    chosen = given(make_bundle(), root, tmp_path / "kept", scheduler=cluster.scheduler_address)
    (root / "b" / "img" / "00002.jpg").chmod(0)
    (root / "b" / "img" / "00002.jpg").unlink()
    (root / "b" / "img" / "00002.jpg").symlink_to(tmp_path / "on_another_machine.jpg")
    result = evaluate(*chosen).result
    assert [s.name for s in result.sequences] == ["a"]
    assert [f.name for f in result.failures] == ["b"]


def test_a_bundle_that_workers_cannot_open_or_that_is_another_one_is_one_error(
    cluster, make_bundle, plain_dataset, tmp_path
) -> None:
    dataset = open_dataset(plain_dataset("a"))
    work = Work(dataset.read(dataset.entries[0]), None, tmp_path / "a.json", ("key", "bundle", "weights", "data"))
    gone = Setup(tmp_path / "gone", "cpu", 1, None)
    with pytest.raises(UsageError, match="every worker needs the bundle at"):
        run_on_cluster([work], gone, cluster.scheduler_address, lambda work, error: None)
    other = Setup(make_bundle(), "cpu", 1, None, manifest="0" * 64)
    with pytest.raises(BundleError, match="another one of that name"):
        run_on_cluster([work], other, cluster.scheduler_address, lambda work, error: None)


def test_a_scheduler_without_workers_says_so(make_bundle, plain_dataset, tmp_path, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("edgetrack.evaluation.execution.dask._ANSWER_S", 2)
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0") as empty:
        chosen = given(make_bundle(), plain_dataset("a"), tmp_path, scheduler=empty.scheduler_address)
        with pytest.raises(UsageError, match="has no workers; start some with: dask worker tcp://"):
            evaluate(*chosen)


def test_an_address_where_nobody_answers_says_so(make_bundle, plain_dataset, tmp_path, monkeypatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("edgetrack.evaluation.execution.dask._ANSWER_S", 0.5)
    bundle, root = make_bundle(), plain_dataset("a")
    for address in ("tcp://127.0.0.1:9", "nowhere://x"):
        with pytest.raises(UsageError, match="start one with: dask scheduler"):
            evaluate(*given(bundle, root, tmp_path, scheduler=address))


def test_a_missing_package_says_what_to_type(make_bundle, plain_dataset, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendMissingError, match=r"edgetrack\[cluster\]"):
        evaluate(*given(make_bundle(), plain_dataset("a"), tmp_path, scheduler="tcp://127.0.0.1:9"))
