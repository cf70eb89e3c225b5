"""What tests of several packages share: the reference files beside the repository and exported bundles."""

from __future__ import annotations

import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

from tests.builders import as_toml, tiny_tables

# FFmpeg's log level holds from its first use in a process on, which may be a test's own.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# A slow machine is no failure, and a change is not blamed for an example that nobody had met before: `make test` takes
# the same ones each time, `make test-full` goes looking for others.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Give each xdist worker a core of its own: backends take all they may use, and two at once slow one another.

    A shell ignores Ctrl-C in what it starts with `&`; tests that send it would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one that begins last leaves the other worker idle.

    xdist keeps a file's tests on one worker, so that what they share is made once, and must not sort the files by their
    numbers of tests: the Makefile's `--dist loadfile --no-loadscope-reorder`.
    """
    long = {item.location[0] for item in items if item.get_closest_marker("timeout") or item.get_closest_marker("long")}
    items.sort(key=lambda item: item.location[0] not in long)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """made_once("name", make) -> what `make(path)` wrote, all or nothing, made by the first worker that asks."""
    base = tmp_path_factory.getbasetemp()
    # xdist gives each worker a folder in the run's own.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once"

    def once(name: str, make: Callable[[Path], None]) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not the name of the lock that a bundle is written under: that one is taken inside.
        with FileLock(path.with_name(f".{path.name}.made-once")):
            if not path.exists():
                make(path)
        return path

    return once


PILOT_FILE = "data/smat_pilot/MobileViTv2_Track_pilot.pth.tar"


class Golden(NamedTuple):
    """A file of golden arrays and what it says of itself."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def group(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays under `prefix/`, by the rest of their names."""
        return {key.removeprefix(f"{prefix}/"): a for key, a in self.arrays.items() if key.startswith(f"{prefix}/")}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large reference files beside the repository; tests that need it are skipped without it."""
    folder = Path(os.environ.get("EDGETRACK_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"REFERENCE FILES ABSENT: no folder {folder} (set EDGETRACK_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Golden]:
    """golden("smat") -> the arrays of shared/golden/smat.npz and its meta entry."""

    @cache
    def read(name: str) -> Golden:
        path = shared / "golden" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"REFERENCE FILES ABSENT: no file {path}")
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files}
        return Golden(arrays, json.loads(str(arrays.pop("meta"))))

    return read


@pytest.fixture(scope="session")
def pilot_weights(shared: Path) -> Path:
    """A checkpoint in the official format, trained."""
    path = shared / PILOT_FILE
    if not path.is_file():
        pytest.skip(f"REFERENCE FILES ABSENT: no file {path}")
    return path


@pytest.fixture(scope="session")
def synthetic_image() -> NDArray[np.uint8]:
    """The golden files' synthetic image: uint8 (240, 320, 3) RGB, blocks of 8x8 pixels."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(b"image:synthetic")))
    blocks = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = blocks.repeat(8, axis=0).repeat(8, axis=1)
    assert int(image.sum(dtype=np.int64)) == 29262784
    return image


def export_quietly(
    tracker: str,
    target: str,
    weights: str,
    output: Path,
    sources: tuple[str, ...],
    moments: tuple[int, ...],
    batch: int = 1,
) -> None:
    """Export with one thread, since two that wait for one another on busy cores take many times as long.

    What parity is shown on is always set: the test that happens to ask first may have patched its own.
    """
    import torch

    from edgetrack.exporting.pipeline import ExportRequest, export

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgetrack.exporting.pipeline.usable_cores", lambda: 1)
        patch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", sources)
        patch.setattr("edgetrack.exporting.parity.MOMENTS", moments)
        export(ExportRequest(tracker, target, weights=weights, output=output, batch=batch))


@pytest.fixture(scope="session")
def exported(made_once: Callable[..., Path]) -> Callable[..., Path]:
    """exported("onnx") -> a bundle of SMAT, untrained or with given weights, exported once a run; not to be changed.

    Another tracker's with tracker="name".
    """
    from edgetrack.exporting.parity import DEFAULT_SOURCES, MOMENTS

    @cache
    def make(target: str, weights: str = "untrained", tracker: str = "smat") -> Path:
        # Trained bundles get a short proof: whole sequences hold them against the official boxes.
        short = weights != "untrained"
        sources, moments = (("synthetic:drift?frames=2",), (1,)) if short else (DEFAULT_SOURCES, MOMENTS)
        kind = f"trained-{zlib.crc32(weights.encode()):08x}" if short else weights
        return made_once(
            f"{kind}/{tracker}-{target}-fp32",
            lambda output: export_quietly(tracker, target, weights, output, sources, moments),
        )

    return make


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_recipe("dmtrack", memory="bounded:4") -> a recipe of a small configuration, some of its values changed."""

    @cache
    def write(tracker: str, **procedure: Any) -> Path:
        path = tmp_path_factory.mktemp("tiny") / f"{tracker}.toml"
        path.write_text(as_toml(tiny_tables(tracker, procedure)))
        return path

    return write


@pytest.fixture(scope="session")
def exported_tiny(made_once: Callable[..., Path], tiny_recipe: Callable[..., Path]) -> Callable[..., Path]:
    """exported_tiny("dmtrack", "onnx", schedule="nearest:3") -> a small configuration's bundle; not to be changed."""

    @cache
    def make(tracker: str, target: str, **procedure: Any) -> Path:
        kind = "-".join(f"{key}={value}" for key, value in sorted(procedure.items())).replace("/", "_") or "tiny"
        return made_once(
            f"{kind}/{tracker}-{target}-fp32",
            lambda output: export_quietly(
                str(tiny_recipe(tracker, **procedure)),
                target,
                "untrained",
                output,
                ("synthetic:drift?frames=7",),
                (1, 6),
            ),
        )

    return make


@pytest.fixture(autouse=True, scope="session")
def _int8_onnx_opens_on_arm() -> Iterator[None]:
    """Open every INT8 ONNX file that a test makes as ONNX Runtime does outside x86-64, with activations of int8."""
    from edgetrack.exporting.targets.onnx import OnnxExporter

    plain = OnnxExporter.lower

    def lower(self: Any, path: Path, lowering: Any) -> Any:
        import onnxruntime

        found = plain(self, path, lowering)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        if lowering.precision == "int8":
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxExporter, "lower", lower)
        yield


@pytest.fixture(scope="session")
def lowered_tiny(
    made_once: Callable[..., Path], exported_tiny: Callable[..., Path], tiny_recipe: Callable[..., Path]
) -> Callable[[str, str, str], Path]:
    """lowered_tiny("dastm", "coreml", "int8") -> what `exported_tiny` gives, lowered; not to be changed."""
    from edgetrack.exporting.pipeline import ExportRequest, plan
    from edgetrack.quantization.lower import LoweringRequest, lower

    def make(tracker: str, target: str, precision: str) -> Path:
        full = exported_tiny(tracker, target)

        def write(output: Path) -> None:
            recipe = str(tiny_recipe(tracker))
            request = ExportRequest(recipe, target, precision, weights="untrained", output=output)
            lower(full, plan(request), LoweringRequest(), lambda line: None)

        return full if precision == "fp32" else made_once(f"tiny/{tracker}-{target}-{precision}", write)

    return make
