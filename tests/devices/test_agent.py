"""The agent alone, on pipes, with programs in place of the benchmark."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.bundle.manifest import FileInfo
from edgetrack.devices import protocol
from edgetrack.devices.agent import Agent, Store
from edgetrack.devices.protocol import (
    AgentReady,
    Beat,
    BenchDone,
    BenchJob,
    BenchLog,
    Clean,
    MissingFiles,
    NeededFiles,
    Refused,
    SentBundle,
)
from edgetrack.devices.remote import read_record
from edgetrack.devices.ssh import command_line
from edgetrack.errors import BundleIntegrityError, EdgetrackError, WorkerError
from edgetrack.io import encode_line

DATA = b"a graph"
INFO = FileInfo(size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
SENT = SentBundle("tiny", None, {"a/step.onnx": INFO})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def talk(store):
    """talk(*requests) is what an agent answers; `program` is Python that stands for the benchmark.

    The pipe stays open until the agent has said `last`, or, without that, until it ends by itself.
    """

    def call(*requests, program="", last=None, hang_up=False, patience_s=60.0, then=()):
        request_end, our_end = os.pipe()
        answer_end, their_end = os.pipe()
        seen = []
        with (
            os.fdopen(request_end, "rb") as theirs,
            os.fdopen(their_end, "wb") as said,
            os.fdopen(answer_end, "rb") as answers,
            os.fdopen(our_end, "wb") as ours,
        ):
            command = [sys.executable, "-S", "-c", program]
            agent = Agent(theirs, said, store, patience_s=patience_s, command=command)
            thread = threading.Thread(target=lambda: (agent.serve(), said.close()))
            thread.start()
            for request in requests:
                ours.write(request if isinstance(request, bytes) else encode_line(request))
            ours.flush()
            if hang_up:
                ours.close()
            for line in answers:
                seen.append(protocol.decode_reply(line))
                if last is not None and isinstance(seen[-1], last):
                    for action in then:
                        action(seen[-1])
                    ours.write(encode_line(Clean()))
                    ours.flush()
            thread.join(60)
            if not hang_up:
                ours.close()
            agent.reader.join(60)
        return seen

    return call


WRITES = (
    "import sys; words = sys.argv; sys.stderr.write('measuring\\n')\n"
    "open(words[words.index('-o') + 1], 'w').write(' '.join(words[1:]))"
)


def test_a_whole_conversation(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    records = []
    seen = talk(
        NeededFiles([INFO]),
        Beat(),
        BenchJob([SENT], None, ["--threads=1"]),
        program=WRITES,
        last=BenchDone,
        then=[lambda done: records.append(Path(done.record).read_bytes())],
    )
    assert isinstance(seen[0], AgentReady)
    assert seen[1] == MissingFiles([INFO.sha256])
    assert BenchLog("measuring") in seen
    assert seen[-1].code == 0
    (record,) = records
    assert hashlib.sha256(record).hexdigest() == seen[-1].info.sha256
    words = record.decode().split()
    assert words[0] == "--threads=1"
    assert words[-2] == "--"
    assert words[-1].endswith("/tiny")
    assert list(store.runs.iterdir()) == []
    assert (store.files / INFO.sha256).read_bytes() == DATA


@pytest.mark.parametrize("hang_up", [True, False])
def test_when_the_workstation_is_gone_or_silent_all_processes_end(store, talk, tmp_path, hang_up):
    """A process of the benchmark's own, in a session of its own, ends too."""
    (store.incoming / INFO.sha256).write_bytes(DATA)
    pids = tmp_path / "pids"
    program = (
        "import os, subprocess, sys, time\n"
        "rest = [sys.executable, '-S', '-c', 'import time; time.sleep(600)']\n"
        "child = subprocess.Popen(rest, start_new_session=True)\n"
        f"open({str(pids) + '.new'!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids) + '.new'!r}, {str(pids)!r}); time.sleep(600)"
    )
    # Silent for longer than two interpreters take to start; on a machine that is slower still there is less to end.
    replies = talk(BenchJob([SENT], None, []), program=program, hang_up=hang_up, patience_s=3.0)
    assert [type(reply) for reply in replies] == [AgentReady]
    for pid in map(int, pids.read_text().split() if pids.exists() else []):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert list(store.runs.iterdir()) == []


def test_an_upload_that_is_not_what_it_should_be(store, talk):
    (store.incoming / INFO.sha256).write_bytes(b"b graph")
    (*_, refused) = talk(BenchJob([SENT], None, []))
    assert refused.error == "BundleIntegrityError"
    assert list(store.incoming.iterdir()) == []
    assert list(store.runs.iterdir()) == []


