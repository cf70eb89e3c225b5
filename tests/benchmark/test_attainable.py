from __future__ import annotations

import pytest

from edgetrack.benchmark.attainable import attainable_of, limit_of
from edgetrack.benchmark.measurement import LimitMeasurement
from edgetrack.benchmark.protocol import Attain, Attainable, LimitPart
from edgetrack.benchmark.table import bench_table
from edgetrack.capabilities import backend_of
from edgetrack.runtime.backends.layers import LayerTime, LayerTimer, TimedLayer
from edgetrack.system.clock import ManualClock
from tests.benchmark.conftest import MACHINE, recorded


def layer(name, seconds, role="compute", shape=None, moved=0, kind="Convolution"):
    return TimedLayer(
        name=name, kind=kind, shape=shape or name, primitive="plain", role=role, seconds=seconds, moved=moved
    )


class ListedLayers(LayerTimer):
    """Layers with times that a table states; each question takes a second of a manual clock."""

    engine = "listed"
    instructions = "AVX-512"

    def __init__(self, layers, alone, clock):
        self.found, self.times, self.clock, self.asked = layers, alone, clock, []

    def layers(self, seconds):
        return self.found

    def alone(self, layer, seconds):
        self.clock.advance(10**9)
        self.asked.append(layer.name)
        return self.times.get(layer.shape)

    def move(self, moved, seconds):
        self.asked.append(moved)
        return moved / 1e9


@pytest.fixture
def find():
    """find(layers, alone) -> the limit, and what was asked; a second a layer, ten of them unless told otherwise."""

    def run(layers, alone, seconds=10.0, known=None):
        clock = ManualClock()
        timer = ListedLayers(layers, {name: LayerTime(took, "fast") for name, took in alone.items()}, clock)
        return limit_of([timer], seconds, clock, {} if known is None else known), timer.asked

    return run


class TestLimit:
    def test_a_layer_counts_with_the_least_time_of_its_shape_alone_or_in_the_graph(self, find):
        layers = [layer("a", 0.004, shape="x"), layer("b", 0.003, shape="x"), layer("c", 0.001), layer("d", 0.005)]
        found, asked = find(layers, {"x": 0.002, "c": 0.009})
        assert asked == ["a", "d", "c"]
        assert found.limit_ms == pytest.approx(2 + 2 + 1 + 5)
        assert (found.shapes, found.alone, found.instructions) == (3, 2, "AVX-512")
        assert found.primitives == pytest.approx({"fast": 5.0, "plain": 5.0})

    def test_what_only_moves_numbers_counts_by_its_traffic_and_what_the_engine_adds_not_at_all(self, find):
        layers = [
            layer("add", 0.004, "move", moved=1_500_000, kind="Add"),
            layer("small", 0.0000001, "move", moved=1_500_000, kind="Add"),
            layer("reorder", 0.002, "own", kind="Reorder"),
        ]
        found, asked = find(layers, {})
        assert asked == [1 << 21]
        assert found.limit_ms == pytest.approx(1.5 + 0.0001)
        parts = {one.kind: (one.layers, one.limit_ms, one.graph_ms) for one in found.parts}
        assert parts["changes of layout"] == (1, 0.0, 2.0)
        assert parts["Add"] == (2, pytest.approx(1.5001), pytest.approx(4.0001))

    def test_when_the_time_is_over_the_longest_layers_were_timed_alone(self, find):
        layers = [layer(str(number), number / 1000) for number in range(1, 9)]
        found, asked = find(layers, {str(number): number / 2000 for number in range(1, 9)}, seconds=3.0)
        assert asked == ["8", "7", "6"]
        assert (found.shapes, found.alone) == (8, 3)
        assert found.limit_ms == pytest.approx((8 + 7 + 6) / 2 + 5 + 4 + 3 + 2 + 1)

    def test_what_is_known_is_not_measured_again(self, find):
        known = {}
        layers = [layer("a", 0.004), layer("add", 0.1, "move", moved=100_000)]
        first, asked = find(layers, {"a": 0.001}, known=known)
        assert asked == [1 << 17, "a"]
        second, asked = find(layers, {}, known=known)
        assert asked == []
        assert second == first


