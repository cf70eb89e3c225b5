"""What tests build: SMAT's graphs without a network, small configurations of large trackers, training packs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from edgetrack.benchmark.config import BenchConfig, BenchRequest
from edgetrack.benchmark.protocol import RoundSamples
from edgetrack.bundle import Bundle, BundleWriter, Manifest, open_bundle
from edgetrack.bundle.integrity import hash_file, scan_folder
from edgetrack.bundle.manifest import GraphInfo, TensorInfo, WeightsInfo

# Targets that run on any machine of a developer.
TARGETS = ["torch", "onnx", "openvino"]

# SMAT's procedure, crops, maps and template features.
PROCEDURE = {
    "template_factor": 2.0,
    "template_size": 128,
    "search_factor": 4.0,
    "search_size": 256,
    "clip_margin": 10.0,
    "lost_below": 0.1,
}
# What the scripted graphs return: constants, or a rule of backends/fake.
CONSTANT = {"template_features": 1.0, "score": 0.5, "size": 0.25, "offset": 0.5}


def tensor(name: str, *shape: int, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, shape=shape)


TEMPLATE = tensor("template", 128, 128, 3, dtype="uint8")
SEARCH = tensor("search", 256, 256, 3, dtype="uint8")
FEATURES = tensor("template_features", 1, 4, 1, 4)
MAPS = (tensor("score", 1, 1, 16, 16), tensor("size", 1, 2, 16, 16), tensor("offset", 1, 2, 16, 16))


def scripted_manifest(
    name: str = "scripted", *, target: str = "fake", suffix: str = ".json", flops: int = 0, **fields: Any
) -> Manifest:
    """The manifest of a bundle with SMAT's procedure; `fields` replace the manifest's own."""
    graphs = (
        GraphInfo(name="template", role="init", file=f"template{suffix}", inputs=(TEMPLATE,), outputs=(FEATURES,)),
        GraphInfo(name="step", role="step", file=f"step{suffix}", inputs=(SEARCH, FEATURES), outputs=MAPS, flops=flops),
    )
    return Manifest(
        **{
            "name": name,
            "tracker": "smat",
            "title": "SMAT",
            "target": target,
            "precision": "fp32",
            "weights": WeightsInfo(origin="untrained"),
            "graphs": graphs,
            "procedure": PROCEDURE,
            **fields,
        }
    )


def with_attention(manifest: Manifest, **shapes: tuple[int, ...]) -> Manifest:
    """The manifest with maps of attention behind the outputs of its last graph: name -> shape."""
    looks = tuple(tensor(f"attention_{name}", *shape) for name, shape in shapes.items())
    *before, step = manifest.graphs
    step = msgspec.structs.replace(step, outputs=(*step.outputs, *looks))
    return msgspec.structs.replace(manifest, graphs=(*before, step))


def write_scripted(path: Path, manifest: Manifest | None = None, *, overwrite: bool = False, **rules: Any) -> Path:
    """Write a bundle whose outputs follow `rules`, by default CONSTANT, and return its path.

    An output without a rule, or with None, is filled from the graph's first input.
    """
    manifest = manifest or scripted_manifest(path.name)
    rules = CONSTANT | rules
    with BundleWriter(path, overwrite=overwrite) as writer:
        for graph in manifest.graphs:
            script = {t.name: rules.get(t.name) for t in graph.outputs}
            script = {k: f"input:{graph.inputs[0].name}" if rule is None else rule for k, rule in script.items()}
            (writer.folder / graph.file).write_text(json.dumps(script))
        return writer.commit(manifest)


def rehashed(folder: Path) -> Bundle:
    """The bundle, after its manifest was made to say what is there."""
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), source="copy")
    names = [name for name in scan_folder(folder) if name != "manifest.json"]
    files = {name: hash_file(folder / name, 1 << 30) for name in names}
    (folder / "manifest.json").write_bytes(msgspec.structs.replace(manifest, files=files).to_json())
    return open_bundle(folder)


# The same code in two narrow blocks on small crops: section of the recipe -> what differs.
TINY: dict[str, dict[str, dict[str, Any]]] = {
    "smat": {
        "configuration": {"search_size": 128, "template_size": 64, "width": 0.25},
        "procedure": {"search_size": 128, "template_size": 64},
    },
    "dmtrack": {
        "configuration": {
            "search_size": 128,
            "template_size": 64,
            "dim": 64,
            "depth": 2,
            "heads": 2,
            "head_channels": 32,
        },
        "procedure": {"search_size": 128, "template_size": 64},
    },
    "atstrack": {
        "configuration": {
            "search_size": 128,
            "template_size": 64,
            "dim": 64,
            "depth": 2,
            "heads": 2,
            "head_channels": 32,
            "text_dim": 32,
            "text_depth": 2,
            "text_heads": 2,
        },
        "procedure": {"search_size": 128, "template_size": 64},
    },
    "dastm": {
        "configuration": {
            "image_size": 97,
            "cells": 9,
            "width": 0.25,
            "blocks": "1,1,2",
            "dim": 32,
            "head_width": 16,
            "head_depth": 2,
            "gate_reduction": 4,
        },
        "procedure": {"search_size": 97},
    },
    **{
        name: {
            "configuration": {
                "search_size": 128,
                "template_size": 64,
                "dim": 32,
                "depth": 11,
                "heads": 2,
                "head_channels": 16,
            },
            "procedure": {"search_size": 128, "template_size": 64},
        }
        for name in ("ostrack_256", "ostrack_384")
    },
    "spmtrack_b": {
        "configuration": {
            "search_size": 112,
            "template_size": 56,
            "dim": 64,
            "depth": 2,
            "heads": 2,
            "rank": 8,
            "alpha": 8,
        },
        "procedure": {"search_size": 112, "template_size": 56},
    },
}


def tiny_tables(tracker: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a tracker's recipe in its small configuration, values of configuration and procedure changed."""
    from edgetrack.exporting.recipe import find_recipe

    tables = msgspec.to_builtins(find_recipe(tracker))
    for section, smaller in TINY[tracker].items():
        tables[section] |= smaller
    for key, value in changes.items():
        having = [table for table in ("configuration", "procedure") if key in tables[table]]
        for table in having or ["procedure"]:
            tables[table][key] = value
    return tables


