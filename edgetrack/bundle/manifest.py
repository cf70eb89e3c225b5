"""What a bundle's `manifest.json` says: the schema, strict on reading, deterministic on writing."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from edgetrack.decoding import decode_json
from edgetrack.errors import BundleError
from edgetrack.io import encode_json

SCHEMA = 1

_LONGEST_NAME = 64
Name = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^[a-z0-9][a-z0-9_-]{{0,{_LONGEST_NAME - 1}}}\Z",
        description=f"at most {_LONGEST_NAME} lower-case letters, digits, '_' and '-'",
    ),
]
# One or more plain path components: a Core ML package is a folder. `reader.py` checks that none climbs out.
FilePath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*\Z",
        max_length=255,
        description="a path of letters, digits, '.', '_', '-' and '/' inside the bundle",
    ),
]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", description="a SHA-256: 64 digits of 0-9a-f")]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Shape = Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=8)]
DType = Literal["uint8", "int8", "int32", "int64", "float16", "float32"]
_ITEM_BYTES = {"uint8": 1, "int8": 1, "int32": 4, "int64": 8, "float16": 2, "float32": 4}
Origin = Literal["official", "trained-here", "custom", "untrained"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-bf16"]
BoundedText = Annotated[str, msgspec.Meta(max_length=4096)]
Label = Annotated[str, msgspec.Meta(max_length=512)]
GraphRole = Literal["init", "step", "choice", "batch"]
"""When a graph runs: once for a target, in every frame, in the frames that choose it over others, or in place of `step`
for several targets at once."""
Scalar = bool | int | float | Annotated[str, msgspec.Meta(max_length=4096)]


def split_precision(precision: str) -> tuple[str, str]:
    """What a bundle's weights are in, and what its device is asked to compute all else in: `int8-bf16` has two parts.

    `int8` gives "int8" twice; `int8-bf16` gives "int8" and "bf16".
    """
    stored, _, rest = precision.partition("-")
    return stored, rest or stored


MAX_TENSOR_BYTES = 256 << 20
"""Of one input or output; the largest of a known tracker has 10 MiB."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: unknown fields are refused, instances do not change."""


def scalar_text(value: Scalar) -> str:
    """A scalar as TOML and `--set` write it, a text without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_of(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Each as `KEY=VALUE`."""
    return tuple(f"{key}={scalar_text(value)}" for key, value in values.items())


def bundle_name(tracker: str, overrides: Mapping[str, Scalar], target: str, precision: str) -> str:
    """`<tracker>-<target>-<precision>`, with overrides behind the tracker: `dastm-gate-select-openvino-fp32`.

    What a name cannot hold becomes a hyphen; overrides too long for one become the beginning of a hash of them.
    """
    parts = [f"{key}-{scalar_text(value)}" for key, value in overrides.items()]
    told = re.sub("[^a-z0-9_-]", "-", "-".join(parts).lower())
    name = "-".join(filter(None, (tracker, told, target, precision)))
    if len(name) <= _LONGEST_NAME:
        return name
    short = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    return f"{tracker}-{short}-{target}-{precision}"


