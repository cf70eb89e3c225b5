"""Which OpenCV is here, what it can do, and why it cannot be imported; edgetrack brings none (decision 0004)."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from contextlib import redirect_stdout, suppress
from typing import Any

import msgspec

from edgetrack.errors import BackendMissingError

OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Distributions that install the module `cv2`, each over the others' files."""
_INSTALL = "pip install 'edgetrack[headless]', or 'edgetrack[opencv]' on a machine with a screen (--show, --select)"
_SHOWN = 300
_APT = {
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1",
    "libgthread-2.0.so": "libglib2.0-0",
    "libglib-2.0.so": "libglib2.0-0",
    "libSM.so": "libsm6",
    "libICE.so": "libice6",
    "libX11.so": "libx11-6",
    "libXext.so": "libxext6",
    "libXrender.so": "libxrender1",
    "libxcb.so": "libxcb1",
}
"""Debian's and Ubuntu's packages of the libraries that OpenCV's builds with windows leave to the system."""


class OpenCvBuild(msgspec.Struct, frozen=True, kw_only=True):
    """The OpenCV that `import cv2` gives.

    Attributes:
        packages: installed distributions that bring it; none where it comes from the system (apt, JetPack, a build).
        version: what it says itself, which need not be that of the packages; null where it cannot be imported.
        place: the folder that it was imported from.
        windows: what draws its windows, such as QT5; null where it has none.
        ffmpeg, gstreamer, v4l2: whether it reads video and cameras by these.
        problem: what is wrong, and what to type; null where nothing is.
    """

    packages: dict[str, str]
    version: str | None = None
    place: str | None = None
    windows: str | None = None
    ffmpeg: bool = False
    gstreamer: bool = False
    v4l2: bool = False
    problem: str | None = None

    def __str__(self) -> str:
        if self.version is None:
            return self.problem or "not found"
        source = (
            ", ".join(f"{name} {version}" for name, version in self.packages.items()) or f"the system's, {self.place}"
        )
        can = [
            f"windows by {self.windows}" if self.windows else "no windows",
            *(
                f"{name} {'yes' if has else 'no'}"
                for name, has in (("FFmpeg", self.ffmpeg), ("GStreamer", self.gstreamer), ("V4L2", self.v4l2))
            ),
        ]
        return f"{self.version} ({source}): {', '.join(can)}" + (f"; {self.problem}" if self.problem else "")


def find_opencv() -> OpenCvBuild:
    """Import it and look; nothing is raised where it cannot be."""
    packages = _packages()
    try:
        with redirect_stdout(sys.stderr):  # its loader prints advice of its own
            cv2: Any = importlib.import_module("cv2")
    except ImportError as error:
        said = missing_opencv(error)
        return OpenCvBuild(packages=packages, problem=str(said or error))
    except Exception as error:  # a build for another NumPy, a library of another processor: each its own class
        return OpenCvBuild(packages=packages, problem=f"OpenCV cannot be imported ({error}); {_replace(packages)}")
    built = cv2.getBuildInformation()
    windows = _stated(built, "GUI")
    return OpenCvBuild(
        packages=packages,
        version=cv2.__version__,
        place=str(cv2.__file__).rpartition("/")[0],
        windows=None if windows in ("", "NO", "NONE") else windows,
        ffmpeg=_stated(built, "FFMPEG").startswith("YES"),
        gstreamer=_stated(built, "GStreamer").startswith("YES"),
        v4l2=_stated(built, "v4l/v4l2").startswith("YES"),
        problem=None if len(packages) < 2 else f"these overwrite each other's files; {_replace(packages)}",
    )


def broken_numpy(error: Exception | None = None) -> BackendMissingError | None:
    """The error that says what to type where NumPy cannot be loaded; None where it can, or `error` is another's.

    Args:
        error: of an import that failed; without one the import is tried.
    """
    if error is None:
        try:
            importlib.import_module("numpy")
        except Exception as fault:  # RuntimeError where the processor lacks what the build needs
            error = fault
        else:
            return None
    elif getattr(error, "name", None) != "numpy" and not _raised_in("numpy", error):
        return None
    said = " ".join(str(error).split())[:_SHOWN]
    return BackendMissingError(
        f"NumPy cannot be imported ({said}); type: pip install --force-reinstall numpy, or, where its build needs a "
        "newer processor or system than this, pip install 'numpy<2'"
    )


def missing_opencv(error: ImportError) -> BackendMissingError | None:
    """The error that says what to type where an import failed for want of OpenCV; None where it failed otherwise."""
    if error.name != "cv2" and not _raised_in("cv2", error):
        return None
    packages = _packages()
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2" and not packages:
        return BackendMissingError(f"OpenCV is not installed; type: {_INSTALL}")
    library = re.search(r"lib[\w+-]+(?:\.\d+)*\.so", str(error))
    if library is None:
        return BackendMissingError(f"OpenCV cannot be imported ({error}); {_replace(packages)}")
    apt = _APT.get(library[0])
    first = f"type: apt-get install {apt}" if apt else f"install the system's package that holds {library[0]}"
    return BackendMissingError(
        f"OpenCV cannot be imported: {library[0]} is missing ({error}); {first}, or take the build without windows: "
        f"{_replace(packages)}"
    )


def _replace(packages: dict[str, str]) -> str:
    removed = f"pip uninstall {' '.join(packages)} && " if packages else ""
    return f"{removed}pip install opencv-python-headless"


def _packages() -> dict[str, str]:
    found = {}
    for name in OPENCV:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _raised_in(package: str, error: Exception) -> bool:
    """Whether an import failed inside the package itself, as OpenCV's where NumPy is of another major version."""
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == package:
            return True
        trace = trace.tb_next
    return False


def _stated(built: str, name: str) -> str:
    found = re.search(rf"^ +{name}: +(\S+)", built, re.MULTILINE)
    return found[1] if found else ""
