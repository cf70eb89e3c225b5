"""`make test-matrix`: the wheel in clean environments of every Python found here, with one extra each, tracks a bundle.

    python tests/matrix.py [PYTHON ...] [EXTRA ...]     # such as 3.10 3.13 openvino; by default all that are installed

Each environment gets the wheel with `[headless,onnx]` or `[headless,openvino]` alone, runs `doctor`, verifies an
untrained NanoTrack that this environment exports, and tracks a scene with it, also where `fcntl`, `resource` and
affinity are missing. What it prints says how long installing took, how large the environment is, and when the first
boxes were there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("onnx", "openvino")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TRACKER, SCENE = "nanotrack_v2", "synthetic:drift?frames=6&size=320x240"
HIDE = """
import builtins, os
given = builtins.__import__
def hiding(name, globals=None, *rest, **more):
    own = (globals or {}).get("__name__", "").split(".")[0] in ("edgetrack", "filelock")
    if own and name in ("fcntl", "resource", "pwd", "grp", "termios"):
        raise ImportError(f"No module named {name!r}", name=name)
    return given(name, globals, *rest, **more)
builtins.__import__ = hiding
for name in ("sched_getaffinity", "geteuid", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
"""


def interpreter(version: str) -> str | None:
    """The path of a Python of that version that starts: on the path, or one that pyenv has installed."""
    installed = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, installed)):
        if candidate and not subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
            return candidate
    return None


def run(*command: object, **settings: object) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def tried(python: str, extra: str, wheel: Path, bundle: Path, work: Path) -> Iterator[str]:
    """One environment; what it found, a part a time."""
    run(python, "-m", "venv", work / "venv")
    own = work / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    started = time.monotonic()
    # Wheels alone: what has none for this Python would be compiled for an hour.
    run(own, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"{wheel}[headless,{extra}]")
    installed = time.monotonic() - started
    size = sum(path.lstat().st_size for path in (work / "venv").rglob("*"))
    yield f"installed in {installed:.0f} s, {size / 1e6:.0f} MB"
    # The host's settings of BLAS are for other builds of it than these.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "PYTHON", "EDGETRACK"))}
    settings = {"cwd": work, "env": {**environment, "EDGETRACK_CACHE": "off"}}
    began = time.monotonic()
    run(own, "-m", "edgetrack", "track", bundle, SCENE, "-o", "boxes.txt", **settings)
    first = installed + time.monotonic() - began
    yield f"{len((work / 'boxes.txt').read_text().splitlines())} boxes {first:.0f} s after `pip install` began"
    run(own, "-m", "edgetrack", "doctor", "--json", **settings)
    run(own, "-m", "edgetrack", "verify", bundle, **settings)
    (next((work / "venv").glob("[Ll]ib/**/site-packages")) / "sitecustomize.py").write_text(HIDE)
    run(own, "-m", "edgetrack", "track", bundle, SCENE, "-o", "again.txt", **settings)
    same = (work / "again.txt").read_text() == (work / "boxes.txt").read_text()
    yield "the same without fcntl, resource and affinity" if same else "OTHER boxes without fcntl, resource, affinity"


def main(arguments: list[str]) -> int:
    """Try all; 1 where one failed."""
    failed = 0
    extras = [name for name in arguments if name in EXTRAS] or EXTRAS
    versions = [name for name in arguments if name not in EXTRAS] or PYTHONS
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, cwd=ROOT)
        (wheel,) = place.glob("*.whl")
        for target in extras:
            options = ("--weights", "untrained", "--target", target, "-o", place / target)
            run(sys.executable, "-m", "edgetrack", "export", TRACKER, *options, cwd=ROOT)
        for version in versions:
            python = interpreter(version)
            for extra in extras if python else ():
                work = place / f"{version}-{extra}"
                work.mkdir()
                try:
                    said = "; ".join(tried(str(python), extra, wheel, place / extra, work))
                except RuntimeError as error:
                    said = f"FAILED: {error}"
                failed += "FAILED" in said or "OTHER" in said
                print(f"Python {version} [{extra}]: {said}", flush=True)
                shutil.rmtree(work)
            if python is None:
                print(f"Python {version}: not installed here", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
