from __future__ import annotations

import hashlib

import pytest

from edgetrack.capabilities import open_ref
from edgetrack.devices.inputs import JobInputs
from edgetrack.errors import SourceError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from tests.builders import jpeg, picture, write_scripted


@pytest.fixture
def inputs():
    with JobInputs() as made:
        yield made


def sequence(folder, frames=2, images="img"):
    (folder / images).mkdir(parents=True)
    for number in range(frames):
        (folder / images / f"{number:04}.jpg").write_bytes(jpeg(picture(number + len(folder.name))))
    (folder / "groundtruth.txt").write_text("10,10,20,20\n" * frames)
    return folder


@pytest.fixture
def dataset(tmp_path):
    """Three sequences, and what lies about beside them."""
    root = tmp_path / "my set"
    for name in ("a", "bb", "ccc"):
        sequence(root / name)
    (root / "ccc" / "nlp.txt").write_text("the car\n")
    (root / "everything.zip").write_bytes(b"large")
    (root / ".cache").mkdir()
    (root / ".cache" / "x.jpg").write_bytes(b"x")
    return root


def test_a_bundle_with_its_hint_and_device(inputs, tmp_path):
    bundle = write_scripted(tmp_path / "one")
    assert inputs.bundle(open_ref(str(bundle))) == "one"
    assert inputs.bundle(open_ref(f"{bundle}@cuda:0")) == "one@cuda:0"
    assert set(inputs.placed) == {f"one/{path.name}" for path in bundle.iterdir()}
    assert inputs.targets == {"fake"}
    manifest = inputs.placed["one/manifest.json"]
    assert manifest.sha256 == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert inputs.sources[manifest.sha256] == bundle / "manifest.json"


def test_two_bundles_of_one_name_lie_beside_each_other(inputs, tmp_path):
    one, other = (write_scripted(tmp_path / folder / "same") for folder in ("a", "b"))
    assert [inputs.bundle(open_ref(str(path))) for path in (one, other, one)] == ["same", "2-same", "same"]


@pytest.mark.parametrize("name", ["out", "results"])
def test_a_bundle_takes_no_name_that_a_job_needs(inputs, tmp_path, name):
    assert inputs.bundle(open_ref(str(write_scripted(tmp_path / name)))) == f"2-{name}"


def test_a_data_set_goes_without_what_is_no_part_of_it(inputs, dataset):
    opened = open_dataset(dataset)
    assert inputs.dataset(opened, opened) == "my set"
    assert sorted(inputs.placed) == sorted(
        [f"my set/{s}/{f}" for s in ("a", "bb", "ccc") for f in ("groundtruth.txt", "img/0000.jpg", "img/0001.jpg")]
        + ["my set/ccc/nlp.txt"]
    )


def test_of_other_sequences_no_frame_is_sent(inputs, dataset, tmp_path):
    """And what is sent opens as what was asked for."""
    opened = open_dataset(dataset)
    inputs.dataset(opened.select(["bb"]), opened)
    images = [place for place in inputs.placed if place.endswith(".jpg")]
    assert images == ["my set/bb/img/0000.jpg", "my set/bb/img/0001.jpg"]
    for place, info in inputs.placed.items():
        (tmp_path / "there" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / place).write_bytes(inputs.sources[info.sha256].read_bytes())
    there = open_dataset(tmp_path / "there" / "my set", opened.layout).select(["bb"])
    assert there.name == opened.name
    assert there.read(there.entries[0]).digest == opened.read(opened.entries[1]).digest


def test_jobs_on_the_same_data_have_one_name_for_it_whatever_tracks(dataset, tmp_path):
    opened = open_dataset(dataset)
    names = []
    for bundle in ("one", "two"):
        with JobInputs() as inputs:
            inputs.bundle(open_ref(str(write_scripted(tmp_path / bundle))))
            inputs.dataset(opened, opened)
            names.append(inputs.data)
    (dataset / "a" / "groundtruth.txt").write_text("11,10,20,20\n" * 2)
    with JobInputs() as inputs:
        inputs.dataset(opened, opened)
        assert names[0] == names[1] != inputs.data


def test_a_folder_that_links_to_itself_is_walked_once(inputs, dataset):
    (dataset / "a" / "again").symlink_to(dataset)
    opened = open_dataset(dataset)
    inputs.dataset(opened, opened)
    assert not any("again" in place for place in inputs.placed)


@pytest.mark.parametrize("spec", ["synthetic:drift?frames=3", "0", "camera:2", "csi:0", "rtsp://10.0.0.7/stream"])
def test_scenes_and_cameras_are_the_devices_own(inputs, spec):
    assert inputs.source(spec) == spec
    assert inputs.placed == {}


def test_a_clip_keeps_the_name_that_was_typed(inputs, tmp_path, monkeypatch):
    sequence(tmp_path / "clips" / "car")
    monkeypatch.chdir(tmp_path)
    files = ["clips/car/groundtruth.txt", "clips/car/img/0000.jpg", "clips/car/img/0001.jpg"]
    assert inputs.source("clips/car") == "clips/car"
    assert sorted(inputs.placed) == files
    assert inputs.source("clips/car/img") == "clips/car/img"
    assert sorted(inputs.placed) == files
    assert inputs.source(str(tmp_path / "clips" / "car")) == "car"
    assert inputs.source("./clips/../clips/car/img") == "car/img"


def test_a_pattern_sends_what_it_matches(inputs, tmp_path):
    (sequence(tmp_path / "car", frames=3) / "groundtruth.txt").write_text("10,10,20,20\n")
    assert inputs.source(f"{tmp_path}/car/img/*[01].jpg") == "car/img/*[01].jpg"
    assert sorted(inputs.placed) == ["car/groundtruth.txt", "car/img/0000.jpg", "car/img/0001.jpg"]


def test_a_source_that_is_none_is_said_before_anything_is_sent(inputs, tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        inputs.source(str(tmp_path / "none.mp4"))


def test_a_name_with_control_characters_is_refused(inputs, tmp_path):
    folder = sequence(tmp_path / "car")
    (folder / "img" / "a\nb.jpg").write_bytes(jpeg(picture(9)))
    (folder / "groundtruth.txt").unlink()
    with pytest.raises(UsageError, match="control characters"):
        inputs.source(str(folder))
