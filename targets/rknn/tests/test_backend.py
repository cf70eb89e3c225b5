"""The board's runtime, played by a script that keeps what it was asked: order, shapes, errors. No board was at hand."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgetrack_rknn import backend
from edgetrack_rknn.backend import RknnGraph, chip_here
from edgetrack_rknn.record import BuildRecord
from rknn_graphs import fed

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import (
    BackendMissingError,
    BundleError,
    BundleIntegrityError,
    DeviceUnavailableError,
    UsageError,
)
from edgetrack.io import encode_json
from edgetrack.runtime.backends.base import BackendOptions

INFO = GraphInfo(
    name="step",
    role="step",
    file="step.onnx",
    inputs=(
        TensorInfo(name="search", dtype="uint8", shape=(16, 16, 3)),
        TensorInfo(name="features", dtype="float32", shape=(1, 4, 8, 8)),
    ),
    outputs=(TensorInfo(name="out", dtype="float32", shape=(1, 4, 8, 8)),),
)


class FakeLite:
    """rknn-toolkit-lite2's class, as its documentation has it: codes and None for what fails."""

    NPU_CORE_AUTO, NPU_CORE_0, NPU_CORE_1, NPU_CORE_2 = 0, 1, 2, 4
    calls: list[Any]
    fails = ""

    def __init__(self) -> None:
        print("W rknn-toolkit-lite2 version: 2.5.0")
        self.calls.append("made")

    def load_rknn(self, path: str) -> int:
        self.calls.append(("load", Path(path).name))
        return -1 if self.fails == "load" else 0

    def init_runtime(self, *, core_mask: int) -> int:
        self.calls.append(("init", core_mask))
        return -1 if self.fails == "init" else 0

    def inference(self, *, inputs: list[np.ndarray], data_format: list[str]) -> list[np.ndarray] | None:
        self.calls.append(
            [(value.shape, str(value.dtype), form) for value, form in zip(inputs, data_format, strict=True)]
        )
        if self.fails == "inference":
            return None
        shape = (1, 4, 4, 4) if self.fails == "shape" else (1, 4, 8, 8)
        return [np.full(shape, float(inputs[0].sum()), np.float32)]

    def release(self) -> None:
        self.calls.append("released")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeLite]:
    """A Radxa Rock 5B, as far as Linux says."""
    compatible = tmp_path / "compatible"
    compatible.write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    monkeypatch.setattr(backend, "chip_here", lambda: chip_here(compatible))
    fake = type("Fake", (FakeLite,), {"calls": []})
    module = types.ModuleType("rknnlite")
    module.api = types.SimpleNamespace(RKNNLite=fake)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rknnlite", module)
    return fake


def bundle(folder: Path, platform: str = "rk3588") -> Path:
    record = BuildRecord(platform=platform, precision="fp16")  # type: ignore[arg-type]
    (folder / "step.rknn.json").write_bytes(encode_json(record))
    (folder / "step.rknn").write_bytes(b"RKNN")
    return folder / "step.onnx"


def test_board_is_asked_in_order_and_prints_nothing_to_stdout(
    board: type[FakeLite], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu:1"))
    for name, value in fed().items():
        np.copyto(graph.inputs[name], value)
    graph.run()
    assert (graph.outputs["out"] == fed()["search"].sum()).all()
    graph.close()
    graph.close()
    inputs = [((1, 16, 16, 3), "uint8", "nhwc"), ((1, 4, 8, 8), "float32", "nchw")]
    assert board.calls == ["made", ("load", "step.rknn"), ("init", 2), inputs, "released"]
    assert graph.placement == "rk3588 NPU, core 1"
    assert capsys.readouterr().out == ""


def test_driver_chooses_the_core_where_none_is_named(board: type[FakeLite], tmp_path: Path) -> None:
    RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu"))
    assert board.calls[2] == ("init", 0)


@pytest.mark.parametrize(
    ("fails", "error", "words"),
    [
        ("load", BundleIntegrityError, "cannot read step.rknn"),
        ("init", DeviceUnavailableError, "librknnrt.so and the driver"),
        ("inference", BundleError, "fails on the NPU"),
        ("shape", BundleError, r"the NPU gave \[\(1, 4, 4, 4\)\]"),
    ],
)
def test_what_the_board_refuses_is_an_error_of_its_kind(
    board: type[FakeLite], tmp_path: Path, fails: str, error: type[Exception], words: str
) -> None:
    board.fails = fails
    with pytest.raises(error, match=words):
        RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu")).run()
    assert fails in ("inference", "shape") or board.calls[-1] == "released"


def test_board_of_another_chip_is_refused_before_anything_is_loaded(board: type[FakeLite], tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"built for rk3566, this board has rk3588; .*--platform rk3588"):
        RknnGraph(INFO, bundle(tmp_path, "rk3566"), BackendOptions(device="npu"))
    assert board.calls == []


def test_core_that_no_chip_has_is_refused(board: type[FakeLite], tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match="npu:0 to npu:2"):
        RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu:3"))


def test_computer_that_is_no_board_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "chip_here", lambda: chip_here(tmp_path / "none"))
    with pytest.raises(DeviceUnavailableError, match="no board with its NPU; --device cpu simulates"):
        RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu"))


def test_board_without_the_runtime_says_what_to_install(
    board: type[FakeLite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rknnlite", None)
    with pytest.raises(BackendMissingError, match="pip install rknn-toolkit-lite2"):
        RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu"))


def test_hint_is_refused_on_the_board(board: type[FakeLite], tmp_path: Path, installed: Path) -> None:
    with pytest.raises(UsageError, match="takes no precision hint"):
        RknnGraph(INFO, bundle(tmp_path), BackendOptions(device="npu", precision_hint="bf16"))


@pytest.mark.parametrize("text", ['{"schema": 2}', '{"platform": "rk9999", "precision": "fp16"}', "[", '{"more": 1}'])
def test_record_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = bundle(tmp_path)
    (tmp_path / "step.rknn.json").write_text(text)
    with pytest.raises(BundleError, match=r"step\.rknn\.json"):
        RknnGraph(INFO, path, BackendOptions(device="npu"))


def test_bundle_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match=r"has no step\.rknn\.json; export the bundle again"):
        RknnGraph(INFO, tmp_path / "step.onnx", BackendOptions())


@pytest.mark.parametrize(
    ("said", "chip"),
    [
        (b"radxa,rock-5b\0rockchip,rk3588\0", "rk3588"),
        (b"friendlyelec,nanopi-r6c\0rockchip,rk3588s\0", "rk3588s"),
        (b"rockchip,rv1106g-evb1-v11\0rockchip,rv1106\0", "rv1106"),
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", ""),
        (b"\xff\0", ""),
    ],
)
def test_chip_is_read_from_what_linux_says(tmp_path: Path, said: bytes, chip: str) -> None:
    (tmp_path / "compatible").write_bytes(said)
    assert chip_here(tmp_path / "compatible") == chip
