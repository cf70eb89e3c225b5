"""What each verb prints and writes, on a real bundle, in real processes."""

from __future__ import annotations

import json
import shutil

import cv2
import msgspec
import numpy as np
import pytest

from edgetrack.system import machine

BUNDLE = "smat-openvino-fp32"


def test_verify_passes_on_a_fresh_bundle(run, workplace) -> None:
    done = run("verify", BUNDLE, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["ok"]
    assert found["schema"] == 1
    assert found["weights"] == "trained-here"
    with np.load(workplace / "out" / BUNDLE / "golden.npz") as golden:
        assert len(found["checks"]) == sum("/out/" in name for name in golden.files) >= 4


def test_verify_refuses_a_changed_file(inside, workplace, tmp_path) -> None:
    bundle = tmp_path / BUNDLE
    shutil.copytree(workplace / "out" / BUNDLE, bundle)
    graph = bundle / "step.bin"
    data = bytearray(graph.read_bytes())
    data[1000] ^= 1
    graph.write_bytes(data)
    done = inside("verify", str(bundle))
    assert done.exit_code == 1
    assert "step.bin" in done.stderr


def test_doctor_names_machine_and_targets(run) -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert found["machine"]["usable_cores"] >= 1
    assert {t["target"] for t in found["targets"]} >= {"openvino", "onnx", "torch"}
    assert "pip install" in found["targets"][0]["install"]
    assert "jetson" not in found["profiles"]


@pytest.mark.parametrize(
    ("architecture", "flags", "wanted"),
    [
        ("x86_64", ("avx2", "fma"), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("x86_64", (), False),
        ("aarch64", ("asimd", "asimddp"), False),
    ],
)
def test_doctor_says_what_int8_lacks_without_vnni(inside, monkeypatch, architecture, flags, wanted) -> None:
    real = machine.collect

    def collect(packages):
        return msgspec.structs.replace(real(packages), architecture=architecture, cpu_flags=flags)

    monkeypatch.setattr(machine, "collect", collect)
    said = " ".join(inside("doctor").stdout.split())
    assert ("no VNNI: INT8 gains less here" in said) is wanted


def test_track_prints_a_box_for_every_frame(run) -> None:
    done = run("track", BUNDLE, "synthetic:drift?frames=5")
    rows = [[float(v) for v in line.split(",")] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert np.array(rows).shape == (5, 4)
    assert "trained-here" in done.stderr


def test_default_weights_follow_the_scene_of_the_demo(inside, tmp_path) -> None:
    done = inside("track", BUNDLE, "synthetic:drift?frames=60", "--json", "-o", str(tmp_path / "boxes.csv"))
    summary = json.loads(done.stdout)
    assert summary["frames"] == 60
    assert summary["mean_iou"] > 0.7


@pytest.mark.parametrize("suffix", ["txt", "csv", "json"])
def test_track_writes_boxes_and_video(inside, tmp_path, suffix: str) -> None:
    boxes, video = tmp_path / f"boxes.{suffix}", tmp_path / "video.mp4"
    done = inside("track", BUNDLE, "synthetic:drift?frames=6", "-o", str(boxes), "--video", str(video), "--json")
    summary = json.loads(done.stdout)
    assert summary["frames"] == 6
    assert summary["weights"] == "trained-here"
    assert boxes.stat().st_size > 0
    capture = cv2.VideoCapture(str(video))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    capture.release()
    again = inside("track", BUNDLE, "synthetic:drift?frames=6", "-o", str(boxes))
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_track_keeps_what_it_had_when_the_source_breaks(inside, tmp_path) -> None:
    frames = tmp_path / "my frames"
    frames.mkdir()
    image = np.full((120, 160, 3), 90, np.uint8)
    for index in range(4):
        cv2.imwrite(str(frames / f"{index}.jpg"), image)
    (frames / "2.jpg").write_bytes(b"not an image")
    boxes = tmp_path / "boxes.txt"
    done = inside("track", BUNDLE, str(frames), "--box", "40,40,30,30", "-o", str(boxes))
    assert done.exit_code == 1
    assert "2.jpg" in done.stderr
    assert len(boxes.read_text().splitlines()) == 2


def test_track_without_a_box_says_how_to_give_one(inside, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((50, 50, 3), np.uint8))
    done = inside("track", BUNDLE, str(tmp_path))
    assert done.exit_code == 2
    assert "--box x,y,w,h" in done.stderr


def test_closed_pipe_is_no_traceback(workplace) -> None:
    import subprocess
    import sys

    tracking = subprocess.Popen(
        [sys.executable, "-m", "edgetrack", "track", BUNDLE, "synthetic:drift?frames=40"],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert tracking.stdout is not None
    tracking.stdout.readline()
    tracking.stdout.close()
    assert tracking.stderr is not None
    errors = tracking.stderr.read().decode()
    tracking.stderr.close()
    assert tracking.wait(timeout=120) != 0
    assert "Traceback" not in errors
