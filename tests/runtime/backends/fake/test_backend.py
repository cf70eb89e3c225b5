"""The scripted backend: its rules, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.fake.backend import FakeGraph

INFO = GraphInfo(
    name="g",
    role="step",
    file="g.json",
    inputs=(TensorInfo(name="image", dtype="uint8", shape=(2, 2, 3)),),
    outputs=(TensorInfo(name="a", dtype="float32", shape=(2,)), TensorInfo(name="b", dtype="float32", shape=(1, 3))),
)


def graph(tmp_path: Path, rules: Any, **options: Any) -> FakeGraph:
    path = tmp_path / "g.json"
    path.write_text(rules if isinstance(rules, str) else json.dumps(rules))
    return FakeGraph(INFO, path, BackendOptions(**options))


def test_value_fills_its_output(tmp_path: Path) -> None:
    g = graph(tmp_path, {"a": 0.5, "b": -2})
    g.run()
    assert g.outputs["a"].tolist() == [0.5, 0.5]
    assert g.outputs["b"].tolist() == [[-2, -2, -2]]


def test_row_gives_one_value_a_run_and_repeats_the_last(tmp_path: Path) -> None:
    g = graph(tmp_path, {"a": [1, 2, 3], "b": 0})
    found = []
    for _ in range(5):
        g.run()
        found.append(float(g.outputs["a"][0]))
    assert found == [1, 2, 3, 3, 3]


def test_text_means_nan_or_the_mean_of_an_input(tmp_path: Path) -> None:
    g = graph(tmp_path, {"a": "nan", "b": "input:image"})
    g.inputs["image"].fill(51)
    g.run()
    assert np.isnan(g.outputs["a"]).all()
    assert g.outputs["b"].tolist() == [pytest.approx([0.2, 0.2, 0.2])]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("not json", "is not a fake graph"),
        ('{"a": {}, "b": 1}', "is not a fake graph"),
        ("[1]", "is not a fake graph"),
        ({"a": 1}, r"has rules for \['a'\], the manifest's outputs are \['a', 'b'\]"),
        ({"a": 1, "b": 1, "c": 1}, "has rules for"),
        ({"a": "input:other", "b": 1}, r"has rules \['input:other'\], expected 'nan' or 'input:NAME'"),
        ({"a": "soon", "b": 1}, r"has rules \['soon'\]"),
    ],
)
def test_file_that_is_no_script_is_refused(tmp_path: Path, rules: Any, words: str) -> None:
    with pytest.raises(BundleIntegrityError, match=words):
        graph(tmp_path, rules)


def test_row_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match="is not a fake graph"):
        graph(tmp_path, {"a": [], "b": 1})


def test_other_device_and_hint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailableError):
        graph(tmp_path, {"a": 1, "b": 1}, device="cuda:0")
    with pytest.raises(UsageError):
        graph(tmp_path, {"a": 1, "b": 1}, precision_hint="bf16")
