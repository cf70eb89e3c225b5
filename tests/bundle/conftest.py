"""A small valid bundle, and ways to spoil one, that the tests of `edgetrack.bundle` share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle import BundleWriter, Manifest, open_bundle, pack
from edgetrack.bundle.manifest import GraphInfo, TensorInfo, WeightsInfo


def tensor(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=shape)


def small_manifest() -> Manifest:
    crop = tensor("crop", 8, 8, 3)
    return Manifest(
        name="smat-openvino-fp32",
        tracker="smat",
        title="SMAT",
        target="openvino",
        precision="fp32",
        weights=WeightsInfo(origin="untrained"),
        graphs=(
            GraphInfo(name="template", role="init", file="template.xml", inputs=(crop,), outputs=(tensor("z", 4),)),
            GraphInfo(name="step", role="step", file="step.mlpackage", inputs=(crop,), outputs=(tensor("score", 2),)),
        ),
        procedure={"search_factor": 4.0, "window": True},
    )


def fill(folder: Path, seed: int = 0) -> None:
    """A graph in two files, one in a folder, and recorded arrays."""
    values = np.random.default_rng(seed)
    (folder / "template.xml").write_text(f"<net seed='{seed}'/>")
    (folder / "template.bin").write_bytes(values.bytes(3000))
    (folder / "step.mlpackage" / "Data").mkdir(parents=True)
    (folder / "step.mlpackage" / "Data" / "weights.bin").write_bytes(values.bytes(500))
    (folder / "step.mlpackage" / "Info.json").write_text("{}")
    np.savez(folder / "golden.npz", crop=values.integers(0, 255, (8, 8, 3), np.uint8), score=np.float32([0.5, -1]))
    (folder / "parity.json").write_text('{"max_abs": 0.5}')


def write(destination: Path, seed: int = 0, overwrite: bool = False) -> Path:
    with BundleWriter(destination, overwrite=overwrite) as writer:
        fill(writer.folder, seed)
        return writer.commit(small_manifest())


@dataclasses.dataclass(frozen=True)
class Tools:
    """What the tests build and spoil bundles with."""

    manifest: Manifest
    fill: Callable[..., None]
    write: Callable[..., Path]

    def contents(self, folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def edit_manifest(self, folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest's JSON in place."""
        path = folder / "manifest.json"
        data = json.loads(path.read_bytes())
        change(data)
        path.write_text(json.dumps(data))

    def describe(self, data: bytes) -> dict[str, object]:
        """The manifest's entry for a file of that content."""
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def zip_of(
        self,
        folder: Path,
        path: Path,
        change: Callable[[zipfile.ZipInfo], object] = lambda info: None,
        extra: Mapping[str, bytes] | None = None,
        compression: int = zipfile.ZIP_STORED,
    ) -> Path:
        """A zip of the folder's files and `extra`, each entry passed through `change` before it is written."""
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in [*self.contents(folder).items(), *(extra or {}).items()]:
                info = zipfile.ZipInfo(name)
                info.compress_type = compression
                change(info)
                archive.writestr(info, data)
        return path


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools(small_manifest(), fill, write)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small valid bundle, `made`, and its zip, `made.zip`: to copy, not to touch."""
    folder = tmp_path_factory.mktemp("original")
    with open_bundle(write(folder / "made")) as opened:
        pack(opened, folder / "made.zip")
    return folder


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """The folder of a small valid bundle."""
    return shutil.copytree(original / "made", tmp_path / "smat-openvino-fp32")


@pytest.fixture
def packed(original: Path, tmp_path: Path) -> Path:
    """The zip of that bundle."""
    return shutil.copy(original / "made.zip", tmp_path / "packed.zip")


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """child(program, *arguments) -> a Python process with pipes; killed and reaped at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def pristine(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests change and put back."""
    return shutil.copytree(original / "made", tmp_path_factory.mktemp("pristine") / "made")
