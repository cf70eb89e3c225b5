from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from itertools import islice
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.exporting.recipe import Augmentation, find_recipe
from edgetrack.training import augment
from edgetrack.training.augment import paste
from edgetrack.training.catalog import Catalog
from edgetrack.training.method import find_method
from edgetrack.training.pairs import PairMaker, batches
from edgetrack.training.settings import KINDS, TrainConfig
from edgetrack.training.sources import read_data

Make = Callable[..., TrainConfig]
PLAIN = Augmentation(flip=0, grey=0, blur=0, occlude=0, brightness=0, contrast=0, tint=0)


def _only(kind: str) -> tuple[str, ...]:
    return tuple(f"{other}={int(other == kind)}" for other in KINDS)


def _steady(train_config: TrainConfig) -> TrainConfig:
    """Without jitter and without any change of looks."""
    schedule = msgspec.structs.replace(train_config.schedule, augmentation=PLAIN)
    return msgspec.structs.replace(train_config, centre_jitter=0.0, scale_jitter=0.0, schedule=schedule)


def _maker(catalog: Catalog, train_config: TrainConfig, size: int) -> PairMaker:
    return PairMaker(catalog, train_config, size, find_method(find_recipe("smat")))


@pytest.mark.parametrize("size", [128, 256])
def test_a_pair_has_the_stated_shapes(pack: Path, train_config: Make, size: int) -> None:
    pair = _maker(read_data([pack]), train_config(), size)(7)
    assert (pair.templates.shape, pair.templates.dtype) == ((1, 1, 128, 128, 3), np.uint8)
    assert (pair.searches.shape, pair.searches.dtype) == ((1, 1, size, size, 3), np.uint8)
    assert (pair.boxes.shape, pair.boxes.dtype) == ((1, 4), np.float32)
    assert ((pair.boxes[0, :2] >= 0) & (pair.boxes[0, :2] <= 1)).all()
    # A template is cut around its object: sqrt(w h) is half the crop, its sides rounded up to whole pixels.
    assert pair.template_boxes[0, :2] == pytest.approx([0.5, 0.5], abs=0.02)
    assert np.sqrt(pair.template_boxes[0, 2:].prod()) == pytest.approx(0.5, abs=0.01)


def test_a_sample_depends_on_seed_and_number_alone(pack: Path, train_config: Make) -> None:
    catalog = read_data([pack])
    first = [_maker(catalog, train_config(), 128)(index) for index in range(8)]
    maker = _maker(catalog, train_config(), 128)
    again = [maker(index) for index in reversed(range(8))][::-1]
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    other = _maker(catalog, train_config(seed=1), 128)
    assert not any(np.array_equal(first[n].searches, other(n).searches) for n in range(8))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # two workers, on however few cores
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on a machine with one core
def test_batches_do_not_depend_on_the_number_of_workers(pack: Path, train_config: Make) -> None:
    maker = _maker(read_data([pack]), train_config(), 64)
    alone = list(islice(batches(maker, 6, 3, 0), 4))
    helped = list(islice(batches(maker, 6, 3, 2), 4))
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert torch.equal(alone[1][0], next(batches(maker, 9, 3, 0))[0])


