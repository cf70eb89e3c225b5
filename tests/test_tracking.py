"""A run from source to files: what is skipped, said and kept, with a scripted tracker."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from edgetrack.media import FrameSource, open_source
from edgetrack.media.scenes import Scene
from edgetrack.media.sources import SyntheticSource
from tests.builders import scripted_manifest, with_attention, write_scripted
from tests.media.streams import NetworkCamera

BOX = "40,30,30,20"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_scripted(tmp_path_factory.mktemp("bundle") / "scripted"))


def put_images(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir(parents=True)
    for number, (width, height) in enumerate(sizes, 1):
        image = np.full((height, width, 3), 40 * number, np.uint8)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return folder


def track(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["track", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_a_bad_frame_stops_unless_it_is_skipped(bundle, tmp_path):
    folder = put_images(tmp_path / "seq", [(160, 96)] * 5)
    (folder / "3.png").write_bytes(b"")
    code, _, said = track(bundle, folder, "--box", BOX, "-o", tmp_path / "a.txt")
    assert code == 1
    assert "frame 2" in said
    assert len((tmp_path / "a.txt").read_text().splitlines()) == 2
    words = (bundle, folder, "--box", BOX, "--on-bad-frame", "skip")
    code, out, _ = track(*words, "-o", tmp_path / "b.json")
    assert code == 0
    assert "unreadable frames skipped: 2 (1 in all; the first: frame 2" in out
    rows = json.loads((tmp_path / "b.json").read_text())["boxes"]
    assert [row["lost"] for row in rows] == [False, False, True, False, False]
    assert rows[2]["box"] == rows[1]["box"]
    assert rows[2]["track_ms"] is None
    code, out, _ = track(*words, "--json")
    assert (code, json.loads(out)["skipped"], json.loads(out)["frames"]) == (0, [2], 5)


def test_frames_of_two_sizes_are_all_tracked_and_in_the_video(bundle, tmp_path):
    folder = put_images(tmp_path / "seq", [(160, 96), (96, 96), (160, 96)])
    code, out, _ = track(bundle, folder, "--box", BOX, "-o", tmp_path / "a.txt", "--video", tmp_path / "a.mp4")
    assert code == 0
    assert "frames of another size scaled to fit 160x96: 1" in out
    assert len((tmp_path / "a.txt").read_text().splitlines()) == 3
    assert [frame.shape for frame in open_source(tmp_path / "a.mp4")] == [(96, 160, 3)] * 3


@pytest.mark.parametrize(("rate", "written"), [(211.222, 211.22), (5000.0, 30.0), (None, 30.0)])
def test_a_rate_that_a_video_cannot_state_is_rounded_and_said(bundle, tmp_path, monkeypatch, rate, written):
    monkeypatch.setattr(SyntheticSource, "fps", property(lambda _: rate, lambda *_: None), raising=False)
    code, out, said = track(bundle, "synthetic:drift?frames=3&size=160x96", "--json", "--video", tmp_path / "a.mp4")
    assert code == 0, said
    notes = json.loads(out).get("notes", [])
    assert len(notes) == (rate is not None)
    assert all(f"plays at {written:g} frames/s: it cannot state {rate:g}" in note for note in notes)
    assert open_source(tmp_path / "a.mp4").fps == pytest.approx(written)


def test_of_a_long_scene_the_truth_is_computed_of_tracked_frames_alone(bundle, monkeypatch):
    asked: list[int] = []
    box = Scene.box
    monkeypatch.setattr(Scene, "box", lambda self, index: (asked.append(index), box(self, index))[1])
    code, _, said = track(bundle, "synthetic:drift?frames=100000&size=160x96", "--frames", 3)
    assert (code, set(asked)) == (0, {0, 1, 2})
    assert "AO " in said


def test_with_a_box_the_ground_truth_is_not_read(bundle, tmp_path):
    folder = put_images(tmp_path / "seq", [(160, 96)] * 2)
    (folder / "groundtruth.txt").write_text("one,two,three,four\n" * 2)
    assert track(bundle, folder)[0] == 2
    assert track(bundle, folder, "--box", BOX)[0] == 0


def test_deep_images_name_the_option_and_are_stretched_with_it(bundle, tmp_path):
    folder = put_images(tmp_path / "seq", [(160, 96)] * 2)
    for path in folder.iterdir():
        deep = np.linspace(7000, 7800, 160 * 96).astype(np.uint16).reshape(96, 160)
        path.write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    code, _, said = track(bundle, folder, "--box", BOX)
    assert code == 2
    assert "--range 7000:7800" in said
    code, out, _ = track(bundle, folder, "--box", BOX, "--range", "7000:7800", "--json")
    assert code == 0
    assert json.loads(out)["notes"] == ["the values of seq are uint16; 7000 and 7800 became 0 and 255"]
    assert track(bundle, folder, "--box", BOX, "--range", "percentile")[0] == 0
    assert "LOW:HIGH" in track(bundle, folder, "--box", BOX, "--range", "7800:7000")[2]


def test_names_that_are_not_utf8_are_tracked_and_written(bundle, tmp_path):
    folder = put_images(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb3\xb5")), [(160, 96)] * 3)
    code, _, said = track(bundle, folder, "--box", BOX, "--video", folder / "a.mp4", "-o", folder / "a.csv")
    assert code == 0, said
    code, _, said = track(bundle, folder / "a.mp4", "--box", BOX, "-o", folder / "b.txt")
    assert code == 0, said
    assert len((folder / "b.txt").read_text().splitlines()) == 3


def test_a_bundle_whose_name_is_not_utf8_never_reaches_a_backend(bundle, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb3\xb5"))
    shutil.copytree(bundle, folder / "scripted")
    code, _, said = track(folder / "scripted", "synthetic:drift?frames=2&size=160x96")
    assert code == 2
    assert "not UTF-8" in said


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle with two maps of attention."""
    manifest = with_attention(scripted_manifest("looking"), near=(1, 4, 4), far=(1, 2, 2))
    path = tmp_path_factory.mktemp("bundle") / "looking"
    return str(write_scripted(path, manifest, attention_near=0.25, attention_far="nan"))


