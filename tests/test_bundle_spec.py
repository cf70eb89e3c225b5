"""docs/bundle-spec.md: its worked example is what the runtime computes, and a program written from it tracks alike."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgetrack
from edgetrack.box import Box, clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.media import load_scene
from edgetrack.runtime.crop import square_around
from edgetrack.runtime.decode import CellChooser, DistanceDecoder, decode_center, hann_closed, hann_open, map_back
from edgetrack.runtime.decode import size_with_context as context
from edgetrack.runtime.trackers.base import find_family, read_settings
from edgetrack.runtime.trackers.center import CenterFamilySettings, RoleSettings
from edgetrack.runtime.trackers.distances import ContextLoop, DistancesSettings
from edgetrack.runtime.trackers.nanotrack import NanoTrackSettings

ROOT = Path(__file__).resolve().parents[1]
SPEC = (ROOT / "docs" / "bundle-spec.md").read_text("utf-8")
EXAMPLE = json.loads(re.search(r"```json\n(.*?)```", SPEC, re.DOTALL)[1])  # type: ignore[index]
FRAME, LAST = (480, 640), Box(300.5, 200.25, 60, 80)


def _close(found: Any, stated: Any) -> None:
    np.testing.assert_allclose(found, stated, rtol=0, atol=1e-7)


def _score() -> np.ndarray:
    score = np.zeros((1, 1, 16, 16), np.float32)
    score[0, 0, 8, 9], score[0, 0, 2, 2] = 0.75, 0.875
    return score


def test_the_example_of_a_centre_head_is_what_is_computed() -> None:
    stated = EXAMPLE["center"]
    p = read_settings(stated["procedure"], CenterFamilySettings)
    assert list(square_around(LAST, p.template_factor)) == stated["template_square"]
    square = square_around(LAST, p.search_factor)
    assert list(square) == stated["search_square"]
    window = hann_open(16)
    for place, value in stated["window"].items():
        _close(window[tuple(map(int, place.split(",")))], value)
    maps = [
        np.broadcast_to(np.array(stated["maps_at_the_cell"][name], np.float32)[None, :, None, None], (1, 2, 16, 16))
        for name in ("size", "offset")
    ]
    peak = decode_center(_score(), *maps, window, np.empty_like(window))
    assert np.unravel_index((_score()[0, 0] * window).argmax(), (16, 16)) == tuple(stated["chosen"])
    _close(peak.windowed, stated["windowed"])
    _close(peak[2:], stated["fractions"])
    box = map_back(peak, LAST, p.search_size, p.search_size / square.side)
    _close(clip(box, *FRAME, p.clip_margin), stated["box"])
    _close(peak.score, stated["score"])
    assert (peak.score < p.lost_below) is stated["lost"]
    _close(box, EXAMPLE["box"]["box"])


def test_the_example_of_a_clip_is_what_is_computed() -> None:
    stated = EXAMPLE["clip"]
    _close(clip(Box(*stated["box"]), *FRAME, stated["margin"]), stated["clipped"])


def test_the_example_of_a_head_of_distances_is_what_is_computed() -> None:
    stated = EXAMPLE["distances"]
    p = read_settings(stated["procedure"], DistancesSettings)
    loop = ContextLoop(p)
    loop.reset(LAST)
    template = ContextLoop(p).start(np.zeros((*FRAME, 3), np.uint8), LAST)
    assert list(template) == stated["template_square"]
    assert list(loop.search()) == stated["search_square"]
    _close([context(LAST.w, LAST.h), loop.scale], [stated["context"], stated["scale"]])
    chooser = CellChooser(hann_closed(16), influence=p.window_influence, penalty=p.penalty_k)
    reg = np.broadcast_to(np.array(stated["reg_everywhere"], np.float32)[None, :, None, None], (1, 4, 16, 16))
    found = DistanceDecoder(chooser, stride=p.stride).of_distances(_score(), reg, *loop.expected())
    assert found is not None
    row, column = stated["chosen"]
    assert [found.x, found.y] == [p.stride * (column - 8) + 2, p.stride * (row - 8) + 2]
    _close([found.weight, found.windowed], [stated["weight"], stated["windowed"]])
    _close(p.size_step(found.weight), stated["rate"])
    _close(loop.move(found, FRAME), stated["score"])
    _close(loop.target, stated["state"])
    _close(loop.box(), stated["box"])


def _table_keys(section: str) -> dict[str, str]:
    """The keys that a section's table of the procedure names, with their defaults."""
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ", SPEC.partition(f"### {section}\n")[2].partition("\n###")[0], re.M)
    keys: dict[str, str] = {}
    for names, defaults in rows:
        listed = re.findall(r"`([a-z_]+)`", names)
        values = [value.strip("` ") for value in defaults.split(",")]
        keys |= dict(zip(listed, values * len(listed) if len(values) == 1 else values, strict=False))
    return keys


@pytest.mark.parametrize(
    ("section", "kind"), [("4.1 center", CenterFamilySettings), ("4.3 distances", DistancesSettings)], ids=str
)
def test_every_key_and_default_of_the_procedure_is_specified(section: str, kind: Any) -> None:
    import msgspec

    stated = _table_keys(section)
    fields = msgspec.structs.fields(kind)
    assert set(stated) == {field.name for field in fields}
    for field in fields:
        default = stated[field.name]
        if field.default is msgspec.NODEFAULT:
            assert default == "needed", field.name
        elif isinstance(field.default, bool):
            assert default == str(field.default).lower()
        elif isinstance(field.default, str):
            assert default == field.default
        else:
            assert float(default) == field.default, field.name


def test_the_keys_that_other_families_have_besides_or_lack_are_those_specified() -> None:
    center, distances = ({*kind.__struct_fields__} for kind in (CenterFamilySettings, DistancesSettings))
    assert center - {*RoleSettings.__struct_fields__} == {"state", "map_back", "window", "reports"}
    assert distances ^ {*NanoTrackSettings.__struct_fields__} == {"size_smoothing", "origin", "variant"}


def test_every_field_of_the_manifest_and_every_family_is_specified() -> None:
    section = SPEC.partition("## 2. The manifest")[2].partition("## 3.")[0]
    named = set(re.findall(r"`([a-z0-9_]+)", section))
    assert {*Manifest.__struct_fields__} <= named
    listed = re.findall(r"`([a-z0-9_]+)`", SPEC.partition("## 4. Families")[2].partition("### 4.1")[0])
    for family in {*listed} - {"family", "tracker"}:
        find_family(family)


def test_a_program_written_from_the_specification_alone_finds_the_same_boxes(
    exported_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    bundle, scene = exported_tiny("smat", "onnx"), load_scene("drift")
    for index in range(8):
        cv2.imwrite(str(tmp_path / f"{index:03d}.jpg"), scene.frame(index))
    frames = [cv2.imread(str(path)) for path in sorted(tmp_path.glob("*.jpg"))]
    box = scene.box(0)
    assert box is not None
    with edgetrack.load(bundle, threads=1) as tracker:
        tracker.init(frames[0], box)
        results = [tracker.update(frame) for frame in frames[1:]]
    text = ",".join(map(str, box))
    command = [sys.executable, str(ROOT / "examples" / "minimal.py"), str(bundle), str(tmp_path), text]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line.split(",") for line in done.stdout.splitlines()]
    np.testing.assert_allclose([list(map(float, line[:4])) for line in lines], [r.box for r in results], atol=1e-4)
    assert [len(line) > 4 for line in lines] == [r.lost for r in results]
