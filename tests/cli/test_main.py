"""The command as a whole: help, version, exit codes, and what it does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import write_scripted

HEAVY = ("numpy", "cv2", "torch", "onnx", "onnxruntime", "openvino", "scipy", "safetensors")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edgetrack.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.rstrip().endswith("LOADED []")


@pytest.mark.parametrize(
    "verb", ["export", "track", "bench", "eval", "train", "verify", "inspect", "list", "pack", "unpack", "doctor"]
)
def test_every_verb_explains_itself(inside, verb: str) -> None:
    done = inside(verb, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout
    assert verb in done.stdout


def test_version_is_the_packages(run) -> None:
    import edgetrack

    assert run("--version").stdout.strip() == f"edgetrack {edgetrack.__version__}"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["frob"], 2, "No such command"),
        (["verify", "no-such-bundle"], 2, "edgetrack export"),
        (["export", "no-such-tracker"], 2, "tracker 'no-such-tracker' is not known; expected one of: "),
        (["export", "smat", "--target", "toaster"], 2, "expected one of: openvino, onnx, tensorrt, coreml, torch"),
        (["export", "smat", "--precision", "int4"], 2, "expected one of: fp32"),
        (["export", "smat", "--opset", "9", "--dry-run"], 2, "expected 17 or 18"),
        (["export", "smat", "--atol", "nan", "--dry-run"], 2, "finite"),
        (["export", "smat", "--weights", "no-such-file.pth"], 1, "no-such-file.pth"),
        (["track", "smat-openvino-fp32", "no-such-video.mp4"], 2, "no-such-video.mp4"),
        (["track", "smat-openvino-fp32", "synthetic:nope"], 2, "drift"),
        (["track", "smat-openvino-fp32", "synthetic:drift", "--box", "1,2,3"], 2, "x,y,w,h"),
        (["track", "smat-openvino-fp32", "synthetic:drift", "--box", "5000,5000,9,9"], 2, "outside the frame"),
        (["track", "smat-openvino-fp32", "synthetic:drift", "--device", "cuda:0"], 4, "--device cpu"),
        (["track", "smat-openvino-fp32", "synthetic:drift", "--threads", "0"], 2, "1 or more"),
    ],
)
def test_wrong_input_is_one_clear_line_and_the_right_exit_code(inside, arguments, code: int, words: str) -> None:
    done = inside(*arguments)
    assert done.exit_code == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_wrong_input_ends_a_process_with_that_code_and_line(run) -> None:
    done = run("verify", "no-such-bundle")
    assert (done.returncode, done.stdout, done.stderr.count("Traceback")) == (2, "", 0)
    assert done.stderr.startswith("edgetrack: ")


def _edgetrack(*arguments: str, **streams: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "edgetrack", *arguments], text=True, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("verb", [("list", "--targets"), ("list", "--trackers", "--json")])
def test_a_full_disk_behind_stdout_is_one_line(verb: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full, _edgetrack(*verb, stdout=full, stderr=subprocess.PIPE) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told == "edgetrack: No space left on device\n"


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with _edgetrack("list", "--targets", stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (141, "")


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams_are_no_error(closed: int) -> None:
    program = (
        f"import os, runpy, sys; os.close({closed}); os.execv(sys.executable, "
        "[sys.executable, '-m', 'edgetrack', 'list', '--targets'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


def test_no_temporary_folder_is_one_line(tmp_path: Path) -> None:
    bundle = write_scripted(tmp_path / "a")
    code = (
        "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/none']; "
        f"sys.argv[1:] = ['bench', {str(bundle)!r}, '--no-reference']; from edgetrack.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("edgetrack: no temporary folder can be made: ")
    assert "set TMPDIR" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="address space is not limited elsewhere")
def test_little_memory_is_one_line(tmp_path: Path) -> None:
    bundle = write_scripted(tmp_path / "a")
    # Everything is imported before the limit: what is tested is how a verb ends, not how NumPy's import does.
    code = (
        "import sys, resource, numpy, cv2, edgetrack.evaluation.run, edgetrack.tracking, edgetrack.media.scenes; "
        "from edgetrack.cli.main import main; used = int(open('/proc/self/statm').read().split()[0]) * 4096; "
        "resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20),) * 2); "
        f"sys.argv[1:] = ['track', {str(bundle)!r}, 'synthetic:drift?size=8000x8000&frames=2', '--json']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "not enough memory" in done.stderr
