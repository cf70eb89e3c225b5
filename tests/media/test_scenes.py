"""Synthetic scenes: the same bytes every time, and ground truth that is what was drawn."""

from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.box import iou
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.media import Scene, load_scene, scene_names
from edgetrack.media.raster import Pose, Region, coverage, events

SMALL = (320, 180)


def digest(scene: Scene, indices: list[int]) -> list[str]:
    return [hashlib.sha256(scene.frame(i).tobytes()).hexdigest() for i in indices]


def drawn_bounds(scene: Scene, index: int) -> tuple[int, int, int, int]:
    """(x1, y1, x2, y2) of the pixels that the target changes."""
    with_target = scene.frame(index).astype(int)
    difference = np.abs(with_target - scene.frame(index, with_target=False)).max(axis=2)
    ys, xs = np.nonzero(difference)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_scene_names_start_with_the_easy_one_and_hold_all_seven():
    assert scene_names() == ["drift", "scale", "blur", "occlusion", "exit", "distractors", "all"]


def test_defaults_are_150_frames_of_640x360_at_30_fps():
    scene = load_scene("drift")
    assert (scene.width, scene.height, scene.length, scene.fps, scene.seed) == (640, 360, 150, 30.0, 0)
    assert load_scene("all").length > 150


@pytest.mark.parametrize("name", scene_names())
def test_frames_are_bgr_bytes_of_the_asked_size(name):
    frame = load_scene(name, size=(200, 120)).frame(3)
    assert frame.shape == (120, 200, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.writeable


@pytest.mark.parametrize("name", scene_names())
def test_bytes_do_not_depend_on_the_order_of_access(name):
    indices = [0, 7, 33, 74, 75, 149]
    forward = digest(load_scene(name, size=SMALL), indices)
    backward = digest(load_scene(name, size=SMALL), indices[::-1])[::-1]
    assert forward == backward
    assert len(set(forward)) == len(forward)


def test_bytes_are_the_same_in_two_fresh_processes():
    code = (
        "import hashlib; from edgetrack.media import load_scene;"
        "print(hashlib.sha256(load_scene('all', size=(320, 180), seed=5).frame(260).tobytes()).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert runs == {digest(load_scene("all", size=SMALL, seed=5), [260])[0] + "\n"}


def test_writing_into_a_frame_leaves_the_scene_alone():
    scene = load_scene("drift", size=SMALL)
    before = digest(scene, [4])
    scene.frame(4)[...] = 0
    assert digest(scene, [4]) == before


def test_a_shorter_scene_is_the_beginning_of_a_longer_one():
    short, long = load_scene("exit", frames=10, size=SMALL), load_scene("exit", frames=90, size=SMALL)
    assert digest(short, [9]) == digest(long, [9])
    assert short.box(9) == long.box(9)


def test_seeds_give_other_frames_and_other_motion():
    one, two = load_scene("drift", size=SMALL, seed=1), load_scene("drift", size=SMALL, seed=2)
    assert digest(one, [0]) != digest(two, [0])
    assert one.box(0) != two.box(0)


@pytest.mark.parametrize("size", [(640, 360), (240, 240), (180, 320)])
@pytest.mark.parametrize("name", scene_names())
def test_every_scene_starts_with_the_whole_target_in_sight(name, size):
    for seed in range(12):
        scene = load_scene(name, size=size, seed=seed)
        box = scene.box(0)
        assert scene.visibility(0) == 1.0
        assert box is not None
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.w <= size[0]
        assert box.y + box.h <= size[1]


@pytest.mark.parametrize("size", [(640, 360), (300, 260)])
@pytest.mark.parametrize("name", ["drift", "scale", "distractors", "exit"])
def test_box_is_the_bounds_of_what_the_target_changes_to_within_its_edge_pixels(name, size):
    scene = load_scene(name, size=size, seed=3)
    checked = 0
    for index in range(0, scene.length, 11):
        if scene.visibility(index) < 1:
            continue
        x1, y1, x2, y2 = scene.box(index).xyxy
        left, top, right, bottom = drawn_bounds(scene, index)
        assert math.floor(x1) <= left <= math.floor(x1) + 1
        assert math.floor(y1) <= top <= math.floor(y1) + 1
        assert math.ceil(x2) - 1 <= right <= math.ceil(x2)
        assert math.ceil(y2) - 1 <= bottom <= math.ceil(y2)
        checked += 1
    assert checked >= 8


@pytest.mark.parametrize("name", ["blur", "occlusion", "exit", "all"])
def test_target_never_changes_a_pixel_outside_its_box(name):
    scene = load_scene(name, size=SMALL, seed=1)
    seen = 0
    for index in range(0, scene.length, 13):
        box = scene.box(index)
        if box is None:
            assert (scene.frame(index) != scene.frame(index, with_target=False)).any(axis=2).sum() <= 4
            continue
        x1, y1, x2, y2 = box.xyxy
        left, top, right, bottom = drawn_bounds(scene, index)
        assert left >= math.floor(x1)
        assert top >= math.floor(y1)
        assert right <= math.ceil(x2)
        assert bottom <= math.ceil(y2)
        seen += 1
    assert seen >= 6


def test_box_of_a_blurred_target_spans_the_smear():
    scene = load_scene("blur")
    widths = [scene.box(i).w for i in range(40)]
    assert max(widths) > 1.12 * min(widths)
    fast = widths.index(max(widths))
    x1, _, x2, _ = scene.box(fast).xyxy
    left, _, right, _ = drawn_bounds(scene, fast)
    assert abs(left - x1) <= 2
    assert abs(right - x2) <= 2


@given(
    cx=st.floats(30, 60),
    cy=st.floats(30, 60),
    a=st.floats(4, 25),
    b=st.floats(4, 25),
    angle=st.floats(-math.pi, math.pi),
)
@settings(max_examples=60, deadline=None)
def test_bounds_of_a_turned_shape_agree_with_its_sampled_outline(cx, cy, a, b, angle):
    pose = Pose(cx, cy, a, b, angle)
    turn = np.linspace(0, 2 * np.pi, 4001)
    u = a * np.sign(np.cos(turn)) * np.sqrt(np.abs(np.cos(turn)))
    v = b * np.sign(np.sin(turn)) * np.sqrt(np.abs(np.sin(turn)))
    x = cx + u * math.cos(angle) - v * math.sin(angle)
    y = cy + u * math.sin(angle) + v * math.cos(angle)
    assert pose.bounds.xyxy == pytest.approx((x.min(), y.min(), x.max(), y.max()), abs=0.02)


@given(cx=st.floats(40, 60), cy=st.floats(40, 60), a=st.floats(6, 25), b=st.floats(6, 25), angle=st.floats(-0.5, 0.5))
@settings(max_examples=60, deadline=None)
def test_coverage_adds_up_to_the_area_and_centre_of_the_shape(cx, cy, a, b, angle):
    alpha = coverage(Pose(cx, cy, a, b, angle), Region(0, 0, 100, 100)).astype(np.float64)
    area = 4 * a * b * math.gamma(1.25) ** 2 / math.gamma(1.5)
    pixels = np.arange(100) + 0.5
    assert alpha.sum() == pytest.approx(area, rel=0.02)
    assert (alpha.sum(0) * pixels).sum() / alpha.sum() == pytest.approx(cx, abs=0.03)
    assert (alpha.sum(1) * pixels).sum() / alpha.sum() == pytest.approx(cy, abs=0.03)
    assert 0 <= alpha.min() <= alpha.max() <= 1


def test_scale_runs_from_half_to_twice_the_first_size():
    scene = load_scene("scale")
    first = scene.box(0).w
    ratios = [scene.box(i).w / first for i in range(scene.length)]
    assert min(ratios) == pytest.approx(0.5, rel=0.05)
    assert max(ratios) == pytest.approx(2.0, rel=0.05)


def test_drift_moves_smoothly_enough_for_any_tracker():
    scene = load_scene("drift")
    boxes = [scene.box(i) for i in range(scene.length)]
    assert min(iou(a, b) for a, b in itertools.pairwise(boxes)) > 0.7


def test_visibility_falls_to_zero_behind_the_bar_and_comes_back():
    scene = load_scene("occlusion")
    shown = [scene.visibility(i) for i in range(scene.length)]
    assert shown[0] == 1.0
    assert 0.0 in shown
    assert any(0 < value < 1 for value in shown)
    assert shown[75] == 1.0
    assert [scene.box(i) is None for i in range(scene.length)] == [value == 0 for value in shown]


def test_visibility_is_the_share_of_changed_pixels():
    scene = load_scene("occlusion")
    index = next(i for i in range(scene.length) if 0.3 < scene.visibility(i) < 0.7)
    full = (scene.frame(0) != scene.frame(0, with_target=False)).any(axis=2).sum()
    part = (scene.frame(index) != scene.frame(index, with_target=False)).any(axis=2).sum()
    assert scene.visibility(index) == pytest.approx(part / full, abs=0.05)


def test_exit_leaves_the_frame_and_returns_with_boxes_that_stick_out():
    scene = load_scene("exit")
    boxes = [scene.box(i) for i in range(scene.length)]
    gone = [i for i, box in enumerate(boxes) if box is None]
    assert gone == list(range(gone[0], gone[-1] + 1))
    assert boxes[gone[0] - 1].x + boxes[gone[0] - 1].w > scene.width
    assert scene.visibility(scene.length - 1) == 1.0


def test_distractors_have_the_colours_of_the_target_and_another_pattern():
    scene = load_scene("distractors", size=SMALL)
    rest = scene.frame(0, with_target=False).astype(int)
    vivid = (rest.max(axis=2) - rest.min(axis=2)) > 120
    plain = load_scene("drift", size=SMALL).frame(0, with_target=False).astype(int)
    assert vivid.sum() > 500
    assert ((plain.max(axis=2) - plain.min(axis=2)) > 120).sum() == 0
    skins = [levels[0] for levels in scene._look.distractors]
    assert all((skin != scene._look.target[0]).mean() > 0.5 for skin in skins)


@pytest.mark.parametrize("index", [-1, 10, 10**9])
def test_an_index_outside_the_scene_is_refused(index):
    scene = load_scene("drift", frames=10, size=SMALL)
    for ask in (scene.frame, lambda i: scene.frame(i, with_target=False), scene.box, scene.visibility):
        with pytest.raises(IndexError, match="frames 0 to 9"):
            ask(index)


def test_an_unknown_scene_names_the_nearest_and_all():
    with pytest.raises(
        UnknownNameError, match=r"'drfit' is not known \(did you mean 'drift'\?\); expected one of: drift, scale"
    ):
        load_scene("drfit")
    with pytest.raises(UnknownNameError, match=r"'zzz' is not known; expected one of: "):
        load_scene("zzz")


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"frames": 2_000_000}, {"size": (10, 360)}, {"size": (640, 99999)}, {"seed": -1}]
)
def test_lengths_sizes_and_seeds_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=r"give|must be"):
        load_scene("drift", **wrong)


