"""Tiny data sets on disk, and a bundle whose outputs are scripted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.builders import write_scripted

BOX = "10,12,20,16"


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle("name", score=0.5) writes a bundle with constant outputs; returns its folder."""

    def make(name="scripted", **rules):
        return write_scripted(tmp_path / "bundles" / name, **rules)

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
