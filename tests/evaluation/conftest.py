"""Tiny data sets on disk, and a bundle whose outputs are scripted."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from edgetrack.bundle import BundleWriter
from edgetrack.bundle.manifest import GraphInfo, Manifest, TensorInfo, WeightsInfo

BOX = "10,12,20,16"


def tensor(name, *shape, dtype="float32"):
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def manifest_of(name):
    features = tensor("template_features", 1, 4, 1, 4)
    crops = [tensor("template", 128, 128, 3, dtype="uint8"), tensor("search", 256, 256, 3, dtype="uint8")]
    maps = (tensor("score", 1, 1, 16, 16), tensor("size", 1, 2, 16, 16), tensor("offset", 1, 2, 16, 16))
    return Manifest(
        name=name,
        tracker="smat",
        title="SMAT",
        target="fake",
        precision="fp32",
        weights=WeightsInfo(origin="untrained"),
        graphs=(
            GraphInfo(name="template", role="init", file="t.json", inputs=(crops[0],), outputs=(features,)),
            GraphInfo(name="step", role="step", file="s.json", inputs=(crops[1], features), outputs=maps),
        ),
        procedure={
            "template_factor": 2.0,
            "template_size": 128,
            "search_factor": 4.0,
            "search_size": 256,
            "clip_margin": 10.0,
            "lost_below": 0.1,
        },
    )


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle("name", score=0.5) writes a bundle with constant outputs; returns its folder."""

    def make(name="scripted", **rules):
        with BundleWriter(tmp_path / "bundles" / name) as writer:
            (writer.folder / "t.json").write_text(json.dumps({"template_features": 1.0}))
            (writer.folder / "s.json").write_text(json.dumps({"score": 0.5, "size": 0.25, "offset": 0.5, **rules}))
            return writer.commit(manifest_of(name))

    return make


@pytest.fixture
def write_images():
    """write_images(folder, 3, first=1, pattern="{:05d}.jpg") writes images of 64x48 pixels; returns the folder."""

    def write(folder, count, first=1, pattern="{:05d}.jpg"):
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            image = np.full((48, 64, 3), 7 * index % 256, np.uint8)
            assert cv2.imwrite(str(folder / pattern.format(index)), image)
        return folder

    return write


@pytest.fixture
def write_rows():
    """write_rows(path, row, row, ...) writes a text file with its folders."""

    def write(path, *rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{row}\n" for row in rows))
        return path

    return write


@pytest.fixture
def plain_dataset(tmp_path, write_images, write_rows):
    """plain_dataset("a", "b", frames=4) lays out sequences of that many frames; returns the data set's folder."""

    def make(*names, frames=4, root=None):
        root = root or tmp_path / "data"
        for name in names:
            write_images(root / name / "img", frames)
            write_rows(root / name / "groundtruth.txt", *[BOX] * frames)
        return root

    return make
