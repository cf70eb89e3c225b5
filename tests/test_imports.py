"""What importing costs: nothing heavy for the package, no exporter's package for the runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "edgetrack"
HEAVY = ("numpy", "cv2", "torch", "onnx", "onnxruntime", "openvino", "safetensors", "typer", "rich")
EXPORTERS = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "onnxslim",
    "safetensors",
    "tensorrt_rtx",
    "cuda",
    "coremltools",
)
MODULES = sorted(
    ".".join(("edgetrack", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def python(program: str) -> str:
    """The output of a program in a fresh interpreter, where warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str, packages: tuple[str, ...]) -> set[str]:
    """Which of the packages are in sys.modules after a statement."""
    return set(packages) & set(python(f"import sys; {statement}; print(*sys.modules)").split())


def test_package_loads_nothing_heavy() -> None:
    assert loaded_by("import edgetrack", HEAVY) == set()


def test_errors_boxes_and_the_capability_table_load_nothing_heavy() -> None:
    statement = "import edgetrack.errors, edgetrack.box, edgetrack.capabilities, edgetrack.resources"
    assert loaded_by(statement, HEAVY) == set()


def test_runtime_loads_no_exporter_and_no_backend() -> None:
    assert loaded_by("import edgetrack.runtime.session, edgetrack.runtime.trackers.smat", EXPORTERS) == set()


def test_backends_load_their_package_only_when_a_graph_is_opened() -> None:
    names = ("fake", "onnxruntime", "openvino", "torch", "tensorrt", "coreml")
    statement = "import " + ", ".join(f"edgetrack.runtime.backends.{name}.backend" for name in names)
    assert loaded_by(statement, EXPORTERS) == set()


def test_planning_an_export_loads_no_converter() -> None:
    """PyTorch alone: a plan holds the recipe against its network, without weights."""
    statement = "from edgetrack.exporting.pipeline import *; plan(ExportRequest('smat', 'onnx'))"
    assert not loaded_by(statement, EXPORTERS) & {"onnx", "onnxruntime", "openvino"}


@pytest.mark.full
def test_every_module_can_be_imported_first() -> None:
    """Each in a forked child of one interpreter, so that none leans on what another one imported."""
    program = f"""
import os, sys, traceback
import numpy, torch
failed = []
for name in {MODULES!r}:
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(" ".join(failed) or 0)
"""
    python(program)


@pytest.mark.parametrize("name", ["load", "Tracker", "Result", "Timing"])
def test_names_that_are_loaded_late_are_there(name: str) -> None:
    import edgetrack

    assert name in edgetrack.__all__
    assert getattr(edgetrack, name).__module__ == "edgetrack.runtime.session"


def test_name_that_is_not_there_is_an_attribute_error() -> None:
    import edgetrack

    with pytest.raises(AttributeError, match="module 'edgetrack' has no attribute 'nothing'"):
        _ = edgetrack.nothing
