"""Verbs over SSH, end to end: a real sshd, a real agent, real runs on this machine; and devices that lie."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from edgetrack.benchmark.record import BenchRecord
from edgetrack.capabilities import open_ref
from edgetrack.devices import ssh
from edgetrack.devices.inputs import JobInputs
from edgetrack.devices.remote import DeviceJob, DeviceListener, DeviceResult, run_there
from edgetrack.devices.transfer import JobOutput
from edgetrack.errors import (
    BackendMissingError,
    BundleIntegrityError,
    DeviceUnavailableError,
    EdgetrackError,
    UsageError,
    WorkerError,
)

HOSTILE = "a b'c\"d$(touch canary);`touch canary`&--option"
SCENE = "synthetic:drift?frames=4&size=96x64"
LONG = ("--duration=600", "--source=synthetic:drift?frames=6&size=96x64", "--warmup=0", "--no-reference")


@pytest.fixture
def bundle(make_onnx_bundle, tmp_path):
    """A bundle in a folder whose name a shell would trip over."""
    return make_onnx_bundle(tmp_path / HOSTILE)


class Told:
    """What a listener hears: `lines` for people, and `steps`."""

    def __init__(self):
        self.lines, self.steps = [], []
        self.listener = DeviceListener(self.lines.append, lambda *step: self.steps.append(step))


@pytest.fixture
def there(bundle):
    """there(choice, verb, ...) runs a verb with the bundle on the device; what was told is in there.told."""

    def run(choice, *options, verb="track", after=(SCENE,), outputs=(), before=lambda inputs: None):
        run.told = Told()
        with JobInputs() as inputs:
            name = inputs.bundle(open_ref(str(bundle)))
            before(inputs)
            arguments = ["--device=x86", "--here", "--threads=1", *options, "--", name, *after]
            return run_there(choice, DeviceJob(verb, arguments, inputs, outputs), run.told.listener)

    return run


def left_on(device):
    folder = device.cache / "devices" / "jobs"
    return sorted(folder.iterdir()) if folder.exists() else []


def no_canary(*folders):
    return not any((Path(folder) / "canary").exists() for folder in (*folders, Path.cwd(), Path.home()))


def test_run_fetched_and_cleaned_up_and_sent_only_once(start_sshd, there, bundle, tmp_path):
    device = start_sshd()
    boxes = JobOutput("results/boxes.csv", tmp_path / "new" / "boxes.csv")
    found = there(device.choice(), "--output=results/boxes.csv", outputs=[boxes])
    assert found.code == 0
    found.check()
    assert found.written == [boxes.here]
    assert len(boxes.here.read_text().splitlines()) == 5
    assert found.lines()[0].startswith("4 frames of synthetic:drift?frames=4&size=96x64 with tiny-onnx")
    assert any("sending 5 of 5 files" in line for line in there.told.lines)
    # However short the run is, what the device does is told, and kept for the log.
    assert (f"{found.host}: tracking", 4, 4) in there.told.steps
    assert "4/4 tracking" in found.log
    assert left_on(device) == []
    assert list((device.cache / "devices" / "incoming").iterdir()) == []
    there(device.choice())
    assert not any("sending" in line for line in there.told.lines)
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


def folder_of(process):
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def verb_processes(device):
    mark = str(device.cache / "devices" / "jobs")
    found = [process for process in psutil.process_iter() if folder_of(process).startswith(mark)]
    return list({process.pid: process for one in found for process in [one, *children_of(one)]}.values())


def test_a_cut_connection_is_an_error_and_ends_everything_there(device, there, proxy):
    caught, waiting = [], threading.Event()

    def watch():
        # The worker is the benchmark's child: frames are being measured, or are about to be.
        while len(caught) < 2 and not waiting.wait(0.05):
            caught[:] = verb_processes(device)
        proxy.cut()

    watcher = threading.Thread(target=watch)
    try:
        choice = device.choice(port=proxy.port, known_hosts=device.know(proxy.port))
        with pytest.raises(DeviceUnavailableError, match="nothing was written"):
            there(choice, *LONG, verb="bench", after=(), before=lambda inputs: watcher.start())
    finally:
        waiting.set()
        watcher.join()
    assert len(caught) >= 2
    _, alive = psutil.wait_procs(caught, timeout=60)
    assert alive == []
    agents = [process for process in psutil.process_iter() if "edgetrack.devices.agent" in words_of(process)]
    psutil.wait_procs(agents, timeout=60)
    assert left_on(device) == []


def test_a_wrong_host_key_is_refused_before_anything_is_sent(device, there, tmp_path):
    asyncssh = pytest.importorskip("asyncssh")
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with pytest.raises(DeviceUnavailableError, match="host key") as caught:
        there(device.choice(known_hosts=device.know(device.port, other)))
    assert caught.value.exit_code == 4
    assert there.told.lines == []


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
    with pytest.raises(DeviceUnavailableError, match=words):
        there(replace(choice, host=msgspec.structs.replace(choice.host, known_hosts=None)))
    assert there.told.lines == []


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
    left = [path.stat().st_size for path in (full.cache / "devices" / "incoming").iterdir()]
    assert max(left, default=0) < 1024  # whole files, and no part


def test_a_file_that_changes_on_its_way_is_refused(start_sshd, there):
    device = start_sshd()

    def tamper(inputs):
        path = next(path for path in inputs.sources.values() if path.name == "step.onnx")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    with pytest.raises(BundleIntegrityError, match="changed on its way"):
        there(device.choice(), before=tamper)
    assert left_on(device) == []
    assert len(list((device.cache / "devices" / "files").iterdir())) < 3


def test_a_python_without_edgetrack_and_one_with_a_hostile_name(device, there, tmp_path):
    for python in ("/bin/false", f"{tmp_path}/$(touch {tmp_path}/canary) 'x\"; touch {tmp_path}/canary; #"):
        with pytest.raises(BackendMissingError, match=r"devices\.toml"):
            there(device.choice(python=python))
    assert no_canary(tmp_path)


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
            f"    say(type='ready', protocol=2, version='1', incoming={str(tmp_path)!r}); hear()\n"
            "    say(type='missing', sha256=[], free=1 << 40); hear(); hear()\n"
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
        ("say(type='missing', sha256=[], free=1)", "out of turn"),
        ("greet(); say(type='missing', sha256=[], free=1)", "out of turn"),
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
    with pytest.raises(UsageError) as refused:
        there(
            impostor(
                f"greet(); say(type='log', line='{STEERING} log'); "
                f"say(type='step', what='{STEERING} s', step=1, total=0); "
                f"say(type='refused', error='UsageError', message='{STEERING} refused'); time.sleep(60)"
            )
        )
    told = there.told
    with pytest.raises(BackendMissingError) as missing:
        there(impostor(doctor=f"sys.exit('{STEERING} doctor')"))
    with pytest.raises(EdgetrackError) as version:
        there(impostor(f"say(type='ready', protocol=9, version='{STEERING}', incoming='/'); time.sleep(60)"))
    steps = [what for what, _, _ in told.steps]
    for text in (*told.lines, *steps, str(refused.value), str(missing.value), str(version.value)):
        assert text.isprintable(), text
    assert any(line.endswith("gnp log") for line in told.lines)
    assert any(what.endswith("gnp s") for what in steps)
    assert "gnp refused" in str(refused.value)
    assert "gnp doctor" in str(missing.value)


def test_a_disk_that_is_too_small_is_seen_before_anything_is_sent(there, impostor, tmp_path):
    agent = (
        f"say(type='ready', protocol=2, version='1', incoming={str(tmp_path)!r}); need = hear()\n"
        "say(type='missing', sha256=[file['sha256'] for file in need['files']], free=10); time.sleep(60)"
    )
    with pytest.raises(DeviceUnavailableError, match=r"sending 5 of 5 files.*0\.0 MB free; make room there"):
        there(impostor(agent))


RECORD = b'{"schema": 1}'


@pytest.mark.parametrize(
    ("prepare", "name", "size", "words"),
    [
        ("os.mkfifo(path)", "results/stdout", len(RECORD), "is not a file of 13 bytes"),
        ("os.symlink('/dev/zero', path)", "results/stdout", len(RECORD), "is not a file of 13 bytes"),
        ("os.mkdir(path)", "results/stdout", len(RECORD), "is not a file of 13 bytes"),
        ("open(path, 'wb').write(bytes(99))", "results/stdout", len(RECORD), "is not a file of 13 bytes"),
        (f"open(path, 'wb').write({RECORD!r})", "results/stdout", 1 << 40, "is no result"),
        ("open(path, 'wb').write(bytes(13))", "results/stdout", len(RECORD), "was changed on its way"),
        (f"open(path, 'wb').write({RECORD!r})", "results/boxes.csv", len(RECORD), "was not asked for"),
        (f"open(path, 'wb').write({RECORD!r})", "runs/.bashrc", len(RECORD), "it said nothing"),
        (f"open(path, 'wb').write({RECORD!r})", "runs/a/../../b.json", len(RECORD), "which is no reply"),
        (f"open(path, 'wb').write({RECORD!r})", "/etc/passwd", len(RECORD), "which is no reply"),
    ],
)
def test_what_is_no_result_is_neither_waited_for_nor_read_nor_written(
    there, impostor, tmp_path, prepare, name, size, words
):
    digest = hashlib.sha256(RECORD).hexdigest()
    agent = (
        f"greet(); root = {str(tmp_path / 'job')!r}; path = os.path.join(root, {name!r})\n"
        f"'..' in path or path[:4] == '/etc' or (os.makedirs(os.path.dirname(path)), {prepare})\n"
        f"say(type='done', code=0, folder=root, files={{{name!r}: {{'size': {size}, 'sha256': {digest!r}}}}})\n"
        "while hear()['type'] != 'clean': pass"
    )
    runs = JobOutput("runs", tmp_path / "here", re.compile(".*"))
    with pytest.raises(EdgetrackError, match=words):
        there(impostor(agent), outputs=[runs]).record(BenchRecord)
    assert not (tmp_path / "here").exists()


def test_when_one_of_two_files_is_broken_neither_is_written(there, impostor, tmp_path):
    """What a device sends is written when all of it has come."""
    digest = hashlib.sha256(RECORD).hexdigest()
    agent = (
        f"greet(); root = {str(tmp_path / 'job')!r}; os.makedirs(root + '/runs')\n"
        f"open(root + '/runs/a.json', 'wb').write({RECORD!r}); open(root + '/runs/b.json', 'wb').write(bytes(13))\n"
        f"info = {{'size': 13, 'sha256': {digest!r}}}\n"
        "say(type='done', code=0, folder=root, files={'runs/a.json': info, 'runs/b.json': info}); time.sleep(60)"
    )
    runs = JobOutput("runs", tmp_path / "here", re.compile(".*"))
    with pytest.raises(WorkerError, match=r"b\.json was changed"):
        there(impostor(agent), outputs=[runs])
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("data", [b"[1]", b"\xff", b"[" * 100_000, b'{"schema": 1}', b'{"a": 1e999}'])
def test_what_is_no_record_is_an_error(data):
    with pytest.raises(EdgetrackError, match="not the expected record"):
        DeviceResult(0, data, [], "orin").record(BenchRecord)


def test_a_verb_that_printed_nothing_ends_as_it_did_there():
    with pytest.raises(DeviceUnavailableError, match="on orin: loading; edgetrack: no GPU"):
        DeviceResult(4, b"", ["loading", "edgetrack: no GPU"], "orin").record(BenchRecord)
    with pytest.raises(UsageError, match="on orin: it said nothing"):
        DeviceResult(2, b"1,2,3,4", [], "orin").check()


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
