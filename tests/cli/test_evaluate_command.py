"""`edgetrack eval` as a user runs it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from tests.builders import bench_json, write_scripted

FIGURES = ["ao", "sr50", "sr75", "auc", "precision", "p_norm", "op50", "op75"]


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle("name", size=0.5) writes a bundle with constant outputs; returns its folder."""

    def make(name="scripted", **rules):
        return write_scripted(tmp_path / "bundles" / name, **rules)

    return make


@pytest.fixture
def command(tmp_path):
    def run(*arguments, timeout=120):
        return subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-m", "edgetrack", "eval", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """The same in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_json_keeps_its_contract_and_runs_are_kept_by_default(command, make_bundle, plain_dataset, tmp_path) -> None:
    root = plain_dataset("a", "b", "c")
    arguments = (make_bundle(), root, "--sequences", "a,c", "--frames", "3", "--results", "trackingnet", "sent")
    done = command(*arguments[:-3], "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert json.loads(done.stdout)["schema"] == 1
    assert (result["bundle"], result["weights"], result["dataset"]) == ("scripted", "untrained", "data")
    assert [(s["name"], s["frames"]) for s in result["sequences"]] == [("a", 3), ("c", 3)]
    assert result["failures"] == []
    for figure in FIGURES:
        assert 0 <= result[figure] <= 1
        assert len(result["interval"][figure]) == 2
        assert all(0 <= s[figure] <= 1 for s in result["sequences"])
    assert (tmp_path / "out" / "eval" / "scripted" / "data" / "results.json").is_file()
    assert done.stderr == ""


def test_a_summary_of_other_settings_is_kept_and_one_of_the_same_is_replaced(
    inside, make_bundle, plain_dataset, tmp_path
) -> None:
    arguments = [str(make_bundle()), str(plain_dataset("a", "b"))]
    folder = tmp_path / "out" / "eval" / "scripted" / "data"

    def limits() -> list[int | None]:
        files = [folder / "results.json", *folder.glob("results-*.json")]
        return [json.loads(file.read_bytes())["results"][0]["limit"] for file in files]

    for further, expected in (
        ([], [None]),
        (["--frames", "2"], [2, None]),
        (["--frames", "2", "--restart"], [2, None]),
    ):
        assert inside(*arguments, *further).exit_code == 0
        assert limits() == expected
    assert inside(*arguments, "--sequences", "b").exit_code == 0
    assert sorted(map(str, limits())) == ["2", "None", "None"]


def test_anchors_and_a_clock_stand_beside_the_one_pass(inside, make_bundle, plain_dataset, tmp_path) -> None:
    root = plain_dataset("a", "b", frames=6)
    (tmp_path / "bench.json").write_text(json.dumps(bench_json(("phone", None, [[50.0, 50.0], [50.0]]))))
    arguments = (make_bundle(), root, "--anchors", "2", "--anchor-length", "2")
    done = inside(*arguments, "--fps", "30", "--latencies", "bench.json", "--json")
    assert done.exit_code == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    anchored, streaming = result["anchored"], result["streaming"]
    # Anchors at 0, 2 and 4 of six frames: the run forwards from 4 has one frame of two, that backwards from 0 none.
    assert (anchored["spacing"], anchored["length"], anchored["runs"]) == (2, 2, 10)
    assert anchored["interval"][0] <= anchored["ao"] <= anchored["interval"][1]
    assert (streaming["rate"], streaming["latencies"], streaming["median_ms"]) == (30, "phone", 50)
    # Every 33.3 ms a frame, every 50 ms a box: frames 1 (at 50), 3 (at 100) and 4 (at 150) are taken.
    assert streaming["processed"] == pytest.approx(3 / 5)
    assert all({"anchored_ao", "anchor_runs", "streaming_ao"} <= set(s) for s in result["sequences"])
    done = inside(*arguments, "--fps", "30")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith("kept from an earlier run: a, a (anchors), ")
    assert "--restart makes them again" in done.stderr
    assert "anchored AO: 10 runs of up to 2 frames" in done.stdout
    assert "latencies: measured" in done.stdout
    assert done.stdout.splitlines()[0].endswith("AO at 30 fps")


def test_a_table_or_markdown_says_what_ran_and_what_failed(inside, make_bundle, plain_dataset, tmp_path) -> None:
    root = plain_dataset("a", "b")
    (root / "b" / "groundtruth.txt").write_text("1,1,9,9\nbroken\n")
    done = inside(make_bundle(), root, "--results", "got10k", "sent")
    assert done.exit_code == 1
    assert "scripted (untrained weights) on data (plain): 1 sequence, 4 frames" in done.stdout
    assert "FAILED: b: SequenceError: line 2" in done.stdout
    assert (tmp_path / "sent" / "scripted" / "a" / "a_001.txt").is_file()
    done = inside(tmp_path / "bundles" / "scripted", root, "--markdown")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| sequence | frames | AO | SR0.5 |")
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["a", "all", "95 %"]
    assert done.stderr.startswith("kept from an earlier run: a; ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-set"], 2, "does not exist"),
        (["."], 2, "GOT-10k_Val_000001"),
        (["synthetic:nope"], 2, "drift"),
        (["synthetic:", "--sequences", "nope"], 2, "expected one of: drift"),
        (["synthetic:", "--json", "--markdown"], 2, "exclude each other"),
        (["synthetic:", "--results", "vot", "sent"], 2, "got10k, trackingnet"),
        (["synthetic:", "--results", "got10k", "sent", "--frames", "2"], 2, "leave --frames out"),
        (
            ["synthetic:drift", "--frames", "2", "--device", "cuda:0"],
            4,
            "run on the CPU here, not on 'cuda:0'; use --device cpu",
        ),
        (["synthetic:drift", "--anchors", "0"], 2, "spacing 0"),
        (["synthetic:drift", "--anchor-length", "9"], 2, "add --anchors"),
        (["synthetic:drift", "--latencies", "bench.json"], 2, "add --fps"),
        (["synthetic:drift", "--fps", "0"], 2, "such as 30"),
        (["synthetic:drift", "--fps", "30", "--latencies", "none.json"], 2, "cannot be read"),
    ],
)
def test_wrong_input_is_one_clear_message(make_bundle, tmp_path, monkeypatch, arguments, code, words) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["eval", str(make_bundle()), *arguments])
    assert done.exit_code == code
    assert words in done.stderr


