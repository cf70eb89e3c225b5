"""Whatever reads a path that a user or a file gave refuses what is no regular file, before it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from edgetrack.bundle import open_bundle, read_json, read_npz
from edgetrack.checkpoints import read_checkpoint
from edgetrack.devices.profiles import read_hosts
from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.datasets.clip import read_boxes, read_flags
from edgetrack.evaluation.execution.ledger import read_run
from edgetrack.evaluation.protocols.one_pass import OnePassRun
from edgetrack.evaluation.protocols.streaming import read_latencies
from edgetrack.exporting.from_onnx import read_given
from edgetrack.exporting.recipe import find_recipe, read_recipe
from edgetrack.gate.budget import read_budget
from edgetrack.gate.evidence import _read
from edgetrack.io import open_regular, read_bytes, read_text, sha256
from edgetrack.media import open_source
from edgetrack.media.folders import decode_image, read_ground_truth
from edgetrack.quantization.calibration import read_set
from edgetrack.report.model import read_file
from edgetrack.training.catalog import Picture, load
from edgetrack.training.sources import read_shard

READERS: dict[str, Callable[[Path], object]] = {
    "recipe": read_recipe,
    "budget": read_budget,
    "devices": read_hosts,
    "calibration": read_set,
    "weights": read_checkpoint,
    "bundle": open_bundle,
    "bundle's JSON": lambda path: read_json(path, dict),
    "bundle's arrays": read_npz,
    "latencies": lambda path: read_latencies(str(path), "a"),
    "gate's evidence": lambda path: _read(path, "--baseline"),
    "report's record": read_file,
    "boxes": read_boxes,
    "flags": read_flags,
    "ground truth": read_ground_truth,
    "image": lambda path: decode_image(path, 0, cv2.IMREAD_COLOR),
    "video": lambda path: open_source(f"{path}.mp4"),
    "shard": read_shard,
    "picture": lambda path: load(Picture(str(path), 0, 10, "a")),
    "ONNX": lambda path: read_given(find_recipe("smat"), [path.with_name("template.onnx"), path], "cosine"),
    "text": read_text,
}


@pytest.mark.parametrize("link", [False, True], ids=["itself", "link"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_every_reader_refuses_what_is_no_file(
    tmp_path: Path, kind: str, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    special = Path("/dev/zero") if kind == "device" else tmp_path / "special"
    if kind == "pipe":
        os.mkfifo(special)
    elif kind == "folder":
        special.mkdir()
    path = special
    if link or kind == "device":
        path = tmp_path / "step.onnx"
        path.symlink_to(special)
    (tmp_path / "template.onnx").symlink_to(special)
    Path(f"{path}.mp4").symlink_to(special)
    opened: list[object] = []
    original = os.open

    def watched(name: object, flags: int, *rest: object, **more: object) -> int:
        if str(name) in (str(path), str(special), f"{path}.mp4"):
            opened.append(name)
        return original(name, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watched)
    for what, read in READERS.items():
        with pytest.raises(EdgetrackError) as caught:
            read(path)
        assert caught.value.args, what
        assert str(caught.value).count("\n") < 5, what
    assert read_run(path, "key", OnePassRun) is None
    for function in (open_regular, read_bytes, sha256):
        with pytest.raises(OSError, match="not a regular file"):
            function(path)
    assert opened == []


def test_a_name_that_none_can_have_is_a_message() -> None:
    with pytest.raises(OSError, match="null"):
        open_regular(Path("a\0b"))