def test_hd_frames_keep_the_proportions_of_the_scene():
    small, large = load_scene("scale"), load_scene("scale", size=(1280, 720))
    assert large.frame(30).shape == (720, 1280, 3)
    assert tuple(large.box(30)) == pytest.approx([2 * value for value in small.box(30)])


@pytest.mark.parametrize("view", ["thermal", "depth", "event"])
@pytest.mark.parametrize("name", ["drift", "occlusion", "blur"])
def test_every_view_shows_the_target_within_the_exact_box(name: str, view: str) -> None:
    scene = load_scene(name, size=(320, 180))
    for index in (1, 40):
        seen = [scene.frame(index, view=view, with_target=there) for there in (True, False)]
        assert seen[0].shape == (180, 320, 3)
        assert seen[0].dtype == np.uint8
        rows, columns = np.nonzero((seen[0] != seen[1]).any(axis=2))
        # Events are of the way from the frame before to this one.
        boxes = [scene.box(index), scene.box(index - 1)] if view == "event" else [scene.box(index)]
        left, top, right, bottom = np.array([box.xyxy for box in boxes if box is not None]).T
        assert left.min() - 1 <= columns.min()
        assert columns.max() <= right.max()
        assert top.min() - 1 <= rows.min()
        assert rows.max() <= bottom.max()
        # And no smaller than the target, where nothing hides it.
        if name == "drift" and view != "event":
            assert columns.max() + 1 - columns.min() >= right.max() - left.min() - 3
            assert rows.max() + 1 - rows.min() >= bottom.max() - top.min() - 3