def test_workers_end_quietly_in_the_middle_of_their_work(
    pack: Path, train_config: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    batch = batches(_maker(read_data([pack]), train_config(), 256), 0, 8, 1)
    next(batch)
    cast("Generator[object]", batch).close()
    assert capfd.readouterr().err == ""


def test_an_object_keeps_its_size_in_pixels_at_every_search_size(pack: Path, train_config: Make) -> None:
    catalog, overrides = read_data([pack]), _steady(train_config(mix=_only("clip")))
    small, large = (_maker(catalog, overrides, size)(3).boxes[0] * size for size in (128, 256))
    # An object of sqrt(w h) = 64 pixels, as in the template; sides are rounded up to whole pixels of the frame.
    assert small[2:] == pytest.approx(large[2:], rel=0.02)
    assert np.sqrt(large[2] * large[3]) == pytest.approx(64, rel=0.02)


def test_clips_pair_near_frames_of_one_object(pack: Path, train_config: Make) -> None:
    catalog = read_data([pack])
    maker = _maker(catalog, train_config(mix=_only("clip"), gap=2), 128)
    distances = set()
    for index in range(200):
        scenes = maker._clip(np.random.default_rng(index))
        # The block moves by (5, 3) a frame.
        (first,), (second,) = ([look.box for look in looks] for looks in (scenes.templates, scenes.searches))
        steps = (second.x - first.x) / 5
        assert second.y - first.y == pytest.approx(3 * steps)
        distances.add(round(steps))
    assert distances == {-2, -1, 1, 2}


def test_negatives_come_from_another_video(pack: Path, train_config: Make) -> None:
    rare_still = (*_only("negative"), "still=1e-9")
    maker = _maker(read_data([pack]), train_config(mix=rare_still), 64)
    assert not any(maker(index).positive for index in range(5))
    for index in range(50):
        sequence = maker.catalog.sequences[index % 4]
        assert maker._other(sequence, np.random.default_rng(index)).video != sequence.video


@pytest.mark.parametrize("kind", ["clip", "still", "region", "paste"])
def test_every_kind_shows_its_object_in_the_search_crop(pack: Path, train_config: Make, kind: str) -> None:
    maker = _maker(read_data([pack]), _steady(train_config(mix=_only(kind))), 256)
    for index in range(6):
        pair = maker(index)
        assert pair.positive
        cx, cy, w, h = pair.boxes[0] * 256
        assert (cx, cy) == pytest.approx((128, 128), abs=4)
        # Inner half of the object, in both crops at the same scale.
        rows, columns = (slice(int(c - s / 4), int(c + s / 4)) for c, s in ((cy, h), (cx, w)))
        shift = (int(64 - cy), int(64 - cx))
        there = pair.searches[0, 0][rows, columns].astype(float)
        here = pair.templates[0, 0][
            rows.start + shift[0] : rows.stop + shift[0], columns.start + shift[1] : columns.stop + shift[1]
        ].astype(float)
        assert np.corrcoef(there.ravel(), here.ravel())[0, 1] > 0.4


def test_kinds_come_as_often_as_the_mix_says(pack: Path, train_config: Make) -> None:
    maker = _maker(read_data([pack]), train_config(), 128)
    rng = np.random.default_rng(0)
    drawn = Counter(maker.kind_of(rng) for _ in range(20_000))
    # 60 : 25 : 15 : 5, together 105.
    for kind, weight in {"clip": 60, "still": 25, "region": 15, "negative": 5}.items():
        assert drawn[kind] / 20_000 == pytest.approx(weight / 105, abs=0.012)


def test_kinds_that_the_data_do_not_allow_are_left_out(pack: Path, train_config: Make) -> None:
    catalog = read_data([pack])
    assert set(_maker(Catalog(catalog.sequences), train_config(), 128).kinds) == {"clip", "still", "negative"}
    assert set(_maker(Catalog(catalog.sequences[:1]), train_config(), 128).kinds) == {"clip", "still"}
    assert set(_maker(Catalog((), catalog.unlabelled), train_config(), 128).kinds) == {"region"}
    with pytest.raises(SourceError, match=r"no samples can be made: .* the mix asks for region"):
        _maker(Catalog(catalog.sequences), train_config(mix=_only("region")), 128)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes_is_an_error_with_its_name(
    pack: Path, train_config: Make, tmp_path: Path, workers: int
) -> None:
    copy = tmp_path / "a.tar"
    copy.write_bytes(pack.read_bytes())
    maker = _maker(read_data([copy]), train_config(), 64)
    copy.unlink()
    with pytest.raises(SourceInterruptedError, match=r"^picture a\.tar:"):
        next(batches(maker, 0, 2, workers))


@given(st.integers(0, 2**32 - 1))
def test_looks_change_nothing_but_the_looks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image[:4] = 0
    before = image.copy()
    coloured = augment.recolour(image, rng, Augmentation())
    assert (coloured[:4] == 0).all()
    assert (augment.grey(image).std(axis=2) == 0).all()
    covered = augment.occluded(image, Box(0.25, 0.25, 0.5, 0.5), rng)
    assert (covered != image).any(axis=2).mean() <= (0.4 * 0.5) ** 2 + 1e-9
    for changed in (coloured, covered, augment.blurred(image, rng)):
        assert (changed.shape, changed.dtype) == ((32, 32, 3), np.uint8)
    assert np.array_equal(image, before)


def test_brightness_and_tint_stay_within_their_bounds() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    looks = Augmentation(brightness=0.25, contrast=0.0, tint=0.1)
    seen = [augment.recolour(image, np.random.default_rng(n), looks)[0, 0] for n in range(500)]
    assert np.min(seen) >= 67  # 100 * 0.75 * 0.9
    assert np.max(seen) <= 138  # 100 * 1.25 * 1.1
    assert np.mean(seen) == pytest.approx(100, abs=2)


def test_a_blur_keeps_the_mean_of_a_plain_image() -> None:
    image = np.full((16, 16, 3), 77, np.uint8)
    assert all((augment.blurred(image, np.random.default_rng(n)) == 77).all() for n in range(20))


@given(st.integers(0, 2**32 - 1), st.integers(20, 80), st.integers(20, 80))
def test_a_pasted_object_lies_where_the_box_says(seed: int, w: int, h: int) -> None:
    image = np.full((120, 160, 3), 255, np.uint8)
    picture, box = paste(image, Box(40, 20, w, h), np.zeros((200, 240, 3), np.uint8), np.random.default_rng(seed))
    assert 0 <= box.x <= box.x + box.w <= 240
    assert 0 <= box.y <= box.y + box.h <= 200
    rows, columns = (picture[..., 0].max(axis=axis).nonzero()[0] for axis in (1, 0))
    # The ellipse touches the box widened by a tenth on each side, where the image reaches that far.
    assert columns.mean() + 0.5 == pytest.approx(box.center[0], abs=0.12 * box.w + 1)
    assert rows.mean() + 0.5 == pytest.approx(box.center[1], abs=0.12 * box.h + 1)
    assert box.w / box.h == pytest.approx(w / h)
    assert picture[int(box.center[1]), int(box.center[0]), 0] == 255
