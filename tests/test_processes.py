from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from edgetrack import __version__
from edgetrack.benchmark import protocol
from edgetrack.benchmark.protocol import Memory, PeakMemory, Rate, WorkerProcess
from edgetrack.devices import agent, remote
from edgetrack.errors import BundleError, WorkerError
from edgetrack.exporting import isolated
from edgetrack.processes import exit_reason, module_arguments, python_command, thread_environ
from edgetrack.resources import THREAD_VARIABLES
from tests.benchmark.conftest import real_worker

__all__ = ["real_worker"]


def program(code):
    return [sys.executable, "-S", "-c", code]


ANSWER = "import sys\nfor line in sys.stdin: print('{}', flush=True)"


def test_a_request_gets_its_answer(real_worker):
    worker = real_worker(program(ANSWER.format('{"type":"peak","peak_rss_mb":7.5}')))
    assert worker.ask(Memory(1), PeakMemory, 60).peak_rss_mb == 7.5
    assert worker.ask(Memory(1), PeakMemory, 60).peak_rss_mb == 7.5


def test_an_error_keeps_its_class_and_the_worker_stays_usable(real_worker):
    worker = real_worker(program(ANSWER.format('{"type":"failure","error":"BundleError","message":"damaged"}')))
    for _ in range(2):
        with pytest.raises(BundleError, match="damaged"):
            worker.ask(Memory(1), PeakMemory, 60)


@pytest.mark.parametrize("name", ["ValueError", "annotations", "ClassVar", "no such name"])
def test_an_error_of_any_other_class_is_the_workers(real_worker, name):
    worker = real_worker(program(ANSWER.format(f'{{"type":"failure","error":"{name}","message":"odd"}}')))
    with pytest.raises(WorkerError, match=f"{name}: odd"):
        worker.ask(Memory(1), PeakMemory, 60)


def test_a_dead_worker_is_reported_with_its_last_words(real_worker):
    worker = real_worker(program("import sys; sys.stdin.readline(); sys.exit('out of luck')"))
    with pytest.raises(WorkerError, match=r"exit code 1.*out of luck"):
        worker.ask(Memory(1), PeakMemory, 60)
    with pytest.raises(WorkerError, match="after it had failed"):
        worker.ask(Memory(1), PeakMemory, 60)


def test_a_killed_worker_is_reported_by_the_signal(real_worker):
    worker = real_worker(program("import sys; sys.stdin.read()"))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="killed by SIGKILL"):
        worker.ask(Memory(1), PeakMemory, 60)


def test_a_hanging_worker_is_given_up_and_killed(real_worker):
    worker = real_worker(program("import signal, threading; threading.Event().wait()"))
    with pytest.raises(WorkerError, match="--timeout"):
        worker.ask(Memory(1), PeakMemory, 0.05)
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


@pytest.mark.parametrize("line", ["hello", "{}", '{"type":"peak","peak_rss_mb":"much"}', "\\x00\\xff"])
def test_a_line_that_is_no_reply_breaks_the_protocol(real_worker, line):
    worker = real_worker(program(ANSWER.format(line)))
    with pytest.raises(WorkerError, match="broke its protocol"):
        worker.ask(Memory(1), PeakMemory, 60)


def test_a_reply_to_something_else_breaks_the_protocol(real_worker):
    worker = real_worker(program(ANSWER.format('{"type":"peak","peak_rss_mb":7.5}')))
    with pytest.raises(WorkerError, match="answered Memory with PeakMemory"):
        worker.ask(Memory(1), Rate, 60)


def test_a_line_without_end_is_refused(real_worker):
    endless = program("import sys\nsys.stdin.readline()\nwhile True: sys.stdout.write('x' * 4096)")
    worker = real_worker(endless, longest_line=1000)
    with pytest.raises(WorkerError, match="broke its protocol: a line"):
        worker.ask(Memory(1), PeakMemory, 60)


def test_closing_twice_is_safe(real_worker):
    worker = real_worker(program("import sys; sys.stdin.read()"))
    worker.close()
    worker.close()


@pytest.mark.parametrize(("busy", "rested"), [(0, True), (3, True), (100, False)])
def test_it_is_idle_once_processor_time_stands_still(real_worker, monkeypatch, busy, rested):
    slept = []
    monkeypatch.setattr(
        psutil.Process, "cpu_times", lambda self: SimpleNamespace(user=0.05 * min(len(slept), busy), system=0.0)
    )
    worker = WorkerProcess(program("import sys; sys.stdin.read()"), {}, sleep=slept.append)
    try:
        assert worker.wait_idle() is rested
        assert len(slept) == min(busy + 1, 40)
    finally:
        worker.close()


def test_a_dead_worker_is_idle(real_worker):
    worker = real_worker(program("pass"))
    worker.close()
    assert worker.wait_idle()


def test_threads_are_told_to_every_library():
    environ = thread_environ(3)
    assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"} == set(
        THREAD_VARIABLES
    )
    assert {environ[name] for name in THREAD_VARIABLES} == {"3"}
    assert environ["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("code", "stderr", "reason"),
    [
        (3, "", "the process was ended with exit code 3"),
        (-9, "first\nlast\n", "the process was killed by SIGKILL; its last words: last"),
    ],
)
def test_how_a_process_ended(code, stderr, reason):
    assert exit_reason(code, stderr) == reason


SHADOWS = ("inspect", "select", "typing", "runpy", "json", "msgspec", "numpy", "edgetrack")


@pytest.mark.parametrize("flags", [(), ("-P",), ("-I",)])
def test_a_script_of_the_current_folder_is_not_imported(tmp_path, flags):
    if sys.version_info < (3, 11) and flags == ("-P",):
        pytest.skip("there is no -P")
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)\n")
    program, *arguments = python_command("edgetrack", "--version")
    done = subprocess.run([program, *flags, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    if flags == ("-I",) and "No module named" in done.stderr:
        pytest.skip("edgetrack is found through PYTHONPATH here")
    assert (done.returncode, done.stdout) == (0, f"edgetrack {__version__}\n"), done.stderr


def test_everything_that_starts_python_does_so_in_one_way(tmp_path):
    for command in (protocol.COMMAND, isolated.COMMAND, agent.VERB_COMMAND):
        assert command[:3] == python_command("x")[:3]
    for arguments in (remote._DOCTOR, remote._AGENT):
        assert arguments[:2] == module_arguments("x")[:2]


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not end children with their parent")
def test_a_process_ends_with_a_parent_that_is_killed():
    code = (
        "import subprocess, time; from edgetrack.processes import python_command; p = "
        "subprocess.Popen(python_command('http.server', '--bind', '127.0.0.1', '0'), "
        "stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={'PYTHONUNBUFFERED': '1'}); p.stdout.readline(); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