def test_the_target_is_warm_near_and_moves_while_its_look_alikes_are_cooler_and_farther() -> None:
    scene = load_scene("distractors", size=(320, 180))
    box, heat, depth = scene.box(0), scene.frame(0, view="thermal"), scene.depth(0)
    assert box is not None
    x, y = int(box.x + box.w / 2), int(box.y + box.h / 2)
    assert (heat == heat[..., :1]).all()
    assert heat[y, x, 0] > 170
    without = scene.frame(0, view="thermal", with_target=False)
    assert without.max() < 170
    assert (depth.dtype, depth.shape) == (np.uint16, (180, 320))
    # Distances by the size: the target stands before all that looks like it, and the surroundings behind them.
    assert depth[y, x] == depth.min() < 3000 < np.median(depth) < 6300
    bars = load_scene("occlusion", size=(320, 180)).depth(0)
    assert bars.min() == 1200


def test_depth_tells_the_size() -> None:
    scene = load_scene("scale", size=(320, 180))
    found = []
    for index in (20, 110):
        box, depth = scene.box(index), scene.depth(index)
        assert box is not None
        found.append((box.w, float(depth[int(box.y + box.h / 2), int(box.x + box.w / 2)])))
    (small, far), (large, near) = sorted(found)
    assert far * small == pytest.approx(near * large, rel=0.05)
    assert far > 1.5 * near


def test_events_are_where_something_moves_and_nowhere_else() -> None:
    now = np.full((8, 8, 3), 100, np.uint8)
    later = now.copy()
    later[2, 3], later[5, 6], later[0, 0] = 160, 60, 101
    picture = events(later, now)
    assert picture[2, 3].tolist() == [0, 0, 255]
    assert picture[5, 6].tolist() == [255, 0, 0]
    assert ((picture == 255).all(axis=2)).sum() == 62
    assert (events(now, now) == 255).all()
