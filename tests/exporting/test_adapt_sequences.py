"""Public files from a recipe alone, box by box, against OpenCV's own trackers on real sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.exporting.from_onnx import read_given
from edgetrack.exporting.parity import ModuleGraph
from edgetrack.exporting.recipe import Recipe, find_recipe
from edgetrack.media import quiet_cv2
from edgetrack.runtime.trackers.base import Procedure, find_family
from tests.builders import scripted_manifest
from tests.conftest import Golden

SEQUENCES = ["got10k_mvtcpp", "otb_Couple", "otb_Crossing"]
NEAR_INTEGER = 2e-3


def peer(shared: Path, name: str) -> Path:
    path = shared / "data" / "peers" / name
    if not path.is_file():
        pytest.skip(f"REFERENCE FILES ABSENT: no file {path}")
    return path


def procedure_of(recipe: Recipe, paths: Iterable[Path]) -> Procedure:
    """The recipe's procedure on its graphs, which ONNX Runtime computes."""
    given = read_given(recipe, list(paths), "onnx")
    graphs = {module.name: ModuleGraph(module) for module in given.shipped}
    infos = tuple(
        {"name": m.name, "role": m.role, "file": f"{m.name}.onnx", "inputs": m.inputs, "outputs": m.outputs}
        for m in given.shipped
    )
    from edgetrack.bundle.manifest import GraphInfo

    manifest = scripted_manifest(
        family=recipe.family_name, graphs=tuple(GraphInfo(**info) for info in infos), procedure=recipe.procedure
    )
    return find_family(recipe.family_name)(manifest, graphs)


def sequence(shared: Path, name: str, sums: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """The fixture's 60 frames; where JPEGs decode to other pixels here, they prove nothing."""
    frames = []
    for index, expected in enumerate(sums, 1):
        frame = cv2.imread(str(shared / "data" / "eval" / name / "img" / f"{index:05d}.jpg"))
        if int(frame.sum(dtype=np.int64)) != int(expected):
            pytest.skip("this machine's JPEG decoder gives other pixels than the fixture's")
        frames.append(np.asarray(frame, np.uint8))
    return frames


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize(("compat", "kind"), [("none", "plain"), ("cv2-5.0", "cv2_5_0")])
def test_vittrack_boxes_are_those_of_opencv(
    shared: Path, golden: Callable[[str], Golden], name: str, compat: str, kind: str
) -> None:
    recipe = find_recipe("vittrack")
    recipe = msgspec.structs.replace(recipe, configuration={**recipe.configuration, "compat": compat})
    procedure = procedure_of(recipe, [peer(shared, "vittrack/object_tracking_vittrack_2023sep.onnx")])
    fixture = golden("vittrack_2023sep")
    sums, record = fixture.arrays[f"{name}/pixel_sums"], fixture.group(f"{name}/{kind}")
    before = fixture.group(f"{name}/{kind}/replica" if kind.startswith("cv2") else f"{name}/{kind}")
    frames = sequence(shared, name, sums)
    procedure.init(frames[0], Box(*(float(v) for v in record["boxes"][0])))
    for t, frame in enumerate(frames[1:], 1):
        found = procedure.update(frame, lambda stage: None)
        expected = record["boxes"][t]
        if tuple(found.box) != tuple(expected):
            values = before["boxes_before_floor"][t]
            assert np.abs(values - np.rint(values)).min() < NEAR_INTEGER, (t, found.box, expected, values)
            procedure.reset_box(Box(*(float(v) for v in expected)))
        assert (found.reason is None) == bool(record["found"][t])
        np.testing.assert_allclose(found.score, record["score"][t], rtol=0, atol=1e-4)


def test_vittrack_is_opencvs_tracker_itself(shared: Path) -> None:
    if tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 12):
        pytest.skip(f"cv2 {cv2.__version__} feeds VitTrack otherwise than 4.12 and later")
    path = peer(shared, "vittrack/object_tracking_vittrack_2023sep.onnx")
    recipe = find_recipe("vittrack")
    procedure = procedure_of(msgspec.structs.replace(recipe, configuration={"compat": "cv2-5.0"}), [path])
    params = cv2.TrackerVit_Params()
    params.net = str(path)
    with quiet_cv2():
        theirs: Any = cv2.TrackerVit_create(params)
    folder = shared / "data" / "eval" / "otb_Couple"
    start = [float(v) for v in (folder / "groundtruth.txt").read_text().split("\n")[0].replace(",", " ").split()]
    box = Box(*(float(int(v)) for v in start))
    differing = 0
    for index, file in enumerate(sorted((folder / "img").glob("*.jpg"))[:40]):
        frame = cv2.imread(str(file))
        if index == 0:
            theirs.init(frame, tuple(int(v) for v in box))
            procedure.init(frame, box)
            continue
        with quiet_cv2():
            found, expected = theirs.update(frame)
        ours = procedure.update(frame, lambda stage: None)
        assert (ours.reason is None) == found
        differing += bool(found) and tuple(ours.box) != tuple(float(v) for v in expected)
    assert differing == 0


def test_nanotrack_from_its_two_files_is_opencvs_tracker(shared: Path, golden: Callable[[str], Golden]) -> None:
    files = [peer(shared, f"nanotrack/v2_{part}_sim.onnx") for part in ("backbone", "head")]
    procedure = procedure_of(find_recipe("nanotrack_v2_onnx"), files)
    fixture = golden("seq_nanotrack_v2")
    frames = sequence(shared, "otb_Crossing", fixture.arrays["pixel_sums"])
    boxes = fixture.arrays["v2/cv2/boxes"]
    procedure.init(frames[0], Box(*(float(v) for v in boxes[0])))
    for frame, expected in zip(frames[1:], boxes[1:], strict=True):
        assert tuple(procedure.update(frame, lambda stage: None).box) == tuple(float(v) for v in expected)
