"""Files for official servers, read back as their toolkits do."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, UnknownNameError
from edgetrack.evaluation.datasets.clip import Clip, ScoringRules
from edgetrack.evaluation.protocols.one_pass import OnePassRun
from edgetrack.evaluation.submission import write_results


@pytest.fixture
def runs():
    truth = np.array([[1.0, 2, 3, 4]])
    sequence = Clip("GOT-10k_Test_000001", "unused", truth, np.ones(1, bool), ScoringRules())
    boxes = [Box(1, 2, 3, 4), Box(1.23456, 2, 3, 4)]
    run = OnePassRun(size=(9, 9), boxes=boxes, scores=[None, 0.5], lost=[False, False], ms=[10.0, 20.0])
    return [(sequence, run)]


def test_got10k(tmp_path, runs) -> None:
    folder = write_results("got10k", tmp_path, "mine", runs) / "GOT-10k_Test_000001"
    assert folder.parent == tmp_path / "mine"
    boxes = np.loadtxt(folder / "GOT-10k_Test_000001_001.txt", delimiter=",")
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4], [1.235, 2, 3, 4]])
    assert np.loadtxt(folder / "GOT-10k_Test_000001_time.txt", delimiter=",").tolist() == [0.01, 0.02]


def test_trackingnet(tmp_path, runs) -> None:
    write_results("trackingnet", tmp_path / "new", "mine", runs)
    (path,) = (tmp_path / "new").iterdir()
    assert path.name == "GOT-10k_Test_000001.txt"
    assert np.loadtxt(path, delimiter=",").shape == (2, 4)


def test_unknown_kinds_and_folders_that_cannot_be_written(tmp_path, runs) -> None:
    with pytest.raises(UnknownNameError, match="got10k, trackingnet"):
        write_results("vot", tmp_path, "mine", runs)
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetrackError, match="cannot be written"):
        write_results("got10k", tmp_path / "file", "mine", runs)
