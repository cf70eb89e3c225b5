"""Parity is part of every export: what differs does not get written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.errors import ParityError
from edgetrack.exporting.parity import (
    DEFAULT_SOURCES,
    MOMENTS,
    ParityReport,
    Sample,
    chained,
    count_flops,
    noise_sample,
)
from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.media.sources import open_source
from edgetrack.models import smat
from edgetrack.models.base import GraphModule
from edgetrack.models.smat import Network, deploy
from edgetrack.runtime.verify import compare
from tests.builders import TARGETS

short = pytest.mark.usefixtures("short_proof")


def sabotage(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[torch.Tensor], torch.Tensor], graph: int = 1) -> None:
    """Have `deploy` change one weight of a shipped graph."""
    deploy = smat.deploy

    def spoilt(network: smat.Network) -> tuple[GraphModule, ...]:
        graphs = deploy(network)
        weight = next(p for name, p in graphs[graph].module.named_parameters() if name.endswith("conv_1.weight"))
        with torch.no_grad():
            weight.copy_(spoil(weight))
        return graphs

    monkeypatch.setattr(smat, "deploy", spoilt)


def one_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def spoil(weight: torch.Tensor) -> torch.Tensor:
        changed = weight.clone()
        changed.view(-1)[5] = value
        return changed

    return spoil


@short
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_difference_past_the_tolerance_leaves_nothing_on_disk(
    small: Callable[..., ExportRequest], tmp_path: Path, target: str
) -> None:
    with pytest.raises(ParityError) as caught:
        export(small(target, output=tmp_path / "out" / "bundle", atol=1e-12, rtol=0.0))
    assert caught.value.exit_code == 1
    assert "comparisons with PyTorch fail; nothing was written" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any((tmp_path / "out").iterdir())


@short
def test_atol_of_the_message_passes_and_less_fails(small: Callable[..., ExportRequest], tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        export(small("openvino", output=tmp_path / "bundle", atol=0.0, rtol=0.0))
    advised = float(re.search(r"smallest --atol that passes them all is (\S+) ", str(caught.value))[1])
    report = export(small("openvino", output=tmp_path / "bundle", atol=advised, rtol=0.0))
    assert report.parity.worst.max_abs <= advised
    with pytest.raises(ParityError):
        export(small("openvino", output=tmp_path / "bundle", atol=advised * 0.98, rtol=0.0, overwrite=True))
    assert (tmp_path / "bundle" / "manifest.json").is_file(), "the bundle that was there stays"


@short
@pytest.mark.parametrize("graph", [0, 1])
def test_shipped_graph_that_is_not_the_published_network_is_caught(
    small: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: int
) -> None:
    sabotage(monkeypatch, one_value(0.01), graph)
    with pytest.raises(ParityError, match="whole step/") as caught:
        export(small("onnx", output=tmp_path / "bundle"))
    # What was converted is what was shipped: only the claim on the whole fails.
    assert "  graph " not in str(caught.value)
    assert not any(tmp_path.iterdir())


@short
def test_conversion_that_is_not_the_shipped_graph_is_caught(
    small: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgetrack.exporting.targets import onnx as exporter

    to_onnx = exporter.to_onnx

    def spoilt(graph: GraphModule, *rest: Any, **options: Any) -> None:
        weight = next(p for name, p in graph.module.named_parameters() if name.endswith("conv_1.weight"))
        kept = weight.clone()
        weight.copy_(one_value(0.01)(weight))
        to_onnx(graph, *rest, **options)
        weight.copy_(kept)

    monkeypatch.setattr(exporter, "to_onnx", spoilt)
    with pytest.raises(ParityError, match="graph template/template_features"):
        export(small("onnx", output=tmp_path / "bundle"))
    assert not any(tmp_path.iterdir())


@short
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_output_that_is_no_number_is_caught_at_any_tolerance(
    small: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    sabotage(monkeypatch, one_value(value))
    with pytest.raises(ParityError, match="no tolerance passes them: a tensor holds NaN or infinity"):
        export(small("onnx", output=tmp_path / "bundle", atol=1e30, rtol=1e30))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_bundle_keeps_all_comparisons(exported: Callable[..., Path], target: str) -> None:
    report = json.loads((exported(target) / "parity.json").read_bytes())
    # Of two scenes, of one for the reference itself, and noise; each has 1 output of template, 3 of step alone and 3 of
    # step in the whole.
    samples = (1 if target == "torch" else 2) * 3 + 1
    assert len(report["comparisons"]) == samples * (1 + 3 + 3)
    assert all(c["ok"] for c in report["comparisons"])
    names = {c["name"] for c in report["comparisons"]}
    assert "whole step/score on synthetic:drift#8" in names
    assert "graph template/template_features on noise" in names


def report_of(*errors: float) -> ParityReport:
    return ParityReport(
        comparisons=tuple(
            compare(f"t{i}", np.array([e]), np.array([0.0]), atol=1.0, rtol=0) for i, e in enumerate(errors)
        )
    )


def test_report_without_comparisons_proves_nothing() -> None:
    assert not ParityReport(comparisons=()).ok


def test_report_names_the_failures_and_the_worst() -> None:
    report = report_of(0.5, 3.0, 2.0)
    assert not report.ok
    assert report.worst.name == "t1"
    with pytest.raises(ParityError) as caught:
        report.require()
    text = str(caught.value)
    assert text.startswith("2 of 3 comparisons")
    assert "t0:" not in text
    assert text.index("t1:") < text.index("t2:")


def test_the_worst_of_those_within_the_relative_tolerance_is_the_largest_difference() -> None:
    pairs = ((5.0, 5.0), (5.0, 5.001), (5.0, 5.0004))
    report = ParityReport(
        comparisons=tuple(
            compare(f"t{i}", np.array([a]), np.array([b]), atol=0.1, rtol=0.01) for i, (a, b) in enumerate(pairs)
        )
    )
    assert {c.smallest_atol for c in report.comparisons} == {0.0}
    assert report.worst.name == "t1"


def test_report_that_passes_is_silent() -> None:
    report_of(0.0, 1.0).require()


def test_chain_feeds_later_graphs_with_what_earlier_ones_returned() -> None:
    from edgetrack.bundle.manifest import TensorInfo

    def info(name: str) -> TensorInfo:
        return TensorInfo(name=name, dtype="float32", shape=(1,))

    modules = [
        GraphModule("first", "init", torch.nn.Identity(), (info("a"),), (info("b"),)),
        GraphModule("second", "step", torch.nn.Identity(), (info("b"), info("a")), (info("c"),)),
    ]
    calls = []

    def run(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        calls.append((name, dict(inputs)))
        return {"first": {"b": 10}, "second": {"c": 20}}[name]

    found = chained(modules, run, Sample("s", {"a": 1}))
    assert calls == [("first", {"a": 1}), ("second", {"b": 10, "a": 1})]
    assert found["second"] == {"in": {"b": 10, "a": 1}, "out": {"c": 20}}


@pytest.fixture(scope="module")
def graphs():
    return deploy(Network().eval())


def test_noise_is_the_same_everywhere_and_differs_by_name(graphs) -> None:
    first, second = noise_sample(graphs), noise_sample(graphs)
    assert set(first.inputs) == {"template", "search"}
    for name, shape in (("template", (128, 128, 3)), ("search", (256, 256, 3))):
        image = first.inputs[name]
        assert (image.dtype, image.shape) == (np.uint8, shape)
        assert np.array_equal(image, second.inputs[name])
        assert abs(float(image.mean()) - 128) < 2
        assert abs(float(image.std()) - 48) < 3
    assert not np.array_equal(first.inputs["template"], first.inputs["search"][:128, :128])


@pytest.mark.parametrize("source", DEFAULT_SOURCES)
def test_built_in_sources_last_to_the_last_moment(source: str) -> None:
    with open_source(source) as frames:
        assert frames.length > max(MOMENTS)
        assert frames.ground_truth[0] is not None


def test_multiply_and_add_count_two_and_elementwise_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    given = TensorInfo(name="x", dtype="float32", shape=(1, 3, 16, 16))
    taken = TensorInfo(name="y", dtype="float32", shape=(1, 8, 8, 8))
    expected = 2 * (64 * 8 * 3 * 9) + 2 * (64 * 8 * 9)
    assert count_flops(GraphModule("g", "step", module.eval(), (given,), (taken,))) == expected