def test_maps_of_attention_are_panels_side_by_side(looking, tmp_path):
    video = tmp_path / "a.mp4"
    code, _, said = track(looking, "synthetic:drift?frames=3&size=160x96", "--attention", "--video", video)
    assert code == 0, said
    assert [frame.shape for frame in open_source(video)] == [(96, 320, 3)] * 3
    code, _, _ = track(looking, "synthetic:drift?frames=3&size=160x96", "--video", tmp_path / "b.mp4")
    assert code == 0
    assert {frame.shape for frame in open_source(tmp_path / "b.mp4")} == {(96, 160, 3)}


def test_attention_says_what_it_lacks(bundle, looking, tmp_path):
    code, _, said = track(looking, "synthetic:drift?frames=2", "--attention")
    assert code == 2
    assert "add --video FILE.mp4 or --show" in said
    code, _, said = track(bundle, "synthetic:drift?frames=2", "--attention", "--video", tmp_path / "a.mp4")
    assert code == 2
    assert "export it with --set attention_maps=true" in said
    assert not (tmp_path / "a.mp4").exists()


# Live sources, and runs that are ended


def test_a_live_stream_is_tracked_through_a_break_and_its_password_is_nowhere(bundle, tmp_path):
    with NetworkCamera(12, user="me:secret") as camera:
        words = (camera.address, "--box", BOX, "--every-frame", "--live", "--frames", 20)
        code, out, said = track(bundle, *words, "-o", tmp_path / "a.json", "--video", tmp_path / "a.avi", "--json")
        assert code == 0, said
        shown = camera.address.replace("secret", "***")
        found = json.loads(out)
        assert (found["source"], found["frames"]) == (shown, 20)
        assert (found["live"]["latest"], found["live"]["dropped"], found["live"]["breaks"]) == (False, 0, 1)
        ages = found["live"]["age_ms"]
        assert 0 < ages["p50"] <= ages["p95"] <= ages["max"]
        assert found["notes"][0].startswith(f"{shown} broke 1 time: ")
        kept = json.loads((tmp_path / "a.json").read_text())
        assert kept["source"] == shown
        assert [row["frame"] for row in kept["boxes"]] == list(range(20))
        assert [row.get("age_ms", 0) > 0 for row in kept["boxes"]] == [False] + [True] * 19
        assert len(list(open_source(tmp_path / "a.avi"))) == 20
        lines = said.splitlines()
        assert lines[0] == f"edgetrack: {shown} broke after 12 frames; it is tried again for 30 s"
        assert lines[1].startswith(f"edgetrack: {shown} is back after ")
        code, out, said = track(bundle, camera.address, "--box", BOX, "--reconnect", "0")
        assert code == 1
        assert "gave no frame after 12; check that it is still connected" in said
        assert "secret" not in out + said