class TensorInfo(_Strict, frozen=True, kw_only=True):
    """A named input or output of a graph, fixed in shape."""

    name: Label
    dtype: DType
    shape: Shape

    def __post_init__(self) -> None:
        if self.nbytes > MAX_TENSOR_BYTES:
            raise ValueError(
                f"tensor {self.name!r} of shape {self.shape} has {self.nbytes} bytes; at most {MAX_TENSOR_BYTES} are "
                "allowed"
            )

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def batch_shape(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape of one target's tensor for `count` targets: N in place of a leading 1, else in front."""
    return (count, *shape[1:]) if shape[:1] == (1,) else (count, *shape)


class GraphInfo(_Strict, frozen=True, kw_only=True):
    """A graph: which file holds it, when it runs, what goes in and out.

    `flops` counts 2 per multiply-accumulate of convolutions and matrix products; 0 where it was not counted. `engines`
    are compiled forms of the file for some devices: each record states its `file` and `sha256`, and what else the
    target's backend reads.
    """

    name: Name
    role: GraphRole
    file: FilePath
    inputs: Annotated[tuple[TensorInfo, ...], msgspec.Meta(max_length=256)]
    outputs: Annotated[tuple[TensorInfo, ...], msgspec.Meta(max_length=256)]
    flops: Annotated[int, msgspec.Meta(ge=0)] = 0
    engines: tuple[dict[str, str | int], ...] = ()


class LicenceInfo(_Strict, frozen=True, kw_only=True):
    """The weights' terms, as whoever exported them states them.

    `name` is an SPDX identifier or a name; `redistribution` says whether they may be passed on.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    redistribution: bool = False


class WeightsInfo(_Strict, frozen=True, kw_only=True):
    """Where the weights come from; `sha256` is that of the checkpoint file, None for untrained ones.

    `parameters` counts the numbers of the network as published, before anything is folded; None where it is not known.
    `licence` is there once somebody has stated it; `edgetrack push` publishes no bundle without.
    """

    origin: Origin
    sha256: Sha256 | None = None
    file: BoundedText | None = None
    note: BoundedText = ""
    parameters: Annotated[int, msgspec.Meta(ge=0)] | None = None
    licence: LicenceInfo | msgspec.UnsetType = msgspec.UNSET


SEVEN_BITS = "7-bit weights"
"""What a calibration's method says where INT8 weights keep to half of their range."""


class CalibrationInfo(_Strict, frozen=True, kw_only=True):
    """How the quantization ranges were found."""

    method: Label
    list_sha256: Sha256
    size: int


LostFeature = Literal["score", "psr", "entropy", "jump", "scale"]
"""What a tracker may be judged lost by; `edgetrack.runtime.lost` computes them."""
Coefficient = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class LostData(_Strict, frozen=True, kw_only=True):
    """Sequences that a model of loss was calibrated on; `sha256` is that of their boxes, frame names and texts."""

    dataset: BoundedText
    sequences: tuple[Label, ...]
    sha256: Sha256


class LostModel(_Strict, frozen=True, kw_only=True):
    """When the target counts as lost, as `edgetrack calibrate lost` found it (docs/lost.md).

    A frame's confidence is 1 / (1 + exp(-(bias + the sum of weights times features))). The target is lost
    once `frames` frames in a row are below `threshold`, and found again once as many in a row are not.

    Attributes:
        interval: 95 % of the threshold, bootstrapped over sequences; None where there were fewer than two.
        rate: of false alarms, as a share of frames, that was asked for.
        recall, false_alarms, auroc: on the data that it was calibrated on.
        bundle: that was calibrated; `weights_sha256`: of its checkpoint, None for untrained ones.
        data: what it was calibrated on.
    """

    weights: Annotated[dict[LostFeature, Coefficient], msgspec.Meta(min_length=1)]
    bias: Coefficient = 0.0
    threshold: Probability
    frames: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    interval: tuple[Probability, Probability] | None = None
    rate: Probability
    recall: Probability
    false_alarms: Probability
    auroc: Probability
    bundle: Label
    weights_sha256: Sha256 | None = None
    data: Annotated[tuple[LostData, ...], msgspec.Meta(max_length=256)]


class FileInfo(_Strict, frozen=True, kw_only=True):
    """Size in bytes and hash of one file of the bundle."""

    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256


class PaperFigures(_Strict, frozen=True, kw_only=True):
    """Figures that the tracker's paper states: frames per second of its `track()`, and the memory that it takes.

    `fps` is of a processor that the paper does not name.
    """

    source: BoundedText = ""
    fps: float | None = None
    memory_gb: float | None = None
    cpu_fps: float | None = None
    cpu: Label = ""
    gpu_fps: float | None = None
    gpu: Label = ""


class Manifest(_Strict, frozen=True, kw_only=True):
    """All that a bundle says of itself.

    `family` names whose network and procedure it runs, where that is not the tracker's own name. `procedure` holds the
    per-frame procedure's numbers (crop factors, sizes, window, thresholds); the family's runtime file states and checks
    which. `overrides` are the keys of the recipe's configuration and procedure that this export set otherwise.
    `precision_exceptions` maps a node to the precision it was kept in. `lost` is there once it was calibrated.
    """

    schema: Literal[1] = 1
    name: Name
    tracker: Name
    family: Name | msgspec.UnsetType = msgspec.UNSET
    title: Label
    target: Name
    precision: Precision
    weights: WeightsInfo
    graphs: Annotated[tuple[GraphInfo, ...], msgspec.Meta(max_length=64)]
    procedure: Annotated[dict[Label, Scalar], msgspec.Meta(max_length=256)]
    overrides: Annotated[dict[Label, Scalar], msgspec.Meta(max_length=256)] = {}
    paper: PaperFigures = PaperFigures()
    precision_exceptions: dict[BoundedText, Label] = {}
    calibration: CalibrationInfo | None = None
    tools: Annotated[dict[Label, Label], msgspec.Meta(max_length=256)] = {}
    lost: LostModel | msgspec.UnsetType = msgspec.UNSET
    files: dict[FilePath, FileInfo] = {}

    @property
    def system(self) -> str:
        """The tracker as it was configured, such as `dastm gate=select`: bundles of one system compute the same."""
        return " ".join([self.tracker, *self.settings])

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which itself holds that of every file: equal for equal bundles alone."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def settings(self) -> tuple[str, ...]:
        """The overrides as `KEY=VALUE`, as `export --set` takes them."""
        return settings_of(self.overrides)

    @property
    def batch(self) -> GraphInfo | None:
        """The graph that runs `step` for several targets, if there is one."""
        return next((graph for graph in self.graphs if graph.role == "batch"), None)

    def graph(self, name: str) -> GraphInfo:
        """The graph of that name.

        Raises:
            BundleError: there is none.
        """
        for graph in self.graphs:
            if graph.name == name:
                return graph
        have = ", ".join(g.name for g in self.graphs) or "none"
        raise BundleError(f"bundle {self.name!r} has no graph {name!r}; it has: {have}")

    def to_json(self) -> bytes:
        """Indented JSON, keys in a fixed order: the same manifest gives the same bytes."""
        return encode_json(self, indent=2, order="deterministic") + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, source: str) -> Manifest:
        """Parse and check a manifest.

        Raises:
            BundleError: not JSON, another schema number, a field that is missing, unknown or of the wrong kind.
        """
        return decode_json(
            data,
            cls,
            lambda words: BundleError(
                f"{source}: the manifest is not one of schema {SCHEMA}: {words}; export the bundle again with this "
                "version of edgetrack"
            ),
        )
