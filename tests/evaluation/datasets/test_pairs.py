"""Data sets of two images a frame in miniature, each laid out exactly as its authors ship it, with its traps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import SequenceError, UnknownNameError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.datasets.pairs import paired
from edgetrack.media import load_scene, scene_names
from edgetrack.runtime.frames import render_depth

BOX = "10,12,20,16"
OTHER = "14,12,20,16"
Write = Callable[..., Path]


def only(dataset: Any) -> Clip:
    (entry,) = dataset.entries
    clip: Clip = dataset.read(entry)
    return clip


def frames_of(clip: Clip) -> list[Any]:
    with clip.open(2) as frames:
        return list(frames)


def second_names(clip: Clip) -> list[str]:
    assert clip.second is not None
    return [Path(path).name for path in clip.second.media]


def lay_thermal(root: Path, images: Write, rows: Write, names: tuple[str, str], counts: tuple[int, int]) -> None:
    for kind, pattern, count in zip(("visible", "infrared"), names, counts, strict=True):
        images(root / kind, count, pattern=pattern)
    rows(root / "visible.txt", *[BOX] * 3)
    rows(root / "infrared.txt", *[OTHER] * 3)
    rows(root / "init.txt", *[BOX] * 3)


@pytest.mark.parametrize("subset", ["", "testingset", "trainingset"])
def test_lasher(tmp_path: Path, write_images: Write, write_rows: Write, subset: str) -> None:
    root = tmp_path / subset / "10runone"
    lay_thermal(root, write_images, write_rows, ("v{:06d}.jpg", "i{:06d}.jpg"), (3, 3))
    dataset = open_dataset(tmp_path)
    clip = only(dataset)
    assert (dataset.layout, dataset.images) == ("lasher", 2)
    assert clip.second is not None
    assert clip.second.modality == "thermal"
    assert second_names(clip) == ["i000001.jpg", "i000002.jpg", "i000003.jpg"]
    # The two ground truths differ, and the tracker is started by the visible one.
    assert clip.start == (10, 12, 20, 16)
    assert clip.second.truth is not None
    assert clip.second.truth[:, 0].tolist() == [14, 14, 14]
    assert [frame.shape for frame in frames_of(clip)] == [(48, 64, 6)] * 3
    with clip.open() as colour:
        assert next(iter(colour)).shape == (48, 64, 3)


def test_rgbt234_is_told_from_lasher_by_its_names(tmp_path: Path, write_images: Write, write_rows: Write) -> None:
    lay_thermal(tmp_path / "afterrain", write_images, write_rows, ("{:05d}v.jpg", "{:05d}i.jpg"), (3, 3))
    (tmp_path / "attr_txt").mkdir()
    write_rows(tmp_path / "attr_txt" / "BC.txt", 1)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.names) == ("rgbt234", ["afterrain"])
    assert second_names(only(dataset))[0] == "00001i.jpg"


def test_infrared_images_that_were_not_copied_leave_a_data_set_of_one_image(
    tmp_path: Path, write_images: Write, write_rows: Write
) -> None:
    write_images(tmp_path / "boy" / "visible", 2, pattern="v{:06d}.jpg")
    write_rows(tmp_path / "boy" / "visible.txt", BOX, BOX)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.images, only(dataset).images) == ("lasher", 1, 1)
    with pytest.raises(SequenceError, match="one image a frame and the tracker takes two"):
        only(dataset).open(2)


@pytest.mark.parametrize(("counts", "kept"), [((5, 3), 3), ((3, 4), 3), ((3, 2), 2), ((4, 4), 3)])
def test_what_one_folder_has_more_at_its_end_is_left_out(
    tmp_path: Path, write_images: Write, write_rows: Write, counts: tuple[int, int], kept: int
) -> None:
    lay_thermal(tmp_path / "boy", write_images, write_rows, ("v{:06d}.jpg", "i{:06d}.jpg"), counts)
    clip = only(open_dataset(tmp_path))
    assert clip.second is not None
    assert clip.second.truth is not None
    assert len(clip.media) == len(clip.second.media) == len(clip.truth) == len(clip.second.truth) == kept


def test_more_than_one_missing_image_is_a_fault(tmp_path: Path, write_images: Write, write_rows: Write) -> None:
    lay_thermal(tmp_path / "boy", write_images, write_rows, ("v{:06d}.jpg", "i{:06d}.jpg"), (3, 1))
    with pytest.raises(SequenceError, match=r"has 1 images and .* has 3 boxes"):
        only(open_dataset(tmp_path))


@pytest.mark.parametrize("equal", [False, True])
def test_an_image_that_lacks_in_the_middle_is_named(
    tmp_path: Path, write_images: Write, write_rows: Write, equal: bool
) -> None:
    root = tmp_path / "boy"
    lay_thermal(root, write_images, write_rows, ("v{:06d}.jpg", "i{:06d}.jpg"), (6, 6))
    (root / "infrared" / "i000003.jpg").unlink()
    if equal:
        (root / "visible" / "v000005.jpg").unlink()
    with pytest.raises(SequenceError, match=r"from image 3 on \(v000003.jpg, i000004.jpg\)"):
        only(open_dataset(tmp_path))


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 5), st.integers(0, 9))
def test_pairs_have_one_number_or_one_distance(count: int, more: int, less: int, offset: int) -> None:
    first = [Path(f"v{index:06d}.jpg") for index in range(count + more)]
    second = [Path(f"{index:05d}i.jpg") for index in range(count + less)]
    a, b = paired(first, second)
    assert len(a) == len(b) == count + min(more, less)
    shifted = [Path(f"{index + offset:05d}i.jpg") for index in range(count + more)]
    assert paired(first, shifted) == (first, shifted)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_gtot_gives_two_corners_in_any_order(
    tmp_path: Path, write_images: Write, write_rows: Write, suffix: str
) -> None:
    root = tmp_path / "BlackCar"
    write_images(root / "v", 2, pattern=f"{{:05d}}v.{suffix}")
    write_images(root / "i", 2, pattern=f"{{:05d}}i.{suffix}")
    write_rows(root / "groundTruth_v.txt", "10 12 30 28", "30 28 10 12")
    write_rows(root / "groundTruth_i.txt", "14 12 34 28", "34 12 14 28")
    write_rows(root / "init.txt", "10\t12\t20\t16", "10\t12\t20\t16")
    dataset = open_dataset(tmp_path)
    clip = only(dataset)
    assert (dataset.layout, dataset.rules.pixels, dataset.rules.over_frames) == ("gtot", 5, True)
    assert clip.truth.tolist() == [[10, 12, 20, 16]] * 2
    assert clip.second is not None
    assert clip.second.truth is not None
    assert clip.second.truth.tolist() == [[14, 12, 20, 16]] * 2


@pytest.mark.parametrize("below", ["", "test/short-term", "test_ST_001"])
@pytest.mark.parametrize("images", [21, 30])
def test_vtuav_annotates_every_tenth_image(
    tmp_path: Path, write_images: Write, write_rows: Write, below: str, images: int
) -> None:
    root = tmp_path / below / "bike_003"
    for kind in ("rgb", "ir"):
        write_images(root / kind, images, pattern="{:06d}.jpg")
    write_rows(root / "rgb.txt", "10 12 20 16", "0 0 0 0", "12 12 20 16")
    write_rows(root / "ir.txt", "11 12 20 16", "0 0 0 0", "13 12 20 16")
    dataset = open_dataset(tmp_path)
    clip = only(dataset)
    assert (dataset.layout, clip.every, clip.frames) == ("vtuav", 10, images)
    assert np.flatnonzero(clip.visible).tolist() == [0, 20]
    assert clip.second is not None
    assert clip.second.truth is not None
    assert clip.second.truth[[0, 20], 0].tolist() == [11, 13]
    assert np.isnan(np.delete(clip.truth, [0, 20], axis=0)).all()


def lay_depth(root: Path, images: Write, rows: Write, depth: np.ndarray) -> None:
    images(root / "color", 2, pattern="{:08d}.jpg")
    (root / "depth").mkdir()
    for number in (1, 2):
        assert cv2.imwrite(str(root / "depth" / f"{number:08d}.png"), depth)
    rows(root / "groundtruth.txt", BOX, "nan,nan,nan,nan")


def ramp(dtype: Any, most: int) -> np.ndarray:
    return np.linspace(0, most, 48 * 64).reshape(48, 64).astype(dtype)


@pytest.mark.parametrize(
    ("name", "layout", "further"),
    [
        ("bag01_indoor", "depthtrack", ()),
        ("cat01_wild", "depthtrack", ()),
        ("backpack_blue", "cdtb", ("full-occlusion.tag",)),
        ("adapter", "rgbd1k", ()),
    ],
)
@pytest.mark.parametrize("subset", ["", "sequences", "test"])
def test_colour_and_depth(
    tmp_path: Path,
    write_images: Write,
    write_rows: Write,
    name: str,
    layout: str,
    further: tuple[str, ...],
    subset: str,
) -> None:
    root = tmp_path / subset / name
    lay_depth(root, write_images, write_rows, ramp(np.uint16, 20_000))
    for file in further:
        write_rows(root / file, 0, 1)
    # VOT's toolkit asks for a list; without it all folders are sequences.
    write_rows(tmp_path / subset / "list.txt", name)
    dataset = open_dataset(tmp_path)
    clip = only(dataset)
    assert (dataset.layout, dataset.rules.long_term) == (layout, True)
    assert clip.visible.tolist() == [True, False]
    assert {tag: flags.tolist() for tag, flags in clip.tags.items()} == {
        Path(file).stem: [False, True] for file in further
    }
    assert clip.second is not None
    assert clip.second.modality == "depth"
    assert clip.second.truth is None


@pytest.mark.parametrize(("dtype", "most"), [(np.uint16, 20_000), (np.uint16, 900), (np.uint8, 200)])
def test_depth_is_rendered_as_the_toolkits_do(
    tmp_path: Path, write_images: Write, write_rows: Write, dtype: Any, most: int
) -> None:
    depth = ramp(dtype, most)
    lay_depth(tmp_path / "ball01_indoor", write_images, write_rows, depth)
    found = frames_of(only(open_dataset(tmp_path)))[0][..., 3:]
    # Computed a second time, step by step: clipped at three times the median and at 10000, stretched, JET.
    limit = min(3 * np.median(depth), 10_000)
    clipped = np.where(depth > limit, limit, depth.astype(np.float64))
    low, high = clipped.min(), clipped.max()
    grey = np.rint((clipped - low) / (high - low) * 255).astype(np.uint8)
    expected = cv2.applyColorMap(grey, cv2.COLORMAP_JET)[..., ::-1]
    # OpenCV rounds a half another way here and there.
    assert (found == expected).mean() > 0.99
    np.testing.assert_array_equal(found, render_depth(depth))


SUBSETS = ["", "test_subset", "train_subset", "testingset", "test/test_subset"]


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("labels", ["whole", "longer"])
def test_visevent_starts_with_the_target_and_says_present_under_the_name_absent(
    tmp_path: Path, write_images: Write, write_rows: Write, subset: str, labels: str
) -> None:
    root = tmp_path / subset / "dvSave-2021_02_04_20_41_53"
    for kind in ("vis_imgs", "event_imgs"):
        write_images(root / kind, 4, first=0, pattern="frame{:04d}.bmp")
    if labels == "whole":
        # The target comes with the second image.
        write_rows(root / "groundtruth.txt", "0,0,0,0", BOX, BOX, "0,0,0,0")
        write_rows(root / "absent_label.txt", 0, 1, 1, 0)
        first = 1
    else:
        # Images and boxes were cut, the labels were not.
        write_rows(root / "groundtruth.txt", BOX, BOX, BOX, "0,0,0,0")
        write_rows(root / "absent_label.txt", 0, 0, 1, 1, 1, 0)
        first = 0
    dataset = open_dataset(tmp_path)
    clip = only(dataset)
    assert (dataset.layout, dataset.rules.absent_fails) == ("visevent", True)
    assert clip.frames == 4 - first
    assert second_names(clip)[0] == f"frame{first:04d}.bmp"
    assert clip.visible.tolist() == [True] * (3 - first) + [False]
    assert len(frames_of(clip)) == 4 - first


def test_images_of_two_sizes_fail_their_sequence_and_say_so(
    tmp_path: Path, write_images: Write, write_rows: Write
) -> None:
    lay_thermal(tmp_path / "boy", write_images, write_rows, ("v{:06d}.jpg", "i{:06d}.jpg"), (3, 3))
    small = np.zeros((24, 32, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "boy" / "infrared" / "i000002.jpg"), small)
    with pytest.raises(Exception, match=r"frame 1 of boy and boy: aux is 32x24 pixels, the frame 64x48"):
        frames_of(only(open_dataset(tmp_path)))


def test_other_second_images_are_another_clip(tmp_path: Path, write_images: Write, write_rows: Write) -> None:
    root = tmp_path / "boy"
    lay_thermal(root, write_images, write_rows, ("v{:06d}.jpg", "i{:06d}.jpg"), (3, 3))
    before = only(open_dataset(tmp_path)).digest
    for path in sorted((root / "infrared").iterdir()):
        path.rename(path.with_name(path.name.replace("i0", "t0")))
    assert only(open_dataset(tmp_path)).digest != before


@pytest.mark.parametrize(
    ("query", "modality"),
    [("", "thermal"), ("aux=thermal&", "thermal"), ("aux=depth&", "depth"), ("aux=event&", "event")],
)
def test_built_in_scenes_have_second_images(query: str, modality: str) -> None:
    dataset = open_dataset(f"synthetic:drift?{query}frames=2&size=96x64")
    clip = only(dataset)
    assert clip.second is not None
    assert (clip.second.modality, dataset.images) == (modality, 2)
    colour, second = (frames_of(clip)[1][..., part] for part in (slice(3), slice(3, 6)))
    with clip.open() as plain:
        np.testing.assert_array_equal(list(plain)[1], colour)
    scene = load_scene("drift", frames=2, size=(96, 64))
    expected = render_depth(scene.depth(1)) if modality == "depth" else scene.frame(1, view=modality)
    np.testing.assert_array_equal(second, expected)


def test_all_scenes_have_them_and_other_options_stay() -> None:
    dataset = open_dataset("synthetic:?aux=event&frames=3")
    assert dataset.images == 2
    assert dataset.names == scene_names()
    assert dataset.entries[0].frames == "synthetic:drift?frames=3"
    assert open_dataset("synthetic:drift?view=thermal").images == 1
    with pytest.raises(UnknownNameError, match=r"'deep' is not known.*did you mean 'depth'"):
        open_dataset("synthetic:drift?aux=deep")
