"""The script for a person with a GPU: refused without one, and its bookkeeping where nothing needs one."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgetrack.exporting.isolated import Exported, Failed, IsolatedExports, Worst
from edgetrack.system.machine import collect

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "gpu_reference.py"
GIVEN = argparse.Namespace(
    tracker="smat", weights="untrained", calib="synthetic", device="cuda:0", duration=1.0, iterations=10
)


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_and_leaves_nothing() -> None:
    if collect().nvidia_present:
        pytest.skip("A GPU IS HERE: its absence cannot be tested")
    before = sorted(SCRIPT.parent.rglob("*.json"))
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4
    assert "gpu_reference.py: device 'cuda:0': no NVIDIA driver was found here" in done.stderr
    assert sorted(SCRIPT.parent.rglob("*.json")) == before


def test_every_way_is_exported_and_measured_against_eager(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def exported(name: str, target: str) -> Exported:
        return Exported(bundle=str(tmp_path / name), target=target, weights="untrained", comparisons=1,
                        reference="PyTorch", not_run="", worst=Worst("w", 0.0))  # fmt: skip

    def export_each(commands: dict[str, list[str]], **_: Any) -> IsolatedExports:
        asked.update(commands)
        failed = Failed(target="smat-tensorrt-int8", exit_code=3, message="m")
        return IsolatedExports(
            results=(exported("t", "torch"), exported("f", "tensorrt")),
            failures=(failed,),
        )

    monkeypatch.setattr(script, "export_each", export_each)
    made = script.export_all(GIVEN, tmp_path)
    assert list(asked) == ["smat-torch-fp32", "smat-tensorrt-fp32", "smat-tensorrt-fp16", "smat-tensorrt-int8"]
    assert "--calib" in asked["smat-tensorrt-int8"]
    assert "--calib" not in asked["smat-torch-fp32"]
    commands = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(script.subprocess, "run", run)
    assert script.bench(GIVEN, made, tmp_path / "r.json") == 0
    (command,) = commands
    assert command[command.index("--reference") + 1] == str(tmp_path / "t")
    assert command[command.index("--device") + 1] == "cuda:0"
    assert {str(tmp_path / "t"), str(tmp_path / "f")} <= set(command)
