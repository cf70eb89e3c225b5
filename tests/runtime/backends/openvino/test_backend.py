"""OpenVINO's own: weights beside the graph, the cache of compiled models, bfloat16."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino
import pytest

from edgetrack.bundle import open_bundle
from edgetrack.bundle.manifest import SEVEN_BITS, CalibrationInfo
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError
from edgetrack.io import sha256
from edgetrack.runtime.backends.openvino import backend
from edgetrack.runtime.backends.openvino.backend import shared_core
from edgetrack.runtime.session import load
from edgetrack.runtime.verify import run_graph


@pytest.mark.parametrize("kind", ["missing", "empty", "cut"])
def test_damaged_weights_are_refused(graph_file: Callable[..., Any], kind: str) -> None:
    file = graph_file("openvino")
    data = file.data.read_bytes()
    file.data.unlink()
    if kind != "missing":
        file.data.write_bytes(data[: len(data) // 2] if kind == "cut" else b"")
    with pytest.raises(BundleIntegrityError, match=r"OpenVINO cannot read template\.xml"):
        file.open()


def test_compiled_model_is_cached_and_loads_again(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("EDGETRACK_CACHE", str(cache))
    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    boxes, listings = [], []
    for _ in range(2):
        with load(exported("openvino")) as tracker:
            tracker.init(frame, (60, 40, 30, 20))
            boxes.append(tracker.update(frame).box)
        listings.append(sorted(path.name for path in (cache / "openvino").iterdir()))
    assert listings[0]
    assert listings[0] == listings[1]
    assert boxes[0] == pytest.approx(boxes[1], abs=1e-3)


@pytest.mark.parametrize("kind", ["Broadcast", "Gather", "Relu", "MatMul"])
def test_layers_without_their_inputs_are_refused_before_openvino_reads_them(
    graph_file: Callable[..., Any], kind: str
) -> None:
    # OpenVINO 2026.4 reads past the inputs that are there: a segmentation fault.
    file = graph_file("openvino")
    text = file.path.read_text()
    file.path.write_text(text.replace('type="Const"', f'type="{kind}"', 1))
    with pytest.raises(BundleIntegrityError, match=rf"graph 'template': node '.*' \({kind}\) has 0 inputs, fewer"):
        file.open()
    file.path.write_text('<!DOCTYPE net [<!ENTITY a "b">]>' + text)
    with pytest.raises(BundleIntegrityError, match=r"template\.xml holds an XML declaration"):
        file.open()


@pytest.mark.parametrize("spoil", ["swapped", "recorded by one of the group"])
def test_another_models_blob_is_never_run(
    graph_file: Callable[..., Any], recorded: Callable[..., Any], tmp_path: Path, spoil: str
) -> None:
    cache = tmp_path / "cache"
    file, given = graph_file("openvino", "step"), recorded("openvino", "step")
    graph = file.open(cache=cache)
    before = run_graph(graph, given["in"])["score"].copy()
    graph.close()
    (blob,) = (cache / "openvino").glob("*.blob")
    enemy = shared_core().compile_model(_halved(file.path), "CPU").export_model().getvalue()
    blob.write_bytes(enemy)
    if spoil != "swapped":
        record = msgspec.json.decode(blob.with_suffix(".json").read_bytes())
        blob.with_suffix(".json").write_bytes(msgspec.json.encode({**record, "sha256": sha256(enemy)}))
        graph = file.open(cache=cache)
        assert np.allclose(run_graph(graph, given["in"])["score"], before / 2), "the attack works on a trusted folder"
        graph.close()
        (cache / "openvino").chmod(0o770)
    graph = file.open(cache=cache)
    assert np.array_equal(run_graph(graph, given["in"])["score"], before)
    graph.close()


def _halved(path: Path) -> Any:
    """A model of the same ports whose scores are half."""
    from openvino import opset13

    model = shared_core().read_model(path)
    (result,) = (port.get_node() for port in model.outputs if port.any_name == "score")
    half = opset13.multiply(result.input_value(0), opset13.constant(np.float32(0.5)))
    half.output(0).set_names({"score"})
    result.input(0).replace_source_output(half.output(0))
    model.validate_nodes_and_infer_types()
    return model


def test_processors_of_one_name_share_no_compiled_graph(
    graph_file: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags in (("avx2",), ("avx2", "avx512f"), ("avx2",)):
        monkeypatch.setattr("edgetrack.runtime.backends.openvino.backend.cpu_flags", lambda flags=flags: flags)
        graph_file("openvino", "step").open(cache=tmp_path / "cache").close()
    assert len(list((tmp_path / "cache" / "openvino").glob("*.blob"))) == 2


def test_no_cache_is_left_where_it_is_off(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGETRACK_CACHE", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with load(exported("openvino")):
        pass
    assert not any(tmp_path.iterdir())


def test_bfloat16_is_refused_where_the_processor_lacks_it(
    graph_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino.Core, "get_property", lambda self, device, name: ["FP32", "INT8"])
    with pytest.raises(DeviceUnavailableError, match=r"OpenVINO lists FP32, INT8\); drop the hint") as caught:
        graph_file("openvino").open(precision_hint="bf16")
    assert caught.value.exit_code == 4


def test_bfloat16_comes_near_and_only_where_it_was_asked_for(
    graph_file: Callable[..., Any], recorded: Callable[..., Any]
) -> None:
    if "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("NO BFLOAT16: this processor cannot compute in it")
    file, record = graph_file("openvino", "step"), recorded("openvino", "step")
    errors = {}
    for hint in (None, "bf16"):
        graph = file.open(precision_hint=hint)
        errors[hint] = np.abs(run_graph(graph, record["in"])["score"] - record["out"]["score"]).max()
        graph.close()
    assert errors[None] < 1e-5
    assert 1e-5 < errors["bf16"] < 0.1


INTERRUPTED = """
import os, signal, sys
import edgetrack

