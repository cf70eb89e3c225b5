"""Calibration inputs of every graph as files, for quantizers of other vendors: layout, lists and order as each reads.

What a graph is fed comes from running the tracker (`edgetrack.quantization.replay`), so that a search crop, the
features of its template and what the tracker carries belong together.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import msgspec
import numpy as np

from edgetrack.arrays import Array
from edgetrack.bundle import write_npz
from edgetrack.bundle.manifest import FileInfo, GraphInfo, Sha256
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.io import encode_json, sha256
from edgetrack.quantization.calibration import CalibrationSources
from edgetrack.quantization.replay import SampleOrigin, origins, replay
from edgetrack.runtime.session import Tracker

DumpFormat = Literal["npy", "npz", "rknn", "hailo", "qnn"]
FORMATS: tuple[DumpFormat, ...] = get_args(DumpFormat)
LIST_FILE = "calibration.json"


class DumpedInput(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a graph as it was written.

    Attributes:
        name, dtype, shape: as the graph takes it.
        written_as: its name in the files, where that is another.
        written_dtype, written_shape: of one sample in the files.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    written_as: str
    written_dtype: str
    written_shape: tuple[int, ...]


class DumpedGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A graph's inputs, in the graph's order, and where each sample, in the files' order, comes from."""

    inputs: tuple[DumpedInput, ...]
    samples: tuple[SampleOrigin, ...]


class CalibrationDump(msgspec.Struct, frozen=True, kw_only=True):
    """What `calibration.json` says: bundle, set, graphs with their samples' origins, and every file with its hash."""

    schema: int = 1
    format: DumpFormat
    bundle: str
    weights: str | None
    set: str
    set_sha256: Sha256
    graphs: dict[str, DumpedGraph]
    files: dict[str, FileInfo]


def dump(
    tracker: Tracker,
    sources: CalibrationSources,
    folder: Path,
    kind: DumpFormat,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda what: None,
) -> CalibrationDump:
    """Write what every graph of a tracker is fed on a calibration set; all of it or nothing.

    Args:
        tracker: open, of the bundle whose graphs are to be quantized.
        sources: the set, or what it is collected from.
        folder: to make.
        kind: whose format, see docs/precision.md.
        overwrite: replace a folder that an earlier dump made.
        progress: called with a line of text at the start of every stage.

    Raises:
        UsageError: the folder is taken, or an input's name cannot stand in a list of files.
        CalibrationError, DatasetError: the set cannot be used.
        EdgetrackError: the files cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    # `batch` is `step` again, and is not open.
    infos = [info for info in tracker.manifest.graphs if info.name in tracker.graphs]
    for graph in infos:
        for tensor in graph.inputs:
            if not re.fullmatch(r"\w[\w.-]*", tensor.name, re.ASCII):
                raise UsageError(f"input {tensor.name!r} of graph {graph.name!r} is no name for a file; rename it")
    chosen = sources.choose(tracker.procedure, progress)
    fed = replay(chosen, sources.clips, tracker.procedure, tracker.graphs, progress)
    progress(f"writing {kind}")
    staging = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        graphs = {}
        for info in infos:
            inputs = _write(staging, info, fed[info.name], kind)
            graphs[info.name] = DumpedGraph(inputs=inputs, samples=origins(chosen, info.role))
        made = CalibrationDump(
            format=kind,
            bundle=tracker.manifest.name,
            weights=tracker.manifest.weights.sha256,
            set=chosen.name,
            set_sha256=chosen.sha256,
            graphs=graphs,
            files={
                path.relative_to(staging).as_posix(): FileInfo(size=path.stat().st_size, sha256=sha256(path))
                for path in sorted(staging.rglob("*"))
                if path.is_file()
            },
        )
        (staging / LIST_FILE).write_bytes(encode_json(made, indent=1) + b"\n")
        if folder.exists():
            shutil.rmtree(folder)
        staging.replace(folder)
    except OSError as error:
        raise EdgetrackError(f"{folder} cannot be written: {error.strerror or error}; give another --output") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return made


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse, before anything is computed, a place that is taken; an earlier dump may be replaced.

    Raises:
        UsageError: it is.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise UsageError(f"{folder} exists; give another path, or --overwrite replaces an earlier dump")
    if not (folder / LIST_FILE).is_file():
        raise UsageError(f"{folder} has no {LIST_FILE} and is no earlier dump, which alone --overwrite replaces")


def _write(
    folder: Path, graph: GraphInfo, samples: Sequence[Mapping[str, Array]], kind: DumpFormat
) -> tuple[DumpedInput, ...]:
    """Write a graph's samples; returns its inputs as they were written."""
    names = {info.name: info.name for info in graph.inputs}
    if kind == "hailo":
        names = {info.name: f"{graph.name}/input_layer{number}" for number, info in enumerate(graph.inputs, 1)}
    converted = [{name: LAYOUTS[kind](value) for name, value in sample.items()} for sample in samples]
    if kind in ("npz", "hailo"):
        write_npz(
            folder / f"{graph.name}.npz",
            {written: np.stack([sample[name] for sample in converted]) for name, written in names.items()},
        )
    else:
        lines = list(_files(folder, graph, converted, kind))
        if kind in LISTS:
            (folder / graph.name / LISTS[kind]).write_text("\n".join(lines) + "\n", "utf-8")
    return tuple(
        DumpedInput(
            name=info.name,
            dtype=info.dtype,
            shape=info.shape,
            written_as=names[info.name],
            written_dtype=str(converted[0][info.name].dtype),
            written_shape=converted[0][info.name].shape,
        )
        for info in graph.inputs
    )


LISTS = {"rknn": "dataset.txt", "qnn": "input_list.txt"}
"""The file that names a sample's files, a line each, beside them."""


def _files(folder: Path, graph: GraphInfo, samples: Sequence[Mapping[str, Array]], kind: DumpFormat) -> Iterator[str]:
    """Write a file for each input of each sample; the lines of the list."""
    for number, sample in enumerate(samples):
        parts = []
        for info in graph.inputs:
            suffix = "raw" if kind == "qnn" else "npy"
            path = PurePosixPath(info.name, f"{number:06d}.{suffix}")
            (folder / graph.name / info.name).mkdir(parents=True, exist_ok=True)
            place = folder / graph.name / path
            value = np.ascontiguousarray(sample[info.name])
            if kind == "qnn":
                place.write_bytes(value.astype("<f4").tobytes())
            else:
                np.save(place, value, allow_pickle=False)
            parts.append(f"{info.name}:={path}" if kind == "qnn" else str(path))
        yield " ".join(parts)


def _is_crop(value: Array) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3


def _rknn(value: Array) -> Array:
    """float32; a crop as (1, 3, H, W), still BGR, 0..255: the tool has conversions of its own for mean and order."""
    found = value.astype(np.float32)
    return np.ascontiguousarray(found.transpose(2, 0, 1)[None]) if _is_crop(value) else found


def _hailo(value: Array) -> Array:
    """float32 without the batch; maps (1, C, H, W) as (H, W, C)."""
    found = value.astype(np.float32)
    if found.ndim == 4 and found.shape[0] == 1:
        return np.ascontiguousarray(found[0].transpose(1, 2, 0))
    return found


def _plain(value: Array) -> Array:
    return value


def _float(value: Array) -> Array:
    return value.astype(np.float32)


LAYOUTS: Mapping[DumpFormat, Callable[[Array], Array]] = {
    "npy": _plain,
    "npz": _plain,
    "rknn": _rknn,
    "hailo": _hailo,
    "qnn": _float,
}
"""What becomes of one input of one sample."""