@pytest.mark.parametrize("option", ["--latest", "--live"])
def test_what_is_for_live_sources_is_refused_for_files(bundle, option):
    code, _, said = track(bundle, "synthetic:drift?frames=3", option)
    assert code == 2
    assert f"{option} is for live sources, and the frames of synthetic:drift wait; leave it out" in said


class Ended(FrameSource):
    """Frames without an end; once one was tracked, this process is sent a signal."""

    name, length, fps, size = "endless", None, 30.0, (160, 96)

    def __init__(self, number: int, live: bool) -> None:
        self.number, self.live, self.tracked = number, live, threading.Event()

    def __iter__(self):
        sent = False
        for index in itertools.count():
            if self.tracked.is_set() and not sent:
                sent = True
                os.kill(os.getpid(), self.number)
            yield np.full((96, 160, 3), index % 256, np.uint8)


def test_of_a_live_source_that_gave_no_frame_none_was_dropped(bundle, monkeypatch):
    source = Ended(signal.SIGINT, live=True)
    monkeypatch.setattr(Ended, "__iter__", lambda self: iter(()))
    monkeypatch.setattr("edgetrack.tracking.open_source", lambda *_, **__: source)
    code, out, _ = track(bundle, "endless", "--box", BOX, "--json")
    assert (code, json.loads(out)["frames"], json.loads(out)["live"]["dropped"]) == (0, 0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("live", [False, True])
def test_ctrl_c_and_sigterm_close_files_whole(bundle, tmp_path, monkeypatch, number, live):
    source = Ended(number, live)
    monkeypatch.setattr("edgetrack.tracking.open_source", lambda *_, **__: source)
    monkeypatch.setattr("edgetrack.tracking.draw", lambda image, *_, **__: source.tracked.set() or image)
    before = signal.getsignal(number)
    words = ("--box", BOX, "-o", tmp_path / "a.json", "--video", tmp_path / "a.avi", "--json")
    code, out, said = track(bundle, "endless", *words)
    assert signal.getsignal(number) is before
    if live:  # such a run has no other end
        assert (code, said) == (0, "")
        assert json.loads(out)["frames"] > 0
    else:
        assert (code, out, said) == (128 + number, "", "edgetrack: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", "a.json"]
    rows = json.loads((tmp_path / "a.json").read_text())["boxes"]
    assert len(rows) == len(list(open_source(tmp_path / "a.avi"))) > 0


def test_a_process_that_is_terminated_leaves_whole_files(bundle, tmp_path):
    command = [sys.executable, "-m", "edgetrack", "track", bundle, "synthetic:drift?frames=3000&size=160x96"]
    with subprocess.Popen(
        [*command, "--video", str(tmp_path / "a.avi")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()  # it tracks
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "edgetrack: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.avi"]
    seen, told = len(list(open_source(tmp_path / "a.avi"))), len((first + rest).splitlines())
    assert seen - told in (0, 1)  # the signal may come between a frame's picture and its line


def test_bad_frames_beyond_the_last_one_wanted_are_not_told(bundle, tmp_path):
    folder = put_images(tmp_path / "seq", [(160, 96)] * 5)
    (folder / "4.png").write_bytes(b"")
    code, out, _ = track(bundle, folder, "--box", BOX, "--frames", 3, "--on-bad-frame", "skip", "--json")
    assert (code, json.loads(out)["frames"], json.loads(out).get("skipped")) == (0, 3, None)
    assert track(bundle, folder, "--box", BOX, "--frames", 3)[0] == 0


SEVERAL = ("--box", BOX, "--box", "60,40,20,20", "--box", "5,5,30,30")


def test_several_targets_go_to_one_file_with_their_numbers(bundle, tmp_path):
    source = "synthetic:drift?frames=3&size=160x96"
    alone = {}
    for number, box in enumerate(SEVERAL[1::2], 1):
        assert track(bundle, source, "--box", box, "-o", tmp_path / f"{number}.json")[0] == 0
        rows = json.loads((tmp_path / f"{number}.json").read_text())["boxes"]
        alone |= {(row["frame"], number): row["box"] for row in rows}
    for name in ("a.csv", "a.json", "a.jsonl"):
        code, said, _ = track(bundle, source, *SEVERAL, "-o", tmp_path / name)
        assert code == 0
        assert "3 targets" in said
    head, *lines = (tmp_path / "a.csv").read_text().splitlines()
    assert head == "frame,target,x,y,w,h,score,lost,track_ms"
    assert {(int(f), int(n)): [float(v) for v in box] for f, n, *box in (ln.split(",")[:6] for ln in lines)} == alone
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {(row["frame"], row["target"]): row["box"] for row in rows} == alone
    found = json.loads((tmp_path / "a.json").read_text())["boxes"]
    assert [(row["frame"], row["target"]) for row in found] == [(row["frame"], row["target"]) for row in rows]


def test_several_targets_are_printed_and_drawn_with_their_numbers(bundle, tmp_path, monkeypatch):
    written = []
    put = cv2.putText
    monkeypatch.setattr(cv2, "putText", lambda image, text, *rest: (written.append(text), put(image, text, *rest))[1])
    source = "synthetic:drift?frames=2&size=160x96"
    code, out, _ = track(bundle, source, *SEVERAL, "--video", tmp_path / "a.mp4")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()] == ["1", "2", "3"] * 2
    assert {word.split()[0] for word in written if word.startswith("#")} == {"#1", "#2", "#3"}
    assert sum(text.endswith("fps") for text in written) == 10  # once, with its edge of nine
    assert len(list(open_source(tmp_path / "a.mp4"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "a.txt"), "boxes of several targets are written as .csv, .json, .jsonl"),
        (("--text", "category=car"), "--text is of one target, given 3; give one --box, or leave it out"),
        (("--attention", "--video", "a.mp4"), "--attention is of one target, given 3"),
        (("--select",), "--box and --select exclude each other"),
        (("--box", "1,2,3"), "1,2,3"),
    ],
)
def test_what_is_of_one_target_is_refused_of_several(bundle, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, error = track(bundle, "synthetic:drift?frames=2&size=160x96", *SEVERAL, *words)
    assert code == 2
    assert said in " ".join(error.split())
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_cannot_be_read_repeats_every_box(bundle, tmp_path):
    folder = put_images(tmp_path / "seq", [(160, 96)] * 3)
    (folder / "2.png").write_bytes(b"")
    words = ("--on-bad-frame", "skip", "-o", tmp_path / "a.jsonl")
    assert track(bundle, folder, *SEVERAL, *words)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if row["frame"] == 1]
    assert [(row["target"], row["lost"], row["track_ms"]) for row in skipped] == [(n, True, None) for n in (1, 2, 3)]
    assert [row["box"] for row in skipped] == [row["box"] for row in rows if row["frame"] == 0]