trackers = [edgetrack.load(path) for path in sys.argv[1:]]
for tracker in trackers:
    tracker.close()
del tracker, trackers
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_ctrl_c_after_bundles_were_closed(exported: Callable[..., Any]) -> None:
    # With a core for each graph the signal stack was gone by then, and the process with it.
    bundle = str(exported("openvino"))
    command = [sys.executable, "-c", INTERRUPTED, bundle, bundle]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


NO_HOME = """
import os, pwd, socket, sys
os.environ.pop("HOME", None)
def missing(*_): raise KeyError("no such user")
def refused(*_, **__): raise AssertionError("the network was asked")
pwd.getpwuid = missing
socket.getaddrinfo = refused
from edgetrack.runtime.backends.openvino.backend import shared_core
shared_core()
import edgetrack.exporting.lowering
from edgetrack.cli.main import app
print("telemetry:", sys.modules["openvino_telemetry"])
sys.argv[1:] = ARGUMENTS
app()
"""


@pytest.mark.parametrize(
    "arguments", [["list", "--devices"], ["track", "BUNDLE", "synthetic:drift?frames=4", "--json"]]
)
def test_neither_a_home_nor_reports_of_usage_are_needed(
    exported: Callable[..., Path], tmp_path: Path, arguments: list[str]
) -> None:
    words = [str(exported("openvino")) if word == "BUNDLE" else word for word in arguments]
    environ = {name: value for name, value in os.environ.items() if name not in ("EDGETRACK_CACHE", "XDG_CACHE_HOME")}
    code = NO_HOME.replace("ARGUMENTS", repr(words))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("telemetry: None")
    assert not list(tmp_path.iterdir())


def test_the_converter_is_not_loaded_where_a_bundle_runs_and_is_there_for_who_asks() -> None:
    code = (
        "import sys\n"
        "from edgetrack.runtime.backends.openvino.backend import import_openvino\n"
        "import_openvino().Core()\n"
        "assert not [name for name in sys.modules if name.startswith('openvino.tools.ovc')]\n"
        "from openvino.tools.ovc import convert_model\n"
        "import_openvino()\n"
        "assert 'openvino.tools.ovc' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("precision", "bits", "flags", "said"),
    [
        ("int8", "", ("avx2",), True),
        ("int8", f", {SEVEN_BITS}", ("avx2",), False),
        ("int8", "", ("avx2", "avx_vnni"), False),
        ("int8", "", (), False),
        ("fp32", "", ("avx2",), False),
    ],
)
def test_int8_says_where_its_sums_may_saturate(
    exported: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    bits: str,
    flags: tuple[str, ...],
    said: bool,
) -> None:
    monkeypatch.setattr(backend, "cpu_flags", lambda: flags)
    monkeypatch.setattr(backend.platform, "machine", lambda: "x86_64")
    full = open_bundle(exported("openvino"))
    method = CalibrationInfo(method=f"nncf minmax{bits}", list_sha256="0" * 64, size=1)
    manifest = msgspec.structs.replace(full.manifest, precision=precision, calibration=method)
    with caplog.at_level("WARNING"), load(replace(full, manifest=manifest)):
        pass
    assert ("sums of INT8 may saturate" in caplog.text) is said
    assert ("--weight-bits 7" in caplog.text) is said
