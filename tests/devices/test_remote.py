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
from edgetrack.devices import ssh
from edgetrack.devices.profiles import find_profile
from edgetrack.devices.remote import arguments, measure_there, prepared, save
from edgetrack.errors import (
    BackendMissingError,
    BundleIntegrityError,
    DeviceUnavailableError,
    EdgetrackError,
    UsageError,
    WorkerError,
)
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
        with prepared(replace(options, bundles=(str(bundle),)), profile) as job:
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
    assert {window.kind for window in found.telemetry.windows} == {"track", "camera", "camera_ahead"}
    assert any(series.quantity == "rss_mb" for series in found.telemetry.series)
    assert runs(device) == []
    assert list((device.cache / "devices" / "incoming").iterdir()) == []
    assert any("sending 3 of 3 files" in line for line in there.told)
    save(outcome, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_bytes())["schema"] == 1
    log = (tmp_path / "bench.json.log").read_text().splitlines()
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
        prepared(replace(QUICK, bundles=(str(one), str(other))), find_profile("x86")),
    ):
        pass


@pytest.fixture
def impostor(device, tmp_path):
    """impostor(agent, doctor) is a choice of a device whose Python is another program.

    `agent` and `doctor` are Python; the agent has `say(**message)` and `hear()`.
    """
    fine = {
        "machine": {"os": "an OS", "kernel": "1", "architecture": "x86_64", "python": "CPython", "packages": {}},
        "targets": [{"target": name, "installed": True, "install": ""} for name in ("onnx",)],
    }

    def make(agent="", doctor=None):
        head = (
            "import json, os, sys, time\n"
            "def hear():\n    return json.loads(sys.stdin.readline())\n"
            "def say(**message):\n    print(json.dumps(message), flush=True)\n"
            "def greet():\n"
            f"    say(type='ready', protocol=1, version='1', incoming={str(tmp_path)!r}); hear()\n"
            "    say(type='missing', sha256=[]); hear()\n"
        )
        (tmp_path / "agent.py").write_text(head + agent)
        (tmp_path / "doctor.py").write_text(head + (doctor or f"print({json.dumps(fine)!r})"))
        python = tmp_path / "python"
        python.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *doctor*) exec {sys.executable} -S {tmp_path}/doctor.py;; esac\n'
            f"exec {sys.executable} -S {tmp_path}/agent.py\n"
        )
        python.chmod(0o755)
        return device.choice(python=str(python))

    return make


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("while True: sys.stdout.write('x' * 65536)", "sent a line of more than 1 MiB"),
        ("while True: say(type='log', line='still here')", "sent more than 2 MiB of output"),
        ("greet()\nwhile True: say(type='log', line='x' * 2000)", "sent more than 2 MiB of output"),
        ("greet()\nwhile True: sys.stderr.write('x' * 65536)", "sent more than 2 MiB of output"),
        ("say(type='log', line='x' * 5000)", "which is no reply"),
        ("say(type='missing', sha256=[])", "out of turn"),
    ],
)
def test_an_agent_that_never_stops_talking_or_talks_nonsense_is_cut_off(there, impostor, monkeypatch, agent, words):
    monkeypatch.setattr(ssh, "LONGEST_MESSAGE", 1 << 20)
    monkeypatch.setattr(ssh, "MOST_OUTPUT", 2 << 20)
    with pytest.raises(WorkerError, match=words):
        there(impostor(agent))


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_doctor_that_never_stops_talking_is_cut_off(there, impostor, monkeypatch, stream):
    monkeypatch.setattr(ssh, "MOST_OUTPUT", 1 << 20)
    with pytest.raises(WorkerError, match="sent more than 1 MiB of output"):
        there(impostor(doctor=f"while True: sys.{stream}.write('many words\\n' * 100)"))


STEERING = "\\x1b]0;owned\\x07\\x1b[2J\\u202egnp"


def test_nothing_that_a_device_says_steers_the_terminal(there, impostor):
    told = []
    with pytest.raises(UsageError) as refused:
        there(
            impostor(
                f"greet(); say(type='log', line='{STEERING} log'); "
                f"say(type='refused', error='UsageError', message='{STEERING} refused'); time.sleep(60)"
            ),
            told=told,
        )
    with pytest.raises(BackendMissingError) as missing:
        there(impostor(doctor=f"sys.exit('{STEERING} doctor')"))
    with pytest.raises(EdgetrackError) as version:
        there(impostor(f"say(type='ready', protocol=9, version='{STEERING}', incoming='/'); time.sleep(60)"))
    for text in (*told, str(refused.value), str(missing.value), str(version.value)):
        assert text.isprintable(), text
    assert any(line.endswith("gnp log") for line in told)
    assert "gnp refused" in str(refused.value)
    assert "gnp doctor" in str(missing.value)


RECORD = b'{"schema": 1}'


@pytest.mark.parametrize(
    ("prepare", "size", "words"),
    [
        ("os.mkfifo(path)", len(RECORD), "is not a file of 13 bytes"),
        ("os.symlink('/dev/zero', path)", len(RECORD), "is not a file of 13 bytes"),
        ("os.mkdir(path)", len(RECORD), "is not a file of 13 bytes"),
        ("open(path, 'wb').write(bytes(99))", len(RECORD), "is not a file of 13 bytes"),
        (f"open(path, 'wb').write({RECORD!r})", 1 << 40, "is no benchmark's"),
        ("open(path, 'wb').write(bytes(13))", len(RECORD), "was changed on its way"),
        (f"open(path, 'wb').write({RECORD!r})", len(RECORD), "not a benchmark's record"),
    ],
)
def test_what_is_no_record_is_neither_waited_for_nor_read(there, impostor, tmp_path, prepare, size, words):
    digest = hashlib.sha256(RECORD).hexdigest()
    agent = (
        f"greet(); path = {str(tmp_path / 'record')!r}; {prepare}\n"
        f"say(type='done', code=0, record=path, info={{'size': {size}, 'sha256': {digest!r}}})\n"
        "time.sleep(60)"
    )
    with pytest.raises(EdgetrackError, match=words):
        there(impostor(agent))


def test_a_host_that_does_not_resolve_cannot_be_found_and_nothing_ran_there(device, there):
    choice = device.choice()
    with pytest.raises(DeviceUnavailableError, match=r"the host nowhere\.invalid cannot be found") as caught:
        there(replace(choice, host=msgspec.structs.replace(choice.host, host="nowhere.invalid")))
    assert "ended" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_host_that_does_not_answer_has_nothing_to_end(device, there, proxy):
    proxy.cut()
    with pytest.raises(DeviceUnavailableError, match=r"connecting: .*; nothing was measured") as caught:
        there(device.choice(port=proxy.port, known_hosts=device.know(proxy.port)))
    assert "what ran there" not in str(caught.value)
