"""A graph's layers in OpenVINO, and each one cut out of it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.openvino.layers import OpenVinoLayers, least_time

openvino = pytest.importorskip("openvino")


@pytest.fixture
def convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two convolutions with what is fused with them, quantized, and a change of axes behind."""
    monkeypatch.setenv("ONEDNN_VERBOSE", "0")  # it would talk to the end of this process, and in all that it starts
    op, rng = openvino.opset13, np.random.default_rng(0)
    image = op.parameter([1, 16, 32, 32], np.float32, name="image")
    flow = image
    for number in range(2):
        flow = op.fake_quantize(flow, *map(np.float32, (0, 4, 0, 4)), 256)
        weights = op.constant(rng.standard_normal((16, 16, 3, 3)).astype(np.float32))
        weights = op.fake_quantize(weights, *map(np.float32, (-4, 4, -4, 4)), 255)
        flow = op.convolution(flow, weights, [1, 1], [1, 1], [1, 1], [1, 1], name=f"conv_{number}")
        flow = op.relu(op.add(flow, np.ones((1, 16, 1, 1), np.float32)))
    model = openvino.Model([op.transpose(flow, np.array([0, 2, 3, 1]))], [image], "two")
    openvino.save_model(model, str(tmp_path / "two.xml"), compress_to_fp16=False)
    return tmp_path / "two.xml"


def outputs(model: Any) -> np.ndarray:
    image = np.random.default_rng(1).random((1, 16, 32, 32), dtype=np.float32)
    return openvino.Core().compile_model(model, "CPU")(image)[0]


def test_a_quantized_layer_is_quantized_alone_and_the_graph_stays_as_it_was(convolutions: Path) -> None:
    timer = OpenVinoLayers(convolutions, BackendOptions())
    before = outputs(timer._model)
    found = [one for one in timer.layers(0.01) if one.role == "compute"]
    assert [one.kind for one in found] == ["Convolution"] * 2
    for one in found:
        alone = timer.alone(one, 0.01)
        # `alone` refuses a layer that computes in another precision than it does in the graph.
        assert alone is not None
        assert alone.seconds > 0
        assert alone.primitive
    assert np.array_equal(outputs(timer._model), before)


def counted(micros: float, readings: int, disturbed: set[int]) -> list[float]:
    """What the counters of a layer of so many microseconds come to; weights are packed in the first four runs."""
    total, totals = 0.0, []
    for number in range(readings):
        total += 4 * micros + (9000.0 if number == 0 or number in disturbed else 0.0)
        runs = 4 * (number + 1)
        totals.append((math.floor(total / runs) + 0.5) * runs / 1e6)
    return totals


@given(st.floats(1.0, 5000.0), st.integers(6, 300))
def test_means_in_whole_microseconds_give_a_layers_time_to_some_microseconds(micros: float, readings: int) -> None:
    assert abs(least_time(counted(micros, readings, set())) * 1e6 - micros) <= 6.0


@given(st.floats(1.0, 5000.0), st.sets(st.integers(1, 19), max_size=18))
def test_one_quiet_window_is_enough(micros: float, disturbed: set[int]) -> None:
    assert abs(least_time(counted(micros, 20, disturbed)) * 1e6 - micros) <= 3 * 20


def test_traffic_takes_time_by_its_size(convolutions: Path) -> None:
    timer = OpenVinoLayers(convolutions, BackendOptions())
    assert timer.move(1 << 22, 0.01) > timer.move(1 << 12, 0.01) > 0


def test_onednn_names_its_instructions_in_a_process_of_its_own(convolutions: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from edgetrack.runtime.backends.base import BackendOptions\n"
        "from edgetrack.runtime.backends.openvino.layers import OpenVinoLayers, least_time\n"
        "timer = OpenVinoLayers(Path(sys.argv[1]), BackendOptions())\n"
        "found = [one for one in timer.layers(0.01) if one.role == 'compute']\n"
        "assert 'ONEDNN_VERBOSE' not in os.environ\n"
        "print('*', timer.instructions, '*', timer.alone(found[0], 0.01).primitive)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(convolutions)],
        env={name: value for name, value in os.environ.items() if name != "ONEDNN_VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "onednn" not in done
    _, instructions, primitive = done.split("*")
    if not instructions.strip():
        pytest.skip("this build of OpenVINO lets oneDNN say nothing")
    assert ":" in primitive
