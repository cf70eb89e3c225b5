"""A Jetson's release and state, from what the commands of each release print."""

from __future__ import annotations

import subprocess

import pytest

from edgetrack.system.jetpack import find_jetson
from edgetrack.system.jetson import PowerMode
from edgetrack.system.machine import MachineRecord
from edgetrack.system.opencv import OpenCvBuild

JETPACKS_OWN = OpenCvBuild(packages={}, version="4.8.0", gstreamer=True)
FROM_PIP = OpenCvBuild(packages={"opencv-python": "4.12"}, version="4.12", ffmpeg=True)
SHOW = "cpu0: Online=1 Governor=schedutil MinFreq={0} MaxFreq=1728000 CurrentFreq=1728000\nGPU MinFreq=1 MaxFreq=1\n"


def board(l4t="36.4.3", **changes):
    values = {"os": "Ubuntu", "kernel": "5", "architecture": "aarch64", "python": "CPython", "packages": {}}
    return MachineRecord(**{**values, "is_jetson": True, "l4t": l4t, **changes})


def answers(jetpack="6.2+b77", tensorrt="10.3.0.30-1+cuda12.5", mode="NV Power Mode: MAXN_SUPER\n2\n", low=1728000):
    library = "libnvinfer8" if (tensorrt or "").startswith("8") else "libnvinfer10"
    packages = {"nvidia-jetpack": jetpack, library: tensorrt}
    programs = {"nvpmodel": mode, "jetson_clocks": low and SHOW.format(low)}

    def run(command, **settings):
        said = packages.get(command[-1]) if command[0] == "dpkg-query" else programs[command[0]]
        return subprocess.CompletedProcess(command, 0 if said else 1, said or "", "")

    return run


def look(machine, run, opencv=JETPACKS_OWN, python=(3, 10), tmp_path=None, sees=True):
    return find_jetson(machine, opencv, root=tmp_path, run=run, python=python, sees=lambda module: sees)


def test_jetpack_6_in_order_has_no_advice(tmp_path):
    found = look(board(), answers(), tmp_path=tmp_path)
    assert str(found) == ("JetPack 6.2 (Jetson Linux 36.4.3); TensorRT 10.3.0.30; power mode MAXN_SUPER, clocks fixed")
    assert (found.power, found.advice) == (PowerMode("MAXN_SUPER", True), ())


def test_thor_whose_jetson_clocks_wants_root(tmp_path):
    run = answers(jetpack=None, tensorrt="10.13.3.9-1+cuda13.0", mode="NV Power Mode: 120W\n1\n", low=None)
    found = look(board("38.2.0"), run, python=(3, 12), tmp_path=tmp_path)
    assert str(found) == (
        "JetPack 7 (Jetson Linux 38.2.0); TensorRT 10.13.3.9; power mode 120W, "
        "clocks unknown (jetson_clocks wants root)"
    )
    assert found.advice == ()


@pytest.mark.parametrize(
    ("machine", "run", "more", "words"),
    [
        (board("35.4.1"), answers("5.1.2-b104", "8.5.2-1+cuda11.4", "NV Power Mode: MODE_15W_6CORE\n2\n"), {},
         ["JetPack 5's TensorRT speaks to Python 3.8 alone", "ONNX bundles run on the processor"]),
        (board(), answers(), {"sees": False}, ["python3.10 -m venv --system-site-packages", "'edgetrack[jetpack6]'"]),
        (board("38.2.0"), answers(), {"python": (3, 13)}, ["this is Python 3.13", "'edgetrack[jetpack7]'"]),
        (board(), answers(tensorrt=None), {}, ["sudo apt-get install nvidia-jetpack"]),
        (board(), answers(), {"opencv": FROM_PIP}, ["without GStreamer", "pip uninstall opencv-python"]),
        (board(), answers(low=729600), {}, ["sudo jetson_clocks"]),
        (board(None), answers(jetpack=None, tensorrt=None), {}, ["nvidia-jetpack"]),
    ],
)  # fmt: skip
def test_what_is_missing_says_what_to_type(tmp_path, machine, run, more, words):
    (advice,) = look(machine, run, tmp_path=tmp_path, **more).advice
    for word in words:
        assert word in advice


def test_no_jetson_is_asked_nothing(tmp_path):
    assert look(board(is_jetson=False), None, tmp_path=tmp_path) is None