def request(bundle, **changes):
    fields = {"hint": None, "device": "cpu", "threads": 1, "seconds": 0.2, "processor": "a CPU", "busy": False}
    return Attain(bundle=str(bundle), **{**fields, **changes})


def test_an_engine_that_does_not_tell_is_a_reason(make_bundle):
    found = attainable_of(request(make_bundle("ours")))
    assert found.limit_ms is None
    assert "does not tell" in found.reason


class BundleLayers(ListedLayers):
    """The layers of a scripted bundle; every one takes as long alone as the class says."""

    alone_s = 0.001

    def __init__(self, path, options):
        assert path.is_file()
        super().__init__([layer("a", 0.004), layer("b", 0.003)], {}, ManualClock())
        self.times = {name: LayerTime(self.alone_s, "fast") for name in "ab"}


def test_times_of_layers_are_kept_for_the_same_graph_and_threads_unless_the_machine_is_busy(
    make_bundle, monkeypatch, tmp_path
):
    path, cache = make_bundle("ours"), tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(backend_of("fake"), "layer_timer", f"{__name__}:BundleLayers")

    def found(alone_s, **changes):
        monkeypatch.setattr(BundleLayers, "alone_s", alone_s)
        return attainable_of(request(path, **changes), cache=cache).limit_ms

    assert found(0.001, busy=True) == pytest.approx(2.0)
    assert found(0.002) == pytest.approx(4.0)
    assert found(0.001) == pytest.approx(4.0)
    assert found(0.001, threads=2) == pytest.approx(2.0)
    assert found(0.001, processor="another CPU") == pytest.approx(2.0)
    for kept in cache.rglob("*.json"):
        kept.write_bytes(b"{")
    assert found(0.0015) == pytest.approx(3.0)


@pytest.mark.full
@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_smats_step_is_bounded_by_its_layers(exported, target, tmp_path):
    found = attainable_of(request(exported(target), seconds=5.0), cache=tmp_path)
    assert 0 < found.limit_ms <= sum(one.graph_ms for one in found.parts)
    assert found.alone <= found.shapes
    assert found.shapes > 20


def limited(own, **fields):
    """The measurement of a candidate's attainable limit, done."""
    made = LimitMeasurement(own.config, 60.0, own.candidate, MACHINE)
    parts = [LimitPart(kind="Convolution", layers=4, limit_ms=6.0, graph_ms=7.0)]
    known = {"engine": "listed", "instructions": "AVX-512 with VNNI", "primitives": {"a_primitive": 6.0}}
    made.attainable = Attainable(**{**known, "parts": parts, "shapes": 3, "alone": 2, **fields})
    return made


def test_the_table_states_the_ratio_what_the_limit_is_made_of_and_the_instructions(entry):
    ours = entry("ours", 9.0)
    found = recorded(ours, limited(ours, limit_ms=6.0))
    table = bench_table(found)
    column = [one.title for one in table.columns].index("vs attainable")
    assert table.cells()[0][column] == "1.50"
    shown = " ".join(table.notes)
    assert "ours: attainable 6.00 ms" in shown
    assert "2 of 3 shapes timed alone" in shown
    assert "listed on AVX-512 with VNNI; a_primitive 6.00 ms" in shown
    plain = bench_table(recorded(ours))
    assert "vs attainable" not in [one.title for one in plain.columns]


def test_a_limit_that_is_not_known_says_why(entry):
    ours = entry("ours", 9.0)
    found = recorded(ours, limited(ours, limit_ms=None, reason="it is silent"))
    assert found.results[0].attainable.model is None
    assert any("no attainable limit: it is silent" in line for line in bench_table(found).notes)
