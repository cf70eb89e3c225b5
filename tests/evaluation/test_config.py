"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgetrack.errors import UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import open_dataset


@pytest.fixture
def config(plain_dataset):
    return EvalConfig(open_dataset(plain_dataset("a")), threads=1)


@pytest.mark.parametrize("field", ["jobs", "threads", "frames"])
def test_numbers_below_one_are_refused(config, field) -> None:
    with pytest.raises(UsageError, match=f"--{field} 0"):
        replace(config, **{field: 0})


def test_threads_are_shared_among_jobs(config, monkeypatch) -> None:
    monkeypatch.setattr("edgetrack.evaluation.config.usable_cores", lambda: 8)
    assert replace(config, threads=None, jobs=3).threads_each == 2
    assert replace(config, threads=None, jobs=99).threads_each == 1
    assert replace(config, threads=5, jobs=3).threads_each == 5


def test_jobs_are_the_clusters(config) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        replace(config, scheduler="tcp://127.0.0.1:9", jobs=2)
    assert replace(config, scheduler="tcp://127.0.0.1:9", threads=None).threads_each == 1
