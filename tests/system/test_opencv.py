"""OpenCV that is missing, broken or there twice: one line each, in the API, in verbs and in `doctor`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edgetrack.system.opencv import OPENCV, find_opencv, missing_opencv
from tests.builders import write_scripted

NO_GL = "libGL.so.1: cannot open shared object file: No such file or directory"
CLIP = "synthetic:drift?frames=2&size=96x64"


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "5.0.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def said(error: ImportError) -> str:
    found = missing_opencv(error)
    assert found is not None
    assert found.exit_code == 3
    assert "\n" not in str(found)
    return str(found)


@pytest.mark.parametrize(
    ("library", "apt"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libSM.so.6", "libsm6"),
        ("libXext.so.6", "libxext6"),
    ],
)
def test_a_system_library_that_is_missing_names_its_package(monkeypatch, library: str, apt: str) -> None:
    installed(monkeypatch, "opencv-python")
    text = said(ImportError(f"{library}: cannot open shared object file: No such file or directory", name="cv2"))
    assert f"type: apt-get install {apt}, or take the build without windows: " in text
    assert text.endswith("pip uninstall opencv-python && pip install opencv-python-headless")


def test_another_library_is_named_as_it_is(monkeypatch) -> None:
    installed(monkeypatch, "opencv-contrib-python")
    text = said(ImportError("libfoo-1.2.so.3: cannot open shared object file", name="cv2"))
    assert "install the system's package that holds libfoo-1.2.so" in text
    assert "pip uninstall opencv-contrib-python && " in text


def test_none_installed_names_both_extras(monkeypatch) -> None:
    installed(monkeypatch)
    text = said(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert text.startswith("OpenCV is not installed; type: pip install 'edgetrack[headless]', or 'edgetrack[opencv]'")


def test_another_missing_package_is_not_opencvs_fault() -> None:
    assert missing_opencv(ModuleNotFoundError("No module named 'torch'", name="torch")) is None


def test_what_is_here_is_what_opencv_says_of_itself() -> None:
    found = find_opencv()
    assert found.version == cv2.__version__
    assert set(found.packages) <= set(OPENCV)
    assert Path(found.place or "") == Path(cv2.__file__).parent
    assert found.ffmpeg == (cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends())
    assert bool(found.windows) == bool(cv2.currentUIFramework())
    assert f"FFmpeg {'yes' if found.ffmpeg else 'no'}" in str(found)


def test_two_that_overwrite_each_other_are_pointed_out(monkeypatch) -> None:
    installed(monkeypatch, "opencv-python", "opencv-python-headless")
    found = find_opencv()
    assert found.version is not None
    assert str(found).endswith(
        "these overwrite each other's files; pip uninstall opencv-python opencv-python-headless && pip install "
        "opencv-python-headless"
    )


def test_the_systems_own_is_one(monkeypatch) -> None:
    installed(monkeypatch)
    found = find_opencv()
    assert (found.packages, found.problem) == ({}, None)
    assert f"(the system's, {found.place})" in str(found)


@pytest.fixture
def without_gl(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose OpenCV cannot be loaded, as in a slim container."""
    package = tmp_path / "site" / "cv2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise ImportError({NO_GL!r}, name='cv2')\n")
    paths = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.mark.parametrize("verb", [["track", "{}", CLIP], ["eval", "{}", CLIP], ["bench", "{}", "--no-reference"]])
def test_a_verb_ends_with_one_line(tmp_path: Path, without_gl: dict[str, str], verb: list[str]) -> None:
    bundle = write_scripted(tmp_path / "a")
    arguments = [part.format(bundle) for part in verb]
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", *arguments],
        env=without_gl,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgetrack: OpenCV cannot be imported: libGL.so is missing")
    assert "apt-get install libgl1" in line


def test_the_api_raises_one_of_its_own_errors(without_gl: dict[str, str]) -> None:
    code = "import edgetrack\ntry:\n    edgetrack.load\nexcept edgetrack.errors.BackendMissingError as e:\n    print(e)"
    done = subprocess.run([sys.executable, "-c", code], env=without_gl, capture_output=True, text=True, check=True)
    assert "apt-get install libgl1" in done.stdout


@pytest.mark.parametrize(
    ("package", "fault", "words"),
    [
        (
            "numpy",
            "ImportError('libopenblas.so.0: cannot open shared object file')",
            "pip install --force-reinstall numpy",
        ),
        ("numpy", "RuntimeError('NumPy was built with baseline optimizations: X86_V2')", "pip install 'numpy<2'"),
        ("cv2", "AttributeError('_ARRAY_API not found')", "OpenCV cannot be imported (_ARRAY_API not found)"),
        ("cv2", "OSError('libtbb.so: invalid ELF header')", "pip install opencv-python-headless"),
    ],
)
def test_doctor_outlives_what_cannot_be_loaded(tmp_path: Path, package: str, fault: str, words: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise {fault}\n")
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    code = (
        "from edgetrack.cli import doctor; from edgetrack.runtime import found; found.find_here = lambda targets: {}; "
        "doctor.doctor(as_json=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert words in (found["numpy_problem"] if package == "numpy" else found["opencv"]["problem"])
    assert "profiles" in found


def test_a_verb_without_numpy_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libopenblas.so.0: cannot open shared object file')\n")
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", "verify", "a"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "NumPy cannot be imported (libopenblas.so.0" in line


def test_doctor_says_what_is_wrong_and_goes_on(tmp_path: Path, without_gl: dict[str, str]) -> None:
    broken = tmp_path / "site" / "onnxruntime"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", "doctor", "--json"],
        env=without_gl,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["opencv"]["version"] is None
    assert "apt-get install libgl1" in found["opencv"]["problem"]
    (row,) = (row for row in found["targets"] if row["target"] == "onnx")
    assert row["installed"]
    assert "libgomp.so.1" in row["problem"]
    assert all(row["problem"] is None for row in found["targets"] if row["target"] == "openvino")


def test_what_a_build_says_of_its_readers_is_read(monkeypatch) -> None:
    """The lines of Debian's OpenCV 4.6."""
    said = (
        "  GUI:                           NONE\n  Video I/O:\n    FFMPEG:                      YES\n"
        "    GStreamer:                   YES (1.22.0)\n    v4l/v4l2:                    YES (linux/videodev2.h)\n"
    )
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: said)
    found = find_opencv()
    assert (found.ffmpeg, found.gstreamer, found.v4l2) == (True, True, True)
    assert "no windows, FFmpeg yes, GStreamer yes, V4L2 yes" in str(found)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: said.replace("YES", "NO"))
    assert "FFmpeg no, GStreamer no, V4L2 no" in str(find_opencv())
