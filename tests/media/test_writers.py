"""Box files: the three formats, and what is left when a run fails or is killed."""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.media import BoxRecord, BoxWriter, VideoWriter, load_scene, open_source

GREY = np.full((360, 640, 3), 127, np.uint8)
RECORDS = [
    BoxRecord(0, Box(1, 2, 30, 40), None, False, None),
    BoxRecord(1, Box(1.5, 2.25, 30.00004, 40), 0.875, False, 12.5),
    BoxRecord(2, Box(-3, 2, 30, 40), 0.125, True, 11.0),
]


def write_all(path: Path, **options) -> None:
    with BoxWriter(path, **options) as writer:
        for record in RECORDS:
            writer.write(record)


def test_text_is_one_line_of_four_numbers_per_frame(tmp_path):
    write_all(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == (
        "1.0000,2.0000,30.0000,40.0000\n1.5000,2.2500,30.0000,40.0000\n-3.0000,2.0000,30.0000,40.0000\n"
    )


def test_csv_has_a_header_and_empty_cells_for_what_is_not_known(tmp_path):
    write_all(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "x", "y", "w", "h", "score", "lost", "track_ms"]
    assert (rows[0]["score"], rows[0]["track_ms"]) == ("", "")
    assert [float(rows[1][key]) for key in ("x", "y", "w", "h", "score", "track_ms")] == [
        1.5,
        2.25,
        30,
        40,
        0.875,
        12.5,
    ]
    assert [row["lost"] for row in rows] == ["0", "0", "1"]


def test_json_holds_schema_source_and_boxes(tmp_path):
    write_all(tmp_path / "a.json", source='a "quoted" source ü')
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["schema"] == 1
    assert document["source"] == 'a "quoted" source ü'
    assert document["boxes"][2] == {"frame": 2, "box": [-3, 2, 30, 40], "score": 0.125, "lost": True, "track_ms": 11.0}


def test_json_without_a_record_is_valid(tmp_path):
    with BoxWriter(tmp_path / "a.json"):
        pass
    assert json.loads((tmp_path / "a.json").read_text()) == {"schema": 1, "source": "", "boxes": []}


@given(values=st.lists(st.floats(width=32), min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_json_stays_valid_whatever_the_numbers(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("json") / "a.json"
    with BoxWriter(path) as writer:
        writer.write(BoxRecord(0, Box(*values[:4]), values[4], True, values[5]))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (row,) = json.loads(path.read_text(), parse_constant=refuse)["boxes"]
    assert [value is None for value in row["box"]] == [not math.isfinite(value) for value in values[:4]]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".json"])
def test_a_failing_run_keeps_what_was_written_and_the_error_goes_on(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"

    def fail() -> None:
        with BoxWriter(path) as writer:
            writer.write(RECORDS[0])
            writer.write(RECORDS[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == ".json":
        assert [row["frame"] for row in json.loads(path.read_text())["boxes"]] == [0, 1]
    else:
        assert len(path.read_text().splitlines()) == (2 if suffix == ".txt" else 3)


def test_a_run_that_fails_before_the_first_record_leaves_nothing(tmp_path):
    def fail() -> None:
        with BoxWriter(tmp_path / "a.json"):
            raise RuntimeError("no frame")

    with pytest.raises(RuntimeError, match="no frame"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_lines_are_on_disk_before_the_writer_closes(tmp_path):
    with BoxWriter(tmp_path / "a.txt") as writer:
        writer.write(RECORDS[0])
        assert not (tmp_path / "a.txt").exists()
        assert (tmp_path / "a.txt.partial").read_text() == "1.0000,2.0000,30.0000,40.0000\n"
    assert not (tmp_path / "a.txt.partial").exists()


def test_a_killed_process_leaves_its_lines_in_the_partial_file(tmp_path):
    path = tmp_path / "a.csv"
    code = (
        "import sys\n"
        "from edgetrack.box import Box\n"
        "from edgetrack.media import BoxRecord, BoxWriter\n"
        "with BoxWriter(sys.argv[1]) as writer:\n"
        "    for i in range(5): writer.write(BoxRecord(i, Box(i, 2, 3, 4), 0.5, False, 1.0))\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    assert not path.exists()
    assert len((tmp_path / "a.csv.partial").read_text().splitlines()) == 6
    write_all(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_an_existing_file_is_refused_unless_told_to_overwrite(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists; give another name or add --overwrite"):
        BoxWriter(path)
    assert path.read_text() == "mine"
    write_all(path, overwrite=True)
    assert path.read_text().startswith("1.0000,")


def test_an_old_file_stays_until_its_replacement_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mine")
    with BoxWriter(path, overwrite=True) as writer:
        writer.write(RECORDS[0])
        assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["a.xml", "a", "a.json.gz"])
def test_an_unknown_ending_is_refused_and_nothing_is_made(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.txt, \.csv, \.json"):
        BoxWriter(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made(tmp_path):
    write_all(tmp_path / "out" / "with space" / "ü.json")
    assert (tmp_path / "out" / "with space" / "ü.json").is_file()


def test_a_folder_or_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        BoxWriter(tmp_path / "d.txt")
    (tmp_path / "f").write_text("")
    with pytest.raises(EdgetrackError, match="cannot be made"):
        BoxWriter(tmp_path / "f" / "a.txt")


def test_closing_twice_is_harmless_and_writing_after_it_is_not(tmp_path):
    writer = BoxWriter(tmp_path / "a.txt")
    writer.write(RECORDS[0])
    writer.close()
    writer.close()
    assert writer.count == 1
    with pytest.raises(ValueError, match="closed"):
        writer.write(RECORDS[1])


def frames_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        return list(source)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(160, 120), (161, 121)])
def test_a_video_reads_back_as_it_was_written(tmp_path, suffix, size):
    scene = load_scene("drift", frames=6, size=size)
    path = tmp_path / f"ein film ü{suffix}"
    with VideoWriter(path, fps=25) as writer:
        for index in range(6):
            writer.write(scene.frame(index))
    back = frames_of(path)
    assert len(back) == 6
    assert np.abs(back[3].astype(int) - scene.frame(3)[: back[3].shape[0], : back[3].shape[1]]).mean() < 12
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failing_run_keeps_the_frames_written(tmp_path):
    path = tmp_path / "a.mp4"

    def fail() -> None:
        with VideoWriter(path) as writer:
            for _ in range(4):
                writer.write(GREY)
            assert not path.exists()
            raise RuntimeError("tracker failed")

    with pytest.raises(RuntimeError, match="tracker failed"):
        fail()
    assert len(frames_of(path)) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_no_frame_no_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [GREY[..., 0], GREY.astype(np.float32), np.zeros((360, 640, 4), np.uint8)])
def test_a_frame_of_another_kind_is_refused_and_the_others_are_kept(tmp_path, wrong):
    with VideoWriter(tmp_path / "a.avi") as writer:
        writer.write(GREY)
        with pytest.raises(UsageError, match="expected uint8 of shape"):
            writer.write(wrong)
    assert len(frames_of(tmp_path / "a.avi")) == 1


def test_an_existing_video_is_refused_unless_told_to_overwrite(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        VideoWriter(path)
    with VideoWriter(path, overwrite=True) as writer:
        writer.write(GREY)
        assert path.read_bytes() == b"mine"
    assert len(frames_of(path)) == 1


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"'\.gif'; videos are written as \.mp4, \.avi"):
        VideoWriter(tmp_path / "a.gif")


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf, 1e6])
def test_a_rate_out_of_range_is_refused(tmp_path, fps):
    with pytest.raises(UsageError, match="above 0, up to 1000"):
        VideoWriter(tmp_path / "a.mp4", fps=fps)


def test_a_video_that_cannot_be_opened_says_what_to_try(tmp_path, capfd):
    folder = tmp_path / "out"
    writer = VideoWriter(folder / "a.mp4")
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match=r"cannot be opened for writing \(mp4v, 640x360\).*\.avi"):
        writer.write(GREY)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize(
    ("given", "written"),
    [(211.222, 211.22), (119.923, 119.92), (29.97, 29.97), (1000 / 33, 30.303), (1000, 1000), (0.0001, 0.01)],
)
def test_any_rate_is_rounded_to_what_the_format_states(tmp_path, suffix, given, written):
    with VideoWriter(tmp_path / f"a{suffix}", fps=given) as writer:
        for _ in range(3):
            writer.write(GREY)
    assert writer.fps == pytest.approx(written, abs=1e-9)
    assert len(frames_of(tmp_path / f"a{suffix}")) == 3
    with open_source(tmp_path / f"a{suffix}") as source:
        assert source.fps == pytest.approx(written, rel=1e-3)


def test_frames_of_another_size_are_scaled_with_bars(tmp_path):
    with VideoWriter(tmp_path / "a.avi") as writer:
        writer.write(GREY)
        writer.write(GREY[:, :320])
        writer.write(GREY[:90, :160])
    found = frames_of(tmp_path / "a.avi")
    assert [frame.shape for frame in found] == [GREY.shape] * 3
    middle, left = found[1][180, 320], found[1][180, 20]
    assert abs(int(middle[0]) - 127) < 6
    assert left[0] < 6
    assert abs(int(found[2][5, 5, 0]) - 127) < 6
    assert writer.notes == [f"{tmp_path / 'a.avi'}: frames of another size scaled to fit 640x360: 2"]


def limited(limit: int, write) -> None:
    """Run `write` while files cannot grow beyond a limit in bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_on_a_full_disk_is_an_error_and_no_file(tmp_path, suffix, capfd):
    rng = np.random.Generator(np.random.PCG64(0))
    noise = rng.integers(0, 256, (40, 120, 160, 3), np.uint8)

    def write() -> None:
        with VideoWriter(tmp_path / f"a{suffix}") as writer:
            for frame in noise:
                writer.write(frame)

    with pytest.raises(EdgetrackError, match=r"could not be written whole.*MiB free") as caught:
        limited(100_000, write)
    assert caught.value.exit_code == 1
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_boxes_on_a_full_disk_are_an_error_and_what_fitted_stays(tmp_path):
    def write() -> None:
        with BoxWriter(tmp_path / "a.txt") as writer:
            for _ in range(9):
                writer.write(RECORDS[0])

    with pytest.raises(EdgetrackError, match=r"a\.txt cannot be written: File too large; its first 3 boxes are in"):
        limited(100, write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt.partial"]
    assert (tmp_path / "a.txt.partial").read_text().count("\n") == 3


def test_what_another_run_writes_is_refused_unless_told_to_overwrite(tmp_path):
    with BoxWriter(tmp_path / "a.txt"), VideoWriter(tmp_path / "a.avi"):
        for make, name in ((BoxWriter, "a.txt"), (VideoWriter, "a.avi")):
            with pytest.raises(UsageError, match=r"is being written by another run; .* --overwrite"):
                make(tmp_path / name)


def test_two_runs_that_overwrite_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with BoxWriter(path, overwrite=True) as first:
        first.write(RECORDS[0])
        with BoxWriter(path, overwrite=True) as second:
            second.write(RECORDS[1])
            first.write(RECORDS[0])
        assert path.read_text().startswith("1.5000,")
    assert path.read_text() == "1.0000,2.0000,30.0000,40.0000\n" * 2
    with VideoWriter(tmp_path / "a.avi", overwrite=True) as one, VideoWriter(tmp_path / "a.avi", overwrite=True) as two:
        one.write(GREY)
        two.write(GREY)
        one.write(GREY)
    assert len(frames_of(tmp_path / "a.avi")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", "a.txt"]


def test_a_name_that_is_not_utf8_is_written_as_any(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb3\xb5\xc1\xbe"))
    path = folder / os.fsdecode(b"\xb3.mp4")
    with VideoWriter(path) as writer:
        writer.write(GREY)
    write_all(folder / os.fsdecode(b"\xb3.json"), source=str(path))
    assert len(frames_of(path)) == 1
    assert json.loads((folder / os.fsdecode(b"\xb3.json")).read_text())["source"] == str(path)
    assert len(list(folder.iterdir())) == 2