def as_toml(tables: Mapping[str, Any]) -> str:
    """Tables as TOML, one line a key; None is left out."""
    return "\n".join(f"{key} = {_inline(value)}" for key, value in tables.items() if value is not None)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(k)} = {_inline(v)}' for k, v in value.items() if v is not None)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


def bench_request(*bundles: object, **changes: Any) -> BenchRequest:
    """A benchmark's request; `changes` are fields of it or of its config."""
    known = BenchConfig.__struct_fields__
    config = BenchConfig(**{name: value for name, value in changes.items() if name in known})
    rest = {name: value for name, value in changes.items() if name not in known}
    return BenchRequest(config, bundles=tuple(map(str, bundles)), **rest)


def round_samples(
    kind: str, graphs: list[float], *, crop: float = 0.25, decode: float = 0.75, **fields: Any
) -> RoundSamples:
    """A round whose frames took `graphs` milliseconds in their graphs."""
    n = len(graphs)
    values = {"whole": graphs, "cpu_s": 0.1, "wall_s": 1.0, **fields}
    return RoundSamples(kind=kind, crop=[crop] * n, graphs=graphs, decode=[decode] * n, **values)


def bench_json(*candidates: tuple[str, str | None, list[list[float]]], schema: int = 1) -> dict[str, Any]:
    """A benchmark's record as plain data: name, hint and track latencies (ms, by round) of each candidate."""
    speed = {"p50": 1.0, "p90": None, "p95": None, "p99": None, "mean": 1.0, "min": 1.0, "max": 1.0, "cv": None}
    speed |= {"count": 1, "interval": None}
    results = [
        {
            "bundle": name,
            "hint": hint,
            "tracker": "smat",
            "target": "onnx",
            "precision": "fp32",
            "weights": "untrained",
            "device": "cpu",
            "threads": 1,
            "versions": {},
            "latency_ms": {"model": speed, "track": speed, "camera": None},
            "fps": {"model": 1.0, "track": 1.0, "camera": None},
            "waterfall_ms": {"crop": 1.0, "graphs": 1.0, "decode": 1.0, "outside": 2.0, "read": None},
            "memory_mb": {"peak_rss": 1.0},
            "size_mb": 1.0,
            "load_ms": 1.0,
            "first_ms": 1.0,
            "cores_busy": 1.0,
            "vs_pytorch": {},
            "vs_pytorch_interval": {},
            "vs_paper": {"fps": None, "ratio": None, "cpu": None, "source": None},
            "roofline": {"model": None},
            "warnings": [],
            "samples_ms": {"model": [], "track": track, "camera": [], "crop": [], "decode": [], "read": []},
        }
        for name, hint, track in candidates
    ]
    return {
        "schema": schema,
        "complete": True,
        "machine": {
            "os": "an OS",
            "kernel": "1",
            "architecture": "x86_64",
            "python": "CPython",
            "cpu_model": "a CPU",
            "usable_cores": 1,
            "packages": {},
        },
        "settings": {},
        "source": {"spec": "synthetic:drift", "size": [64, 48], "box": [1, 2, 3, 4], "camera": "decoded"},
        "results": results,
        "failures": [],
    }


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def picture(seed: int) -> np.ndarray:
    """uint8 (120, 160, 3): coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def pack_entry(file: str, sequence: str, frame: int, box: list[float] | None) -> dict[str, Any]:
    return {
        "file": file,
        "source": "test",
        "seq": sequence,
        "video": sequence.split("-")[0],
        "frame": frame,
        "width": 160,
        "height": 120,
        "box": box,
    }


def pack_parts(sequences: int = 4, frames: int = 12, plain: int = 4) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Entries and files: sequences `v0-a`, `v1-a`, ... of a block that wanders, and pictures without a box."""
    entries, files = [], {}
    for number in range(sequences):
        block = np.random.default_rng(100 + number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        for frame in range(frames):
            x, y = 20 + 5 * frame + number, 30 + 3 * frame
            image = picture(number)
            image[y : y + 24, x : x + 32] = block
            name = f"v{number}/{frame:03d}.jpg"
            entries.append(pack_entry(name, f"v{number}-a", frame + 1, [x, y, 32, 24]))
            files[name] = jpeg(image)
    for number in range(plain):
        entries.append(pack_entry(f"plain/{number}.jpg", f"p{number}", 1, None))
        files[f"plain/{number}.jpg"] = jpeg(picture(1000 + number))
    return entries, files


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_pack(path: Path, entries: list[dict[str, Any]], files: dict[str, bytes]) -> Path:
    index = {"shard": path.name, "count": len(entries), "box_format": "xywh", "entries": entries}
    return write_tar(path, {"index.json": json.dumps(index).encode(), **files})


PAIR_LAYOUTS = ("lasher", "rgbt234", "gtot", "vtuav", "depthtrack", "cdtb", "rgbd1k", "visevent")


def write_pairs(root: Path, layout: str, frames: int = 4, size: tuple[int, int] = (160, 120)) -> Path:
    """A sequence of the built-in scene `drift` in a layout of two images a frame; returns the data set's folder.

    The boxes of thermal images are moved by two pixels. Every tenth image of `vtuav` is annotated.
    """
    from edgetrack.box import Box
    from edgetrack.media import load_scene

    scene = load_scene("drift", frames=frames, size=size)
    name, folders, names, truths, view = _PAIRS[layout]
    folder = root / name
    for kind in folders:
        (folder / kind).mkdir(parents=True)
    boxes = [box for index in range(frames) if (box := scene.box(index)) is not None]
    for index in range(frames):
        second = scene.depth(index) if view == "depth" else scene.frame(index, view=view)
        for kind, pattern, image in zip(folders, names, (scene.frame(index), second), strict=True):
            assert cv2.imwrite(str(folder / kind / pattern.format(index + 1)), image)
    rows = boxes[::10] if layout == "vtuav" else boxes
    for offset, truth in enumerate(truths):
        moved = [Box(b.x + 2 * offset, b.y, b.w, b.h) for b in rows]
        lines = [tuple(b.xyxy) if layout == "gtot" else tuple(b) for b in moved]
        mark = " " if layout in ("gtot", "vtuav") else ","
        (folder / truth).write_text("".join(mark.join(f"{v:.3f}" for v in line) + "\n" for line in lines))
    if layout == "cdtb":
        (folder / "full-occlusion.tag").write_text("0\n" * frames)
    if layout == "visevent":
        (folder / "absent_label.txt").write_text("1\n" * frames)
    return root


_RGBD = (("color", "depth"), ("{:08d}.jpg", "{:08d}.png"), ("groundtruth.txt",), "depth")
_RGBT = (("visible", "infrared"), ("visible.txt", "infrared.txt"), "thermal")
# Name of the sequence, its folders, names of images, files of boxes, and the view that is the second image.
_PAIRS: dict[str, tuple[str, tuple[str, str], tuple[str, str], tuple[str, ...], str]] = {
    "lasher": ("testingset/boy", _RGBT[0], ("v{:06d}.jpg", "i{:06d}.jpg"), *_RGBT[1:]),
    "rgbt234": ("afterrain", _RGBT[0], ("{:05d}v.jpg", "{:05d}i.jpg"), *_RGBT[1:]),
    "gtot": (
        "BlackCar",
        ("v", "i"),
        ("{:05d}v.png", "{:05d}i.png"),
        ("groundTruth_v.txt", "groundTruth_i.txt"),
        "thermal",
    ),
    "vtuav": (
        "test/short-term/bike_003",
        ("rgb", "ir"),
        ("{:06d}.jpg", "{:06d}.jpg"),
        ("rgb.txt", "ir.txt"),
        "thermal",
    ),
    "depthtrack": ("test/bag01_indoor", *_RGBD),
    "cdtb": ("sequences/backpack_blue", *_RGBD),
    "rgbd1k": ("adapter", *_RGBD),
    "visevent": (
        "test_subset/dvSave-2021_02_04",
        ("vis_imgs", "event_imgs"),
        ("frame{:04d}.bmp", "frame{:04d}.bmp"),
        ("groundtruth.txt",),
        "event",
    ),
}


def write_ml_program(package: Path) -> GraphInfo:
    """A Core ML package of most kinds of operations, one weight in INT8, from a (8, 8, 3) image to (1, 4)."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    from edgetrack.runtime.backends.mil.package import import_coremltools, quiet

    coremltools = import_coremltools()
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 3, 3, 3), np.float32)
    few = rng.integers(-127, 128, (64, 64), np.int8)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 8, 8))], opset_version=coremltools.target.iOS16)  # type: ignore[untyped-decorator]
    def program(image: Any) -> Any:
        x = mb.conv(x=image, weight=kernel, bias=kernel[:, 0, 0, 0], pad_type="custom", pad=[1, 1, 1, 1])
        x = mb.mul(x=mb.relu(x=x), y=np.float32(1 / 255))
        x = mb.reshape(x=mb.concat(values=[x, mb.sigmoid(x=x)], axis=1), shape=[1, 8, 64])
        weight = mb.constexpr_affine_dequantize(
            quantized_data=few, zero_point=np.zeros(64, np.int8), scale=np.full(64, 0.01, np.float32), axis=0
        )
        x = mb.layer_norm(x=mb.matmul(x=x, y=weight), axes=[-1], epsilon=np.float32(1e-5))
        x = mb.softmax(x=mb.mul(x=mb.matmul(x=x, y=x, transpose_y=True), y=np.float32(0.05)), axis=-1)
        values, order = mb.topk(x=x, k=4, axis=-1, ascending=False)
        x = mb.add(x=mb.gather_along_axis(x=x, indices=order, axis=-1), y=values)
        return mb.squeeze(x=mb.slice_by_index(x=x, begin=[0, 2, 0], end=[1, 3, 4]), axes=[1], name="score")

    with quiet():
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            inputs=[coremltools.ImageType(name="image", shape=(1, 3, 8, 8), color_layout=coremltools.colorlayout.BGR)],
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
    model.save(str(package))
    ends = (tensor("image", 8, 8, 3, dtype="uint8"),), (tensor("score", 1, 4),)
    return GraphInfo(name="step", role="step", file=package.name, inputs=ends[0], outputs=ends[1])
