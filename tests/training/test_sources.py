"""Shards, folders and the catalog: what is read, what is left out, what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.frames import render_depth
from edgetrack.training.catalog import Catalog, Picture, TrainingClip, View, hold_out, load, verified
from edgetrack.training.method import find_method
from edgetrack.training.sources import read_data, read_folder, read_shard


def test_a_shard_is_read_where_it_lies(pack: Path) -> None:
    catalog = read_shard(pack)
    assert [(s.name, s.video, len(s.views)) for s in catalog.sequences] == [(f"v{n}-a", f"v{n}", 12) for n in range(4)]
    assert len(catalog.unlabelled) == 4
    view = catalog.sequences[1].views[2]
    assert view.box == (31, 36, 32, 24)
    assert load(view.picture).shape == (120, 160, 3)
    assert catalog.text() == "4 sequences of 48 pictures, 4 pictures without a box"


def test_frames_are_in_order_whatever_the_order_of_the_index(tmp_path: Path, packing: Any) -> None:
    entries, files = packing.parts(sequences=1)
    catalog = read_shard(packing.write(tmp_path / "a.tar", entries[::-1], files))
    assert [view.box.x for view in catalog.sequences[0].views] == [20 + 5 * n for n in range(12)]


def test_a_folder_of_shards_and_single_shards_can_be_mixed(tmp_path: Path, packing: Any, own_videos: Path) -> None:
    for name in ("a.tar", "b.tar"):
        packing.write(tmp_path / name, *packing.parts(sequences=1))
    assert len(read_data([tmp_path, tmp_path / "a.tar", own_videos]).sequences) == 5


def test_bad_entries_are_named_and_left_out(tmp_path: Path, packing: Any) -> None:
    entries, files = packing.parts()
    entries[0]["file"] = "gone.jpg"
    entries[1]["box"] = [500, 500, 20, 20]
    catalog = read_shard(packing.write(tmp_path / "a.tar", entries, files))
    assert len(catalog.skipped) == 2
    assert "gone.jpg is in the index, not in the shard" in catalog.skipped[0]
    assert "centre outside the image of 160x120" in catalog.skipped[1]


def test_pictures_that_cannot_be_decoded_are_named_and_left_out(tmp_path: Path, packing: Any) -> None:
    entries, files = packing.parts()
    cut, noise = "v0/003.jpg", "v1/004.jpg"
    files[cut] = files[cut][:700]
    files[noise] = b"\x00" * 100
    catalog = verified(read_shard(packing.write(tmp_path / "a.tar", entries, files)), "a.tar")
    assert [len(s.views) for s in catalog.sequences] == [11, 11, 12, 12]
    assert "v0/003.jpg is cut short" in catalog.skipped[0]
    assert "v1/004.jpg cannot be" in catalog.skipped[1]


@pytest.mark.parametrize("bad", [2, 3])
def test_more_than_five_percent_of_bad_pictures_are_refused(tmp_path: Path, packing: Any, bad: int) -> None:
    entries, files = packing.parts()
    for name in list(files)[:bad]:  # of 52
        files[name] = b"no image"
    catalog = read_shard(packing.write(tmp_path / "a.tar", entries, files))
    if bad == 2:
        assert len(verified(catalog, "a.tar").skipped) == 2
        return
    with pytest.raises(SourceError, match=r"a\.tar: 3 of 52 pictures cannot be used, more than 5%: .*v0/000\.jpg"):
        verified(catalog, "a.tar")


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/passwd", "a/../../b.jpg", "a\\b.jpg"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, packing: Any, name: str) -> None:
    path = packing.write_tar(tmp_path / "a.tar", {"index.json": b"{}", name: b"x"})
    with pytest.raises(SourceError, match="leads outside"):
        read_shard(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(SourceError, match="not a plain file"):
        read_shard(tmp_path / "a.tar")


def test_a_member_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x.jpg")
    info.size = 10**9
    (tmp_path / "a.tar").write_bytes(info.tobuf() + b"\0" * 1024)
    with pytest.raises(SourceError, match="states 1000000000 bytes"):
        read_shard(tmp_path / "a.tar")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("x.jpg"), io.BytesIO())
    with pytest.raises(SourceError, match="twice"):
        read_shard(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (None, "holds no index.json"),
        (b"not json", "is not what it should be"),
        (b"\xff\xfe", "is not what it should be"),
        (b"[" * 100_000, "a.tar"),
        (
            json.dumps({"shard": "a", "count": 1, "entries": [{"file": 3}]}).encode(),
            r"entries\[0\]\.file is 3; expected text",
        ),
        (json.dumps({"shard": "a", "count": 7, "entries": []}).encode(), "states 7 images and lists 0"),
        (json.dumps({"shard": "a", "count": 0, "entries": []}).encode(), "holds no pictures to train on"),
    ],
)
def test_a_missing_or_wrong_index_is_refused(tmp_path: Path, packing: Any, index: bytes | None, says: str) -> None:
    path = packing.write_tar(tmp_path / "a.tar", {"x.jpg": b"x"} if index is None else {"index.json": index})
    with pytest.raises(SourceError, match=says):
        read_shard(path)


@pytest.mark.parametrize("data", [b"", b"no tar file" * 200, b"\x1f\x8b" + b"\0" * 2000])
def test_other_files_are_no_shards(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.tar"):
        read_shard(tmp_path / "a.tar")


def test_paths_that_are_not_there_or_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="gone does not exist"):
        read_data([tmp_path / "gone"])
    with pytest.raises(SourceError, match=r"notes\.txt is not a training pack"):
        read_data([tmp_path / "notes.txt"])
    with pytest.raises(SourceError, match="holds no pictures to train on"):
        read_data([tmp_path])


def test_folders_of_own_videos(own_videos: Path) -> None:
    catalog = verified(read_folder(own_videos), "own")
    # LogRow 3 says that the object is hidden; one folder has no boxes at all.
    assert [(s.name, len(s.views)) for s in catalog.sequences] == [
        (f"{own_videos.name}/street", 5),
        (f"{own_videos.name}/yard", 5),
    ]
    assert [Path(p.name).name for p in catalog.unlabelled] == ["a.png"]
    assert len(read_folder(own_videos / "street").sequences) == 1


def test_ground_truth_that_does_not_fit_its_images_is_refused(own_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = own_videos / "yard" / "0.jpg"
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / "a" / name).write_bytes(source.read_bytes())
    (tmp_path / "a" / "groundtruth.txt").write_text("1,1,5,5\n" * 3)
    with pytest.raises(SourceError, match="has 3 rows for 2 images"):
        read_data([tmp_path])


def test_a_box_outside_its_image_is_found_when_the_image_is_read(own_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes((own_videos / "yard" / "0.jpg").read_bytes())
    (tmp_path / "groundtruth.txt").write_text("500,500,20,20\n")
    with pytest.raises(SourceError, match="centre outside the image of 160x120"):
        verified(read_folder(tmp_path), "own")


def test_a_picture_that_vanishes_is_named(pack: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a.tar"
    copy.write_bytes(pack.read_bytes())
    picture = read_shard(copy).unlabelled[0]
    copy.unlink()
    with pytest.raises(SourceInterruptedError, match=r"a\.tar:plain/0\.jpg cannot be read"):
        load(picture)


def _clip(name: str, video: str, views: int) -> TrainingClip:
    return TrainingClip(name, video, (View(Picture("f", 0, 1, "p"), Box(0, 0, 9, 9)),) * views)


def test_held_out_sequences_take_their_videos_with_them() -> None:
    clips = [_clip(f"{video}-{number}", video, 12) for video in "abcd" for number in range(2)]
    left, held_out = hold_out(Catalog((*clips, _clip("short", "e", 3))), 2)
    assert len({clip.video for clip in held_out}) == 2
    assert not {clip.video for clip in held_out} & {clip.video for clip in left.sequences}
    assert len(left.sequences) == 5
    again = hold_out(Catalog(tuple(np.random.default_rng(0).permutation(np.array(clips, object)))), 2)[1]
    assert again == held_out


def test_holding_everything_out_is_refused() -> None:
    with pytest.raises(SourceError, match="leaves nothing to train on"):
        hold_out(Catalog((_clip("a", "a", 12),)), 1)
    assert hold_out(Catalog((_clip("a", "a", 12),)), 0)[1] == ()


def test_the_real_training_pack(shared: Path) -> None:
    folder = shared / "data" / "train"
    if not folder.is_dir():
        pytest.skip(f"REFERENCE FILES ABSENT: no folder {folder}")
    catalog = read_data([folder])
    # data/train/README.md: 4685 JPEGs, 3685 with a box.
    assert (catalog.views, len(catalog.unlabelled), catalog.skipped) == (3685, 1000, ())
    assert load(catalog.unlabelled[0]).shape[2] == 3


def _with_seconds(root: Path, frames: int = 3, depth: bool = True) -> Path:
    """A sequence as of a depth data set: color/, depth/ of 16 bits, a sentence."""
    for name in ("color", "depth"):
        (root / "walk" / name).mkdir(parents=True)
    for index in range(frames):
        cv2.imwrite(str(root / "walk" / "color" / f"{index}.jpg"), np.full((40, 60, 3), 50 * index, np.uint8))
        if depth:
            plane = np.linspace(500, 9000, 40 * 60).reshape(40, 60).astype(np.uint16)
            cv2.imwrite(str(root / "walk" / "depth" / f"{index}.png"), plane)
    (root / "walk" / "groundtruth.txt").write_text("10,10,20,20\n" * frames)
    (root / "walk" / "nlp.txt").write_text("red car driving on the road\n")
    return root


def test_a_second_image_and_a_sentence_are_read_beside_the_first(tmp_path: Path) -> None:
    (clip,) = verified(read_data([_with_seconds(tmp_path)]), "own", 2).sequences
    assert clip.text == "red car driving on the road"
    image = load(clip.views[1].picture, 2)
    assert (image.shape, image.dtype) == ((40, 60, 6), np.uint8)
    assert abs(int(image[20, 20, 0]) - 50) < 3
    # Depth is rendered as when tracking.
    plane = np.linspace(500, 9000, 40 * 60).reshape(40, 60).astype(np.uint16)
    assert np.array_equal(image[..., 3:], render_depth(plane))
    assert load(clip.views[1].picture).shape == (40, 60, 3)


def test_a_shard_names_second_images_and_descriptions(tmp_path: Path, packing: Any) -> None:
    entries, files = packing.parts()
    for entry in entries:
        entry |= {"second": entry["file"], "text": "category=block"}
    catalog = read_shard(packing.write(tmp_path / "a.tar", entries, files))
    assert {clip.text for clip in catalog.sequences} == {"category=block"}
    assert load(catalog.sequences[0].views[0].picture, 2).shape == (120, 160, 6)
    entries[0]["second"] = "gone.jpg"
    catalog = read_shard(packing.write(tmp_path / "b.tar", entries, files))
    assert catalog.skipped == ("b.tar:gone.jpg is in the index, not in the shard",)


def test_second_images_that_do_not_fit_the_first_are_named(tmp_path: Path) -> None:
    root = _with_seconds(tmp_path)
    (root / "walk" / "depth" / "2.png").unlink()
    with pytest.raises(SourceError, match=r"walk has 3 images and 2 second ones in depth; expected one for each"):
        read_data([root])
    cv2.imwrite(str(root / "walk" / "depth" / "2.png"), np.zeros((20, 60), np.uint16))
    with pytest.raises(SourceError, match=r"aux is 60x20 pixels, the frame 60x40"):
        verified(read_data([root]), "own", 2)


def test_what_a_family_needs_and_the_data_lack_is_named(tmp_path: Path, pack: Path) -> None:
    two, words = (find_method(find_recipe(name)) for name in ("dmtrack", "atstrack"))
    whole, plain = read_data([_with_seconds(tmp_path)]).sequences, read_data([pack]).sequences
    two.check_clips(whole)
    words.check_clips(whole)
    with pytest.raises(SourceError, match=r"trained on two images a frame, and .*v0/000\.jpg has no second one"):
        two.check_clips((*whole, *plain))
    with pytest.raises(SourceError, match=r"descriptions, and sequence v0-a has none; write a sentence into v0-a/nlp"):
        words.check_clips((*whole, *plain))
    unreadable = TrainingClip("a", "a", whole[0].views, "colour=red")
    with pytest.raises(SourceError, match=r"that of sequence a cannot be used: attribute 'colour' is not one"):
        words.check_clips((unreadable,))