def test_names_that_are_not_utf8_are_names(make_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (b"\xca\xfd", b"\xca\xfe"):
        folder = tmp_path / os.fsdecode(b"\xb2\xe2") / os.fsdecode(name)
        folder.mkdir(parents=True)
        for index in range(3):
            image = cv2.imencode(".jpg", np.full((48, 64, 3), index, np.uint8))[1]
            (folder / f"{index}.jpg").write_bytes(image.tobytes())
        (folder / "groundtruth.txt").write_text("10,12,20,16\n" * 3)
    bundle = str(make_bundle())
    for _ in range(2):  # made, and taken from disk
        done = CliRunner().invoke(app, ["eval", bundle, str(folder.parent), "--json"])
        assert done.exit_code == 0, done.output
        (result,) = json.loads(done.stdout)["results"]
        assert result["dataset"] == "\\udcb2\\udce2"
        assert [one["name"] for one in result["sequences"]] == ["\\udcca\\udcfd", "\\udcca\\udcfe"]
    done = CliRunner().invoke(app, ["track", bundle, str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["source"].endswith("\\udcb2\\udce2/\\udcca\\udcfe")
    for arguments in (["track", bundle, str(folder), "-o", "b.txt"], ["eval", bundle, str(folder.parent)]):
        code = f"import sys; sys.argv[1:] = {arguments}; from edgetrack.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "\\udcca\\udcfe" in done.stdout


def test_ctrl_c_keeps_what_is_finished(make_bundle, tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgetrack", "eval", str(make_bundle()), "synthetic:"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while not list((tmp_path / "out").rglob("drift-*.json")):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            pytest.fail(process.stderr.read())
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in words
    assert "Traceback" not in words
    assert len(list((tmp_path / "out").rglob("drift-*.json"))) == 1
    assert not list((tmp_path / "out").rglob("results.json"))


@pytest.mark.full
def test_a_trained_checkpoint_reaches_its_known_overlap(command, exported, pilot_weights, shared) -> None:
    # Two correct FP32 implementations of the official code gave 0.479 and 0.496 on these sequences.
    bundle = exported("onnx", str(pilot_weights))
    done = command(bundle, shared / "data" / "eval", "--json", timeout=550)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["frames"] == 1595
    assert 0.46 <= result["ao"] <= 0.51
