"""Benchmarks over SSH, end to end: a real sshd, a real agent, real measurements of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from edgetrack.benchmark.run import exit_code
from edgetrack.devices.profiles import find_profile
from edgetrack.devices.remote import arguments, measure_there, prepared, save
from edgetrack.errors import BackendMissingError, BundleIntegrityError, DeviceUnavailableError, UsageError
from tests.builders import bench_request

QUICK = bench_request(
    source="synthetic:drift?frames=6&size=96x64",
    threads=1,
    warmup_s=0.0,
    duration_s=0.5,
    iterations=8,
    rounds=1,
    with_reference=False,
)
LONG = replace(QUICK, config=msgspec.structs.replace(QUICK.config, duration_s=600.0))
HOSTILE = "a b'c\"d$(touch canary);`touch canary`&--option"


@pytest.fixture
def bundle(make_onnx_bundle, tmp_path):
    """A bundle in a folder whose name a shell would trip over."""
    return make_onnx_bundle(tmp_path / HOSTILE)


@pytest.fixture
def there(bundle):
    """there(choice, ...) measures the bundle; what it was told is in there.told."""

    def run(choice, options=QUICK, before=lambda job: None, told=None):
        run.told = told if told is not None else []
        profile = find_profile("x86")
        with prepared([str(bundle)], None, profile, arguments(options, profile.name)) as job:
            before(job)
            return measure_there(choice, job, run.told.append)

    return run


def runs(device):
    folder = device.cache / "devices" / "runs"
    return sorted(folder.iterdir()) if folder.exists() else []


def no_canary(*folders):
    return not any((Path(folder) / "canary").exists() for folder in (*folders, Path.cwd(), Path.home()))


def test_measured_fetched_and_cleaned_up_and_sent_only_once(start_sshd, there, bundle, tmp_path):
    device = start_sshd()
    outcome = there(device.choice())
    found = outcome.record
    assert exit_code(found) == 0
    assert found.complete
    assert [result.bundle for result in found.results] == ["tiny-onnx"]
    assert sum(map(len, found.results[0].samples_ms.track)) >= 8
    assert found.settings.profile == "x86"
    assert {window.kind for window in found.telemetry.windows} == {"track", "camera"}
    assert any(series.quantity == "rss_mb" for series in found.telemetry.series)
    assert runs(device) == []
    assert list((device.cache / "devices" / "incoming").iterdir()) == []
    assert any("sending 3 of 3 files" in line for line in there.told)
    save(outcome, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_bytes())["schema"] == 1
    log = (tmp_path / "bench.json.log").read_text().splitlines()
    assert "7/7 round 1/1, camera: tiny-onnx" in log
    assert all(any(told.endswith(f": {line}") for told in there.told) for line in log)
    there(device.choice())
    assert not any("sending" in line for line in there.told)
    assert no_canary(tmp_path, bundle)


def words_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def children_of(process):
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def bench_processes(device):
    mark = str(device.cache / "devices" / "runs")
    found = [process for process in psutil.process_iter() if any(mark in word for word in words_of(process))]
    return [*found, *(child for process in found for child in children_of(process))]


def test_a_cut_connection_is_an_error_and_ends_everything_there(device, there, proxy):
    caught, waiting = [], threading.Event()

    def watch():
        # The worker is the benchmark's child: frames are being measured, or are about to be.
        while len({process.pid for process in caught}) < 2 and not waiting.wait(0.05):
            caught[:] = bench_processes(device)
        proxy.cut()

    watcher = threading.Thread(target=watch)

    def start(job):
        watcher.start()

    try:
        with pytest.raises(DeviceUnavailableError, match="nothing was written"):
            there(device.choice(port=proxy.port, known_hosts=device.know(proxy.port)), LONG, start)
    finally:
        waiting.set()
        watcher.join()
    assert len({process.pid for process in caught}) >= 2
    _, alive = psutil.wait_procs(caught, timeout=60)
    assert alive == []
    agents = [process for process in psutil.process_iter() if "edgetrack.devices.agent" in words_of(process)]
    psutil.wait_procs(agents, timeout=60)
    assert runs(device) == []
    # The same command again does what it was asked for, without sending what had arrived.
    assert there(device.choice()).record.complete
    assert not any("sending" in line for line in there.told)


def test_a_wrong_host_key_is_refused_before_anything_is_sent(device, there, tmp_path):
    asyncssh = pytest.importorskip("asyncssh")
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    told = []
    with pytest.raises(DeviceUnavailableError, match="host key") as caught:
        there(device.choice(known_hosts=device.know(device.port, other)), told=told)
    assert caught.value.exit_code == 4
    assert told == []


def test_an_unknown_host_is_refused(device, there, tmp_path):
    (tmp_path / "empty").write_text("")
    with pytest.raises(DeviceUnavailableError, match="compare the fingerprint"):
        there(device.choice(known_hosts=tmp_path / "empty"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("UserKnownHostsFile none", "switches the check of its host key off"),
        ("UserKnownHostsFile /dev/null", "host key"),
        ("StrictHostKeyChecking no", "host key"),
    ],
)
def test_an_ssh_configuration_that_would_take_any_host(device, there, tmp_path, monkeypatch, config, words):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"Host *\n  {config}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    choice = device.choice()
    told = []
    with pytest.raises(DeviceUnavailableError, match=words):
        there(replace(choice, host=msgspec.structs.replace(choice.host, known_hosts=None)), told=told)
    assert told == []


def test_a_user_who_is_not_let_in(device, there, tmp_path):
    asyncssh = pytest.importorskip("asyncssh")
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "other")
    choice = device.choice()
    with pytest.raises(DeviceUnavailableError, match="ssh-copy-id"):
        there(replace(choice, host=msgspec.structs.replace(choice.host, key=str(tmp_path / "other"))))


def test_nobody_answers(device, there, proxy):
    proxy.cut()
    with pytest.raises(DeviceUnavailableError, match="connecting"):
        there(device.choice(port=proxy.port, known_hosts=device.know(proxy.port)))


def test_a_full_disk(start_sshd, there, tmp_path):
    """The kernel refuses to write more than one block to a file: writes fail as they do on a full disk."""
    server = next((p for p in ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server") if Path(p).exists()), None)
    if server is None:
        pytest.skip("SFTP-SERVER ABSENT: no such program beside this sshd")
    wrapper = tmp_path / "sftp"
    wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 1\nexec {server}\n")
    wrapper.chmod(0o755)
    full = start_sshd(str(wrapper))
    with pytest.raises(DeviceUnavailableError, match=r"is its disk full\? Nothing was measured"):
        there(full.choice())
    assert list((full.cache / "devices" / "incoming").iterdir()) == []


def test_a_file_that_changes_on_its_way_is_refused(start_sshd, there):
    device = start_sshd()

    def tamper(job):
        path = next(path for path in job.sources.values() if path.name == "step.onnx")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    with pytest.raises(BundleIntegrityError, match="changed on its way"):
        there(device.choice(), before=tamper)
    assert runs(device) == []
    assert len(list((device.cache / "devices" / "files").iterdir())) < 3


def test_a_python_without_edgetrack_and_one_with_a_hostile_name(device, there, tmp_path):
    for python in ("/bin/false", f"{tmp_path}/$(touch {tmp_path}/canary) 'x\"; touch {tmp_path}/canary; #"):
        with pytest.raises(BackendMissingError, match=r"devices\.toml"):
            there(device.choice(python=python))
    assert no_canary(tmp_path)


def test_the_command_with_a_host_of_the_users_file(device, bundle, tmp_path):
    config = tmp_path / "config" / "edgetrack" / "devices.toml"
    config.parent.mkdir(parents=True)
    host = device.choice().host
    config.write_text(
        f'[desk]\nhost = "127.0.0.1"\npython = "{sys.executable}"\nprofile = "x86"\nuser = "{host.user}"\n'
        f'port = {host.port}\nkey = "{host.key}"\nknown_hosts = "{host.known_hosts}"\n'
    )
    words = [*("--device", "desk", "--source", QUICK.source, "--threads", "1", "--warmup", "0", "--duration", "0")]
    words += ["--iterations", "4", "--rounds", "1", "--no-reference", "--json", "-o", "bench.json"]
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", "bench", str(bundle), *words],
        cwd=tmp_path,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"port {host.port}: connected" in done.stderr
    assert (tmp_path / "bench.json.log").is_file()
    assert json.loads(done.stdout) == json.loads((tmp_path / "bench.json").read_bytes())
    assert json.loads(done.stdout)["settings"]["profile"] == "x86"


def test_frames_of_this_machine_are_not_on_the_device():
    with pytest.raises(UsageError, match="copy it to the device"):
        arguments(bench_request(source="clip.mp4"), "jetson")


def test_two_bundles_of_one_name_are_refused(make_onnx_bundle, tmp_path):
    one, other = make_onnx_bundle(tmp_path / "a"), make_onnx_bundle(tmp_path / "b")
    (other / "step.onnx").write_bytes(b"other")
    manifest = json.loads((other / "manifest.json").read_bytes())
    digest = hashlib.sha256(b"other").hexdigest()
    manifest["files"]["step.onnx"] = {"size": 5, "sha256": digest}
    (other / "manifest.json").write_text(json.dumps(manifest))
    with (
        pytest.raises(UsageError, match="one name"),
        prepared([str(one), str(other)], None, find_profile("x86"), []),
    ):
        pass
