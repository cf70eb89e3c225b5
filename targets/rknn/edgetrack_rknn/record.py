"""What of a build lies in a bundle beside the ONNX: which chip it is for, and what was decided while it was built."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import msgspec

Platform = Literal[
    "rk3588", "rk3576", "rk3568", "rk3566", "rk3562", "rv1126b", "rv1106b", "rv1106", "rv1103b", "rv1103"
]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)
INTEGER_ONLY = frozenset({"rv1106b", "rv1106", "rv1103b", "rv1103"})
"""Chips whose NPU computes in integers alone."""
Algorithm = Literal["normal", "mmse", "kl_divergence"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What rknn-toolkit2 needs to build a graph once more as it was built, without calibration inputs.

    Attributes:
        platform, precision: what for.
        algorithm: by which ranges were found, as the toolkit names it.
        per_channel: whether weights have a scale for each output channel.
        ranges: lowest and highest value of each of the toolkit's tensors, a number each or one for each channel.
        float16: the tensors that stay in FP16.
    """

    schema: Literal[1] = 1
    platform: Platform
    precision: Literal["fp16", "int8"]
    algorithm: Algorithm = "normal"
    per_channel: bool = True
    ranges: dict[str, tuple[list[float], list[float]]] = {}
    float16: list[str] = []


def record_file(graph: Path) -> Path:
    """Beside a graph's ONNX."""
    return graph.with_suffix(".rknn.json")


def board_file(graph: Path) -> Path:
    """What the board runs, beside a graph's ONNX."""
    return graph.with_suffix(".rknn")
