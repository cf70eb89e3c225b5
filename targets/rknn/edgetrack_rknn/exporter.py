"""ONNX to .rknn files of one chip, in FP16 or INT8, and the record from which they are simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgetrack.bundle import Manifest, read_json
from edgetrack.environments.process import open_environment
from edgetrack.environments.setup import require_ready
from edgetrack.errors import EdgetrackError, UnknownNameError, UsageError
from edgetrack.exporting.lowering import Inputs, Method
from edgetrack.exporting.targets.base import ExporterOptions, Lowering
from edgetrack.exporting.targets.onnx import OnnxExporter
from edgetrack.io import ScratchFolder, sha256
from edgetrack.quantization.dump import LAYOUTS
from edgetrack_rknn import ENVIRONMENT
from edgetrack_rknn.record import ALGORITHMS, INTEGER_ONLY, PLATFORMS, BuildRecord, board_file, record_file

BUILD_TIMEOUT_S = 3600.0
"""Without a line from the toolkit: SMAT's 300 samples take two minutes on two cores."""


class RknnOptions(ExporterOptions, frozen=True, kw_only=True):
    """For which chip, and how ranges are found."""

    platform: Annotated[
        str, msgspec.Meta(description=f"RKNN: the board's chip: {', '.join(PLATFORMS)}. Default: {PLATFORMS[0]}.")
    ] = PLATFORMS[0]
    quantized_algorithm: Annotated[
        str,
        msgspec.Meta(description=f"RKNN: how INT8 ranges are found: {', '.join(ALGORITHMS)}. Default: normal."),
    ] = ALGORITHMS[0]


class RknnExporter(OnnxExporter):
    """Writes ONNX, and beside it the .rknn file of a chip."""

    options_type = RknnOptions
    options: RknnOptions
    calibrated: ClassVar = ("int8",)

    def prepare(self) -> None:
        """See `Exporter`."""
        if self.options.platform not in PLATFORMS:
            raise UnknownNameError.of("--platform", self.options.platform, PLATFORMS)
        if self.options.quantized_algorithm not in ALGORITHMS:
            raise UnknownNameError.of("--quantized-algorithm", self.options.quantized_algorithm, ALGORITHMS)
        require_ready(ENVIRONMENT)

    def check_method(self, method: Method, precision: str) -> None:
        """See `Exporter`."""
        if precision == "fp16" and self.options.platform in INTEGER_ONLY:
            raise UsageError(
                f"the NPU of {self.options.platform} computes in integers alone; export with --precision int8"
            )
        if method != Method(per_channel=method.per_channel):
            raise UsageError(
                "rknn-toolkit2 finds ranges by --quantized-algorithm and quantizes activations asymmetrically: "
                "--calib-method, --bias-correction, --smooth-quant and the like do not apply; leave them out"
            )

    def describe_method(self, method: Method, quantizer: str) -> str:
        """See `Exporter`."""
        parts = ("per channel" if method.per_channel else "per tensor", "asymmetric")
        return ", ".join((f"{quantizer} {self.options.quantized_algorithm}", *parts))

    def kept_in(self, precision: str) -> str:
        """See `Exporter`."""
        return "" if precision == "fp16" or self.options.platform in INTEGER_ONLY else "fp16"

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """Build the .rknn file; the ONNX stays as it is. See `Exporter`."""
        with ScratchFolder() as scratch, open_environment(ENVIRONMENT) as process:
            inputs = write_samples(scratch, lowering.inputs)
            process.call(
                "build",
                timeout_s=BUILD_TIMEOUT_S,
                onnx=str(path.absolute()),
                output=str(board_file(path).absolute()),
                record=str(record_file(path).absolute()),
                platform=self.options.platform,
                precision=lowering.precision,
                algorithm=self.options.quantized_algorithm,
                per_channel=lowering.method.per_channel,
                kept=list(lowering.kept),
                samples=str(scratch),
                inputs=inputs,
                count=len(lowering.inputs),
            )
        if not board_file(path).is_file():
            raise EdgetrackError(f"rknn-toolkit2 wrote no {board_file(path).name}; export with --debug to see why")
        read_json(record_file(path), BuildRecord)
        return ()

    def files(self, path: Path) -> tuple[Path, ...]:
        """See `Exporter`."""
        return *super().files(path), *(one for one in (board_file(path), record_file(path)) if one.is_file())

    def complete(self, folder: Path, manifest: Manifest, progress: Callable[[str], None]) -> Manifest:
        """Add the .rknn files to the manifest."""
        graphs = []
        for info in manifest.graphs:
            file = board_file(folder / info.file)
            engine = {"file": file.name, "sha256": sha256(file), "platform": self.options.platform}
            graphs.append(msgspec.structs.replace(info, engines=(engine,)))
        return msgspec.structs.replace(manifest, graphs=tuple(graphs))


def write_samples(folder: Path, samples: Sequence[Inputs]) -> list[str]:
    """Write what a graph is fed, `<number of the input>-<number of the sample>.npy`; the inputs' names by number."""
    names = list(samples[0]) if samples else []
    for row, sample in enumerate(samples):
        for number, name in enumerate(names):
            np.save(folder / f"{number}-{row:06d}.npy", LAYOUTS["rknn"](sample[name]), allow_pickle=False)
    return names
