"""A target from outside for tests: its environment made by the real commands, offline, out of wheels made here."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.environments import PipStep, PythonEnvironment
from edgetrack.environments.setup import EnvironmentState, set_up, state_of
from edgetrack.presentation.progress import no_progress

# What this Python has installed, as far as a .pth file brings it into another environment.
HOST = str(Path(np.__file__).parents[1])
NUMPY = importlib.metadata.version("numpy")

WORKER = """
import json
import os
import sys

import numpy as np

state = {}


class BundleIntegrityError(Exception):
    pass


def twice(arrays, say, *, note=""):
    say("doubling " + note)
    print("on stdout")
    return {name: value * 2 for name, value in arrays.items()}, {"python": sys.prefix, "folder": os.getcwd()}


def nothing(arrays, say):
    return None


def refuse(arrays, say):
    raise BundleIntegrityError("no such graph")


def fail(arrays, say):
    raise ZeroDivisionError("by nought")


def die(arrays, say):
    os._exit(9)


def write_to(arrays, say):
    arrays["x"][...] = 0


def many(arrays, say):
    return {"object": np.array([object()])}


def open_graph(arrays, say, *, path, device, threads):
    graph = json.load(open(path))
    if "refused" in graph:
        raise BundleIntegrityError(graph["refused"])
    state["graph"] = graph
    return {}, {key: graph[key] for key in ("inputs", "outputs") if key in graph} | {"placement": device}


def run_graph(arrays, say):
    (x,) = arrays.values()
    return {name: (x * factor).astype(kind) for name, (factor, kind) in state["graph"]["factors"].items()}
"""


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """A wheel of these files."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for one, text in files.items():
            archive.writestr(one, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{one},,\n" for one in (*files, f"{info}/RECORD")))
    return path


def write_host_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel by which an environment sees what this Python has installed."""
    return write_wheel(folder, name, version, {f"{name}_host.pth": HOST + "\n"})


@contextmanager
def offline(wheels: Path, environments: Path) -> Iterator[None]:
    """pip of this block's children finds these wheels alone, environments lie in that folder."""
    given = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": wheels.as_uri(),
        "PIP_CONFIG_FILE": os.devnull,
        "EDGETRACK_ENVIRONMENTS": str(environments),
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def toy_environment(worker: str = "toy_worker", **changed: object) -> PythonEnvironment:
    """The one that `make_toy_environment` makes."""
    given = {
        "name": "toy",
        "python": ">=3.10,<3.15",
        "steps": (PipStep((f"numpy=={NUMPY}",), no_deps=True), PipStep(("toy_engine==1.0",))),
        "imports": ("toy_engine",),
        "worker": worker,
        **changed,
    }
    return PythonEnvironment(**given)  # type: ignore[arg-type]


def write_toy_wheels(folder: Path) -> Path:
    """What the toy's environment installs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_host_wheel(folder, "numpy", NUMPY)
    write_wheel(folder, "toy_engine", "1.0", {"toy_engine.py": "NAME = 'toy'\n"})
    return folder


def with_our_pip(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Starts a command of a setup; an environment gets no pip of its own, which takes five seconds of six."""
    if "venv" in command:
        command = [*command, "--without-pip"]
    elif "pip" in command:
        python, *rest = command
        command = [sys.executable, "-m", "pip", "--python", python, *rest[rest.index("pip") + 1 :]]
    return subprocess.Popen(command, **options)


@pytest.fixture
def toy(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Iterator[EnvironmentState]:
    """The toy's environment, made by its commands, and its worker on the path."""

    def make(path: Path) -> None:
        wheels = write_toy_wheels(path.with_name("toy-wheels"))
        (path.with_name("toy-module")).mkdir()
        (path.with_name("toy-module") / "toy_worker.py").write_text(WORKER)
        with offline(wheels, path):
            assert set_up(toy_environment(), sys.executable, progress=no_progress, start=with_our_pip).ready

    folder = made_once("toy-environments", make)
    module = str(folder.with_name("toy-module"))
    sys.path.insert(0, module)
    with offline(folder.with_name("toy-wheels"), folder):
        yield state_of(toy_environment())
    sys.path.remove(module)
