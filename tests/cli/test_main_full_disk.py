"""A disk that is full, and a limit on the size of files, for everything that a verb writes: one line, nothing half."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetrack.errors import EdgetrackError
from tests.builders import pack_parts, write_pack, write_scripted
from tests.report.conftest import benchmark, contestant, write

CLIP = "synthetic:drift?frames=4&size=96x64"
FULL = Path("/dev/full")
Edgetrack = Callable[..., "subprocess.CompletedProcess[str]"]
BENCH = [
    "bench", "a", "--no-reference", "--duration", "0", "--iterations", "2", "--rounds", "1", "--warmup", "0",
    "--source", CLIP,
]  # fmt: skip

pytestmark = pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full here")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two bundles, a budget, a record, a training pack, and links to /dev/full for each ending."""
    for name in "ab":
        write_scripted(tmp_path / name)
    (tmp_path / "budget.toml").write_text('schema = 1\nname = "size"\n[limits]\nsize_mb = 9\n')
    write(tmp_path / "bench.json", benchmark(contestant("smat-openvino-fp32", 20.0)))
    write_pack(tmp_path / "pack.tar", *pack_parts())
    for suffix in ("json", "html", "toml", "xml"):
        (tmp_path / f"full.{suffix}").symlink_to(FULL)
    return tmp_path


@pytest.fixture
def run(place: Path) -> Edgetrack:
    """run(arguments, limit=100) is `edgetrack ARGUMENTS...` there, whose files may not grow beyond `limit` bytes."""

    def call(*arguments: str, limit: int = 0, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        code = "import resource, runpy, sys; n = int(sys.argv.pop(1)); n and "
        code += "resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); runpy.run_module('edgetrack', run_name='__main__')"
        return subprocess.run(
            [sys.executable, "-c", code, str(limit), *arguments],
            cwd=place,
            env={**os.environ, "EDGETRACK_CACHE": "off"},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )

    return call


def one_line(done: subprocess.CompletedProcess[str], words: str) -> None:
    """Beside progress, stderr holds one line, which says what is wrong."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("edgetrack: "))
    assert words in line
    assert line == done.stderr.splitlines()[-1]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "verb",
    [
        [*BENCH, "-o", "full.json"],
        ["check", "a", "--budget", "budget.toml", "-o", "full.json"],
        ["check", "a", "--budget", "budget.toml", "--junit", "full.xml"],
        ["eval", "a", CLIP, "-o", "full.json"],
        ["compare", "a", "b", "--dataset", CLIP, "-o", "full.json"],
        ["report", "bench.json", "-o", "full.html"],
        ["calibrate", "collect", "a", CLIP, "-o", "full.toml", "--calib-size", "2"],
    ],
    ids=lambda verb: f"{verb[0]} {verb[-1]}",
)
def test_an_output_on_a_full_disk_is_one_line(run: Edgetrack, place: Path, verb: list[str]) -> None:
    one_line(run(*verb), "No space left on device")
    assert FULL.is_char_device()
    assert (place / verb[verb.index("-o" if "-o" in verb else "--junit") + 1]).is_symlink()


@pytest.mark.parametrize("verb", [["track", "a", CLIP], ["eval", "a", CLIP, "--json"], ["inspect", "a", "--json"]])
def test_a_full_disk_behind_stdout_is_one_line(run: Edgetrack, verb: list[str]) -> None:
    with FULL.open("w") as full:
        one_line(run(*verb, stdout=full.fileno()), "No space left on device")


@pytest.mark.parametrize(
    ("verb", "left"),
    [
        (["track", "a", CLIP, "-o", "boxes.csv"], {"boxes.csv.partial"}),
        (["track", "a", CLIP, "--video", "boxes.avi"], set()),
        (["pack", "a", "-o", "a.zip"], set()),
        (["eval", "a", CLIP, "-o", "runs"], set()),
        (["compare", "a", "b", "--dataset", CLIP, "-o", "compared"], set()),
        ([*BENCH, "-o", "out.json"], set()),
        (["report", "bench.json", "-o", "page.html"], set()),
        (["calibrate", "collect", "a", CLIP, "-o", "set.toml", "--calib-size", "2"], set()),
        (["train", "smat", "--data", "pack.tar", "--out", "trained", "--phase", "64:1", "--batch", "2", "--workers",
          "0", "--threads", "1", "--held-out", "0", "--device", "cpu", "--precision", "fp32"], set()),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:-1]) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_limit_on_the_size_of_files_is_one_line_and_leaves_nothing_half(
    run: Edgetrack, place: Path, verb: list[str], left: set[str]
) -> None:
    before = files(place)
    one_line(run(*verb, limit=60), "")
    assert files(place) - before == left


@pytest.mark.full
@pytest.mark.parametrize("target", ["onnx", "openvino", "torch", "coreml", "tensorrt"])
def test_an_export_to_any_target_leaves_nothing(run: Edgetrack, place: Path, target: str) -> None:
    before = files(place)
    arguments = ["export", "nanotrack_v2", "--weights", "untrained", "--target", target, "-o", "bundle"]
    one_line(run(*arguments, limit=500_000), "")
    assert files(place) == before


def test_a_graph_that_openvino_cannot_write_whole_is_named(tmp_path: Path) -> None:
    """Its streams say `basic_ios::clear: iostream error`, and no errno."""
    from edgetrack.exporting.targets.openvino import _save
    from edgetrack.runtime.backends.openvino.backend import import_openvino
    from tests.media.test_writers import limited

    openvino = import_openvino()
    ops = openvino.opset13
    given = ops.parameter([1, 200], np.float32)
    weights = np.random.Generator(np.random.PCG64(0)).normal(size=(200, 200)).astype(np.float32)
    model = openvino.Model([ops.matmul(given, ops.constant(weights), False, False)], [given], "m")
    with pytest.raises(EdgetrackError, match=r"step\.xml cannot be written to .*: the disk is probably full, or files"):
        limited(10_000, lambda: _save(openvino, model, tmp_path / "step.xml", half=False))
