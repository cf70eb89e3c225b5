"""What each verb says where an extra is not installed: one line with what to type."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgetrack.bundle.manifest import LicenceInfo, WeightsInfo
from tests.builders import scripted_manifest, write_scripted

pytestmark = pytest.mark.long

# Runs each case in a fork that has loaded what is always there, with some packages as good as not installed.
PROGRAM = """
import contextlib, importlib.machinery, io, json, os, sys, tempfile
import cv2, numpy, typer
from edgetrack.cli.main import main

class Hiding(importlib.machinery.PathFinder):
    hidden = ()
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in cls.hidden else super().find_spec(name, path, target)

sys.meta_path = [Hiding if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
for name, hidden, arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as told:
        if not (child := os.fork()):
            Hiding.hidden = hidden
            for module in [one for one in sys.modules if one.partition(".")[0] in hidden]:
                del sys.modules[module]
            sys.argv = ["edgetrack", *arguments]
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
            code = 1
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                import traceback
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told.seek(0)
        print(json.dumps([name, code, told.read()]), flush=True)
"""
EXTRAS = {
    "opencv": ("cv2",),
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "text": ("open_clip", "instant_clip_tokenizer", "ftfy"),
    "gpu": ("pynvml",),
    "devices": ("asyncssh",),
    "eval": ("joblib",),
    "cluster": ("distributed",),
    "plot": ("matplotlib",),
    "export": ("torch", "onnx", "safetensors"),
    "tensorrt": ("tensorrt", "tensorrt_rtx", "cuda"),
    "coreml": ("coremltools", "PIL"),
    "int8": ("nncf",),
    "check": ("scipy",),
    "report": ("jinja2", "markupsafe"),
    "hub": ("huggingface_hub",),
}
ALL = tuple(module for extra, modules in EXTRAS.items() for module in modules if extra != "opencv")
CLIP = "synthetic:drift?frames=3"
NEEDED = [
    ("opencv", ("cv2",), ("track", "a", CLIP)),
    ("opencv", ("cv2",), ("bench", "a", "--no-reference")),
    ("opencv", ("cv2",), ("eval", "a", CLIP)),
    ("opencv", ("cv2",), ("compare", "a", "a-onnx", "--dataset", CLIP)),
    ("opencv", ("cv2",), ("check", "a", "--budget", "smat-cpu")),
    ("opencv", ("cv2",), ("calibrate", "collect", "a", CLIP, "-o", "set.toml")),
    ("report", ("jinja2",), ("report", "out")),
    ("report", ("markupsafe",), ("report", "out", "--markdown")),
    ("report", ("matplotlib",), ("report", "out")),
    ("plot", ("matplotlib",), ("compare", "a", "a-onnx", "--dataset", "synthetic:drift", "--plot", "a.png")),
    ("eval", ALL, ("eval", "a", CLIP)),
    ("eval", ALL, ("compare", "a", "a-onnx", "--dataset", CLIP)),
    ("cluster", ("distributed",), ("eval", "a", "synthetic:", "--scheduler", "tcp://localhost:1")),
    ("check", ("scipy",), ("check", "a", "--budget", "smat-cpu", "--baseline", "a")),
    ("hub", ("huggingface_hub",), ("pull", "hf://owner/name/b.zip", "--trust-on-first-use")),
    ("hub", ("huggingface_hub",), ("push", "free", "hf://owner/name/b.zip")),
    ("devices", ("asyncssh",), ("bench", "a-onnx", "--device", "jetson", "--host", "localhost")),
    ("int8", ("nncf",), ("export", "smat", "--target", "onnx", "--precision", "int8", "--weights", "untrained")),
    ("coreml", ("coremltools",), ("export", "smat", "--target", "coreml")),
    ("tensorrt", EXTRAS["tensorrt"], ("export", "smat", "--target", "tensorrt")),
    *(("train", (module,), ("train", "smat", "--data", "x", "--out", "y")) for module in ("torch", "safetensors")),
    *(("export", (module,), ("export", "smat", "--target", "onnx")) for module in EXTRAS["export"]),
    ("export", ("torch",), ("export", "smat", "--target", "onnx", "--dry-run", "--json")),
    ("export", ("torch",), ("export", "smat", "--target", "onnx", "--onnx", "a.onnx", "--onnx", "b.onnx")),
    ("onnx", ALL, ("track", "a-onnx", CLIP)),
    ("onnx", ALL, ("calibrate", "collect", "a-onnx", CLIP, "-o", "set.toml")),
    ("openvino", ALL, ("track", "a-openvino", CLIP)),
    ("export", ALL, ("track", "a-torch", CLIP)),
]
UNNEEDED = [
    ("inspect", "a-onnx"),
    ("inspect", "a-onnx", "--json"),
    ("list", "--json"),
    *(("list", what) for what in ("--trackers", "--targets", "--scenes", "--devices")),
    ("doctor",),
    ("doctor", "--json"),
    ("pack", "a", "-o", "packed.zip", "--overwrite"),
    ("unpack", "given.zip", "-o", "unpacked", "--overwrite"),
    ("track", "a", CLIP),
    ("calibrate", "show", "synthetic"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What each case ended with: exit code, and all that it printed."""
    folder = tmp_path_factory.mktemp("extras")
    write_scripted(folder / "out" / "a")
    free = WeightsInfo(origin="untrained", licence=LicenceInfo(name="MIT", redistribution=True))
    write_scripted(folder / "out" / "free", scripted_manifest("free", weights=free))
    for target in ("onnx", "openvino", "torch"):
        suffix = {"onnx": ".onnx", "openvino": ".xml", "torch": ".safetensors"}[target]
        manifest = scripted_manifest(f"a-{target}", target=target, suffix=suffix)
        write_scripted(folder / "out" / f"a-{target}", manifest)
    from edgetrack.bundle import open_bundle, pack

    pack(open_bundle(folder / "out" / "a"), folder / "given.zip")
    cases = [(str(case), list(case[1]), list(case[2])) for case in NEEDED]
    cases += [(str(case), list(ALL), list(case)) for case in UNNEEDED]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, input=json.dumps(cases), text=True, capture_output=True, check=True
    )
    return {name: (code, text) for name, code, text in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("case", NEEDED, ids=lambda case: f"{case[0]}: {' '.join(case[2])} without {case[1][0]}")
def test_a_missing_extra_is_one_line_with_what_to_type(case, told) -> None:
    code, text = told[str(case)]
    (line,) = text.splitlines()
    assert line.startswith("edgetrack: ")
    # Where a broken OpenCV is installed its own package is named.
    assert ("pip install opencv-python" if case[0] == "opencv" else f"pip install 'edgetrack[{case[0]}]'") in line
    assert code == 3


@pytest.mark.parametrize("case", UNNEEDED, ids=" ".join)
def test_what_needs_no_extra_runs_without_any(case, told) -> None:
    code, text = told[str(case)]
    assert code == 0, text
    assert "Traceback" not in text


def test_every_extra_and_its_packages_are_among_those_that_are_hidden() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = re.findall(
        r"^([a-z0-9-]+) = \[", project.split("[project.optional-dependencies]")[1].split("[project")[0], re.M
    )
    # Other wheels of packages that stand there already, and what no verb uses.
    others = {"headless", "dev", "crosscheck", "train", "demo", "docs", "tensorrt-jetson", "jetpack6", "jetpack7"}
    assert {name for name in set(extras) - others if not name.startswith("onnx-")} == set(EXTRAS)