def test_a_kept_file_that_was_changed_on_the_device(store):
    (store.files / INFO.sha256).write_bytes(b"b graph")
    assert store.missing([INFO]) == []
    with pytest.raises(BundleIntegrityError, match="changed"):
        store.take(INFO)
    assert store.missing([INFO]) == [INFO.sha256]


def test_a_link_among_the_uploads_is_not_followed(store, tmp_path):
    (tmp_path / "secret").write_bytes(DATA)
    (store.incoming / INFO.sha256).symlink_to(tmp_path / "secret")
    with pytest.raises(BundleIntegrityError, match="did not reach"):
        store.take(INFO)


def test_a_fifo_in_place_of_the_record_is_none(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    program = "import os, sys; words = sys.argv; os.mkfifo(words[words.index('-o') + 1])"
    assert talk(BenchJob([SENT], None, []), program=program, last=BenchDone)[-1] == BenchDone(0, None, None)


def test_a_benchmark_without_a_record_says_how_it_ended(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    program = "import sys; sys.stderr.write('edgetrack: no such device\\n'); sys.exit(4)"
    seen = talk(BenchJob([SENT], None, []), program=program, last=BenchDone)
    assert seen[1:] == [BenchLog("edgetrack: no such device"), BenchDone(4, None, None)]


@pytest.mark.parametrize(
    "line",
    [
        b"rubbish\n",
        b"\xff\n",
        b'{"type":"bench","bundles":[{"name":"../x","hint":null,"files":{}}],"reference":null,"options":[]}\n',
        b'{"type":"bench","bundles":[{"name":"x","hint":"$(x)","files":{}}],"reference":null,"options":[]}\n',
        b'{"type":"bench","bundles":[{"name":"-x","hint":null,"files":{}}],"reference":null,"options":[]}\n',
        b'{"type":"bench","bundles":[],"reference":null,"options":["a\\u0000b"]}\n',
        b'{"type":"need","files":[{"size":1,"sha256":"../../etc/passwd"}]}\n',
    ],
)
def test_hostile_requests_are_refused(talk, line):
    ready, refused = talk(line)
    assert isinstance(ready, AgentReady)
    assert isinstance(refused, Refused)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ".hidden", "a//b", "a\n"])
def test_no_file_leaves_the_bundles_folder(path):
    text = json.dumps({"name": "x", "hint": None, "files": {path: {"size": 1, "sha256": "a" * 64}}})
    line = f'{{"type":"bench","bundles":[{text}],"reference":null,"options":[]}}\n'.encode()
    with pytest.raises(EdgetrackError, match="no request"):
        protocol.decode_request(line)


def test_one_benchmark_at_a_time(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    with store.run_folder():
        (_, refused) = talk(BenchJob([SENT], None, []))
    assert (refused.error, "another workstation" in refused.message) == ("DeviceUnavailableError", True)
    assert isinstance(talk(BenchJob([SENT], None, []), program=WRITES, last=BenchDone)[-1], BenchDone)


def test_parts_of_uploads_are_swept_after_a_day(store):
    for name, age_s in {"old": 100_000, "new": 10}.items():
        (store.incoming / name).write_bytes(b"part")
        then = time.time() - age_s
        os.utime(store.incoming / name, (then, then))
    store.sweep()
    assert [path.name for path in store.incoming.iterdir()] == ["new"]


def test_runs_of_agents_that_are_gone_are_swept(store):
    (store.runs / "4194305-x").mkdir()
    (store.runs / f"{os.getpid()}-x").mkdir()
    store.sweep()
    assert [folder.name for folder in store.runs.iterdir()] == [f"{os.getpid()}-x"]


def test_what_is_no_reply_is_an_error_that_says_so():
    with pytest.raises(WorkerError, match="Welcome"):
        protocol.decode_reply(b"Welcome to Ubuntu!\n")


@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b"[" * 100_000, b'{"schema": 1}'])
def test_what_is_no_record_is_an_error(data):
    with pytest.raises(EdgetrackError, match="not a benchmark's record"):
        read_record(data, "what it sent")


@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_a_shell_takes_a_command_apart_into_the_same_words(words):
    program = ["/usr/bin/env", "printf", "%s\\0", *words]
    done = subprocess.run(["/bin/sh", "-c", command_line(program)], capture_output=True, check=True)
    assert done.stdout == "".join(f"{word}\0" for word in words).encode()
