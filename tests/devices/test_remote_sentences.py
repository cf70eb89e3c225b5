"""What a user types, word for word, against a real sshd that stands for the device."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.builders import jpeg, picture

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--source", "synthetic:drift?frames=4&size=96x64", "--threads", "1", "--no-reference")
BENCH = (*QUICK, "--warmup", "0", "--duration", "0", "--iterations", "4", "--rounds", "1")


@pytest.fixture
def desk(device, make_onnx_bundle, tmp_path):
    """A folder with a bundle under ./out, and a devices.toml that names two devices."""
    make_onnx_bundle(tmp_path / "out" / "tiny-onnx")
    device.users_file(tmp_path / "config", "jetson", "x86")
    return tmp_path


def begin(folder, *words):
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "edgetrack", *words]
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def typed(desk):
    """typed("bench", "--device", "jetson") ends as the command does; its `stdout` and `stderr` are texts."""

    def run(*words, code=0):
        process = begin(desk, *words)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == code, stderr
        return subprocess.CompletedProcess(words, code, stdout, stderr)

    return run


def test_bench_on_a_jetson_takes_the_bundles_at_hand_that_it_runs(typed, desk, make_onnx_bundle):
    bundle = make_onnx_bundle(desk / "out" / "for-a-mac", name="for-a-mac")
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"target": "onnx"', '"target": "coreml"'))
    done = typed("bench", "--device", "jetson", *BENCH, "--json", "-o", "bench.json")
    assert "left out: for-a-mac is for coreml, and the device jetson runs onnx, tensorrt, torch" in done.stderr
    assert "connected" in done.stderr
    assert "which the profile jetson does not describe" in done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((desk / "bench.json").read_bytes())
    assert [(one["bundle"], one["device"]) for one in record["results"]] == [("tiny-onnx", "cpu")]
    assert record["settings"]["profile"] == "jetson"
    # A run that is shorter than any heartbeat is told step by step all the same.
    log = (desk / "bench.json.log").read_text().splitlines()
    assert any(re.fullmatch(r"1/\d+ loading: tiny-onnx", line) for line in log)


def test_bench_here_as_a_jetson_takes_them_too(typed):
    record = json.loads(typed("bench", "--device", "jetson", "--here", *BENCH, "--json").stdout)
    assert [one["bundle"] for one in record["results"]] == ["tiny-onnx"]


def test_a_budget_that_names_a_device_is_checked_there(typed, desk):
    (desk / "budget.toml").write_text(
        'schema = 1\nname = "mine"\n[measure]\ndevice = "x86"\nthreads = 1\n[limits]\nsize_mb = 1.0\n'
    )
    (desk / "config" / "edgetrack" / "devices.toml").write_text(
        (desk / "config" / "edgetrack" / "devices.toml").read_text().replace("[x86]", '[board]\nprofile = "x86"')
    )
    (desk / "other.toml").write_text((desk / "budget.toml").read_text().replace('"x86"', '"bord"'))
    failed = typed("check", "tiny-onnx", "--budget", "other.toml", code=2)
    assert "budget mine asks for the device bord: device 'bord' is not known (did you mean 'board'?)" in failed.stderr
    (desk / "budget.toml").write_text((desk / "budget.toml").read_text().replace('"x86"', '"board"'))
    done = typed("check", "tiny-onnx", "--budget", "budget.toml", "--max-time", "1", "--junit", "j.xml", *QUICK[:2])
    assert "connected" in done.stderr
    assert done.stdout.splitlines()[-1] == "PASS: tiny-onnx, budget mine"
    assert "<testsuite" in (desk / "j.xml").read_text()


@pytest.mark.full
@pytest.mark.parametrize("verb", ["verify", "track", "track to files", "compare", "tune"])
def test_every_verb_on_a_device(typed, desk, verb):
    if verb == "verify":
        done = typed("verify", "tiny-onnx", "--device", "jetson")
        assert done.stdout.splitlines()[-1] == "4 files sound; equal within tolerance"
    elif verb == "track":
        done = typed("track", "tiny-onnx", "synthetic:drift?frames=5", "--device", "jetson")
        assert len(done.stdout.splitlines()) == 5
        assert done.stdout == typed("track", "tiny-onnx", "synthetic:drift?frames=5").stdout
    elif verb == "tune":
        words = (
            "tune",
            "tiny-onnx",
            "--device",
            "jetson",
            "--max-time",
            "5s",
            *QUICK[:2],
            "--json",
            "-o",
            "tuned.json",
        )
        record = json.loads(typed(*words).stdout)
        assert {(one["bundle"], one["device"]) for one in record["entries"]} == {("tiny-onnx", "cpu")}
        assert (record["profile"], bool(record["rounds_ms"])) == ("jetson", True)
        assert record == json.loads((desk / "tuned.json").read_bytes())
        assert not (desk / "config" / "edgetrack" / "tuned.toml").exists()
    elif verb == "track to files":
        words = ("track", "tiny-onnx", "clips/a", "--box", "10,10,20,20", "-o", "a.csv", "--video", "a.avi", "--json")
        sequence(desk / "clips" / "a", 3)
        done = typed(*words, "--device", "jetson")
        assert json.loads(done.stdout)["source"] == "clips/a"
        assert len((desk / "a.csv").read_text().splitlines()) == 4
        assert (desk / "a.avi").stat().st_size > 1000
        assert "exists; give another path" in typed(*words, "--device", "jetson", code=2).stderr
    else:
        folders = [sequence(desk / "set" / name, 12) for name in ("a", "b")]
        assert len(folders) == 2
        words = ("compare", "tiny-onnx", "tiny-onnx@cpu", "--dataset", "set", "--anchors", "3", "--anchor-length", "4")
        assert "compared with itself" in typed(*words, "--device", "jetson", code=2).stderr
        (desk / "out" / "tiny-onnx").rename(desk / "one")
        second = subprocess.run(["cp", "-r", desk / "one", desk / "two"], check=True)
        assert second.returncode == 0
        done = typed(*words[:1], "one", "two", *words[3:], "--device", "jetson", "--json")
        assert json.loads(done.stdout)["agreement"]["mean_iou"] == 1.0
        (kept,) = (desk / "out" / "compare").rglob("comparison.json")
        assert json.loads(kept.read_bytes()) == json.loads(done.stdout)


def sequence(folder, frames):
    (folder / "img").mkdir(parents=True)
    for number in range(frames):
        (folder / "img" / f"{number:04}.jpg").write_bytes(jpeg(picture(number)))
    (folder / "groundtruth.txt").write_text("10,10,20,20\n" * frames)
    return folder


def first_run_kept(device):
    return next((device.cache / "devices" / "jobs").glob("*/out/eval/tiny-onnx/*/*.json"), None)


def processes_on(device):
    every = psutil.process_iter(["cwd"], ad_value="")
    return [process for process in every if process.info["cwd"].startswith(str(device.cache))]


EVAL = ("eval", "tiny-onnx", "synthetic:", "--sequences", "drift,spin,zoom", "--frames", "60", "--device", "x86")


@pytest.mark.full
@pytest.mark.parametrize("how", ["the line is cut", "Ctrl-C"])
def test_an_eval_that_was_ended_in_the_middle_resumes(start_sshd, make_onnx_bundle, tmp_path, how):
    """What was finished is kept on the device, nothing half-done is here, and nothing runs on."""
    from edgetrack.media import scene_names
    from tests.devices.conftest import Proxy

    device = start_sshd()
    make_onnx_bundle(tmp_path / "out" / "tiny-onnx")
    words = [*EVAL[:4], ",".join(scene_names()[:3]), *EVAL[5:]]
    proxy = Proxy(device.port)
    device.users_file(tmp_path / "config", "x86", port=proxy.port, known_hosts=device.know(proxy.port))
    process = begin(tmp_path, *words)
    ended = threading.Event()

    def end():
        while first_run_kept(device) is None and not ended.wait(0.01):
            pass
        proxy.cut() if how == "the line is cut" else process.send_signal(signal.SIGINT)

    watcher = threading.Thread(target=end)
    watcher.start()
    _, stderr = process.communicate(timeout=300)
    ended.set()
    watcher.join()
    proxy.cut()
    expected = {"the line is cut": (4, "nothing was written"), "Ctrl-C": (130, "interrupted")}[how]
    assert process.returncode == expected[0], stderr
    assert expected[1] in stderr
    assert not (tmp_path / "out" / "eval").exists()
    _, alive = psutil.wait_procs(processes_on(device), timeout=60)
    assert alive == []
    device.users_file(tmp_path / "config", "x86")
    again = begin(tmp_path, *words, "--json")
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert "sending" not in stderr
    assert re.search(r"kept from an earlier run: \w+", stderr)
    (result,) = json.loads(stdout)["results"]
    assert (result["profile"], len(result["sequences"])) == ("x86", 3)
    folder = tmp_path / "out" / "eval" / "tiny-onnx" / "synthetic"
    assert json.loads((folder / "results.json").read_bytes()) == json.loads(stdout)
    assert len(list(folder.glob("*@x86-*.json"))) == 3
