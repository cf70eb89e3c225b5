"""The agent alone, on pipes, with programs in place of the benchmark."""

from __future__ import annotations

import hashlib
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
    OUTPUT,
    AgentReady,
    Beat,
    Clean,
    MissingFiles,
    NeededFiles,
    PlacedFiles,
    Refused,
    VerbDone,
    VerbJob,
    VerbLog,
    VerbStep,
)
from edgetrack.devices.ssh import command_line
from edgetrack.errors import BundleIntegrityError, EdgetrackError, WorkerError
from edgetrack.io import encode_line

DATA = b"a graph"
INFO = FileInfo(size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
DATA_NAME = "d" * 64
PLACE = PlacedFiles(DATA_NAME, {"tiny/step.onnx": INFO})
RUN = VerbJob("bench", [], [OUTPUT])


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


SAYS = "import sys; sys.stderr.write('0.1 s: 2/3 measuring\\nmeasured\\n'); print(*sys.argv[1:])"


def test_a_whole_conversation(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    outputs = []
    seen = talk(
        NeededFiles([INFO]),
        Beat(),
        PLACE,
        VerbJob("track", ["--threads=1", "--", "tiny"], [OUTPUT]),
        program=SAYS,
        last=VerbDone,
        then=[lambda done: outputs.append(Path(done.folder, OUTPUT).read_bytes())],
    )
    assert isinstance(seen[0], AgentReady)
    assert isinstance(seen[1], MissingFiles)
    assert seen[1].sha256 == [INFO.sha256]
    assert seen[1].free > 0
    assert [one for one in seen if isinstance(one, VerbStep | VerbLog)][-2:] == [
        VerbStep("measuring", 2, 3),
        VerbLog("measured"),
    ]
    assert seen[-1].code == 0
    assert outputs == [b"track --verbose --threads=1 -- tiny\n"]
    assert hashlib.sha256(outputs[0]).hexdigest() == seen[-1].files[OUTPUT].sha256
    assert list(store.jobs.iterdir()) == []
    assert (store.files / INFO.sha256).read_bytes() == DATA


KEEPS = (
    "import os; os.makedirs('out/eval', exist_ok=True); print(sorted(os.listdir('out/eval')), os.listdir('tiny'))\n"
    "open('out/eval/.half.part', 'w'); open('out/eval/a.json', 'w'); os.symlink('/etc/passwd', 'out/eval/link')"
)


def test_what_a_job_keeps_is_there_for_the_next_on_the_same_data_and_for_no_other(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    printed = []
    run = VerbJob("eval", [], [OUTPUT, "out/eval", "out/not-there"])
    for data in (DATA_NAME, "e" * 64, DATA_NAME):
        seen = talk(
            PlacedFiles(data, PLACE.files),
            run,
            program=KEEPS.replace("os.symlink", "os.path.islink('out/eval/link') or os.symlink"),
            last=VerbDone,
            then=[lambda done: printed.append(Path(done.folder, OUTPUT).read_text())],
        )
        assert list(seen[-1].files) == [OUTPUT, "out/eval/a.json"]
    assert ["a.json" in text for text in printed] == [False, False, True]
    assert sorted(p.relative_to(store.jobs / data).as_posix() for p in (store.jobs / data).iterdir()) == ["out"]


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
    replies = talk(PLACE, RUN, program=program, hang_up=hang_up, patience_s=3.0)
    assert [type(reply) for reply in replies] == [AgentReady]
    for pid in map(int, pids.read_text().split() if pids.exists() else []):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert list(store.jobs.iterdir()) == []


def test_an_upload_that_is_not_what_it_should_be(store, talk):
    (store.incoming / INFO.sha256).write_bytes(b"b graph")
    (*_, refused) = talk(PLACE, RUN)
    assert refused.error == "BundleIntegrityError"
    assert list(store.incoming.iterdir()) == []
    assert list(store.jobs.iterdir()) == []


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


def test_a_verb_without_a_file_that_was_wanted_says_how_it_ended(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    program = (
        "import os, sys; os.mkfifo('results/boxes.csv'); os.remove('results/stdout')\n"
        "sys.stderr.write('edgetrack: no such device\\n'); sys.exit(4)"
    )
    seen = talk(PLACE, VerbJob("track", [], [OUTPUT, "results/boxes.csv"]), program=program, last=VerbDone)
    assert seen[-2] == VerbLog("edgetrack: no such device")
    assert (seen[-1].code, seen[-1].files) == (4, {})


def test_a_verb_without_a_bundle_is_refused(talk):
    (_, refused) = talk(RUN)
    assert "placed no file" in refused.message


def test_a_program_that_changes_its_input_changes_it_for_no_later_job(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    program = "open('tiny/step.onnx', 'r+b').write(b'evil')"
    talk(PLACE, RUN, program=program, last=VerbDone)
    (*_, refused) = talk(PLACE, RUN, program=program)
    assert (refused.error, "changed" in refused.message) == ("BundleIntegrityError", True)


@pytest.mark.parametrize(
    "line",
    [
        b"rubbish\n",
        b"\xff\n",
        b'{"type":"run","verb":"export","arguments":[],"wanted":[]}\n',
        b'{"type":"run","verb":"eval; reboot","arguments":[],"wanted":[]}\n',
        b'{"type":"run","verb":"bench","arguments":["a\\u0000b"],"wanted":[]}\n',
        b'{"type":"run","verb":"bench","arguments":[],"wanted":["../../etc"]}\n',
        b'{"type":"place","data":"../x","files":{}}\n',
        b'{"type":"need","files":[{"size":1,"sha256":"../../etc/passwd"}]}\n',
    ],
)
def test_hostile_requests_are_refused(talk, line):
    ready, refused = talk(line)
    assert isinstance(ready, AgentReady)
    assert isinstance(refused, Refused)


@pytest.mark.parametrize("path", ["", "../x", "/etc/passwd", "a/../../x", "a/..", ".", "a//b", "a/", "a\n", "a\x00"])
def test_no_file_leaves_the_jobs_folder(path):
    line = encode_line(PlacedFiles(DATA_NAME, {path: INFO}))
    with pytest.raises(EdgetrackError, match="no request"):
        protocol.decode_request(line)
    with pytest.raises(WorkerError, match="no reply"):
        protocol.decode_reply(encode_line(VerbDone(0, "/x", {path: INFO})))


@pytest.mark.parametrize("path", ["a b/\u00fc'\"$(x)", "...", "a/..b", "-x"])
def test_other_names_are_taken_as_they_are(path):
    assert protocol.decode_request(encode_line(PlacedFiles(DATA_NAME, {path: INFO}))).files == {path: INFO}


def test_one_job_at_a_time(store, talk):
    (store.incoming / INFO.sha256).write_bytes(DATA)
    with store.job_folder(DATA_NAME):
        (_, refused) = talk(PLACE, RUN)
    assert (refused.error, "another workstation" in refused.message) == ("DeviceUnavailableError", True)
    assert isinstance(talk(PLACE, RUN, program=SAYS, last=VerbDone)[-1], VerbDone)


def test_what_was_not_used_for_long_is_swept(store):
    for name, age_s in {"old": 1_000_000, "new": 10}.items():
        (store.incoming / name).write_bytes(b"part")
        (store.jobs / name / "out").mkdir(parents=True)
        then = time.time() - age_s
        os.utime(store.incoming / name, (then, then))
        os.utime(store.jobs / name, (then - 2_000_000 * (name == "old"),) * 2)
    store.sweep()
    assert [path.name for path in store.incoming.iterdir()] == ["new"]
    assert [path.name for path in store.jobs.iterdir()] == ["new"]


def test_what_an_agent_left_that_was_killed_is_removed_by_the_next_job(store):
    left = store.jobs / ("a" * 64)
    for name in ("tiny", "results", "out"):
        (left / name).mkdir(parents=True)
    with store.job_folder(DATA_NAME) as folder:
        assert list(folder.iterdir()) == []
        assert [path.name for path in left.iterdir()] == ["out"]
    assert [path.name for path in store.jobs.iterdir()] == ["a" * 64]


def test_what_is_no_reply_is_an_error_that_says_so():
    with pytest.raises(WorkerError, match="Welcome"):
        protocol.decode_reply(b"Welcome to Ubuntu!\n")


@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_a_shell_takes_a_command_apart_into_the_same_words(words):
    program = ["/usr/bin/env", "printf", "%s\\0", *words]
    done = subprocess.run(["/bin/sh", "-c", command_line(program)], capture_output=True, check=True)
    assert done.stdout == "".join(f"{word}\0" for word in words).encode()
