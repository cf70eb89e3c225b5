"""One command for ten minutes of a GPU: PyTorch eager, PyTorch at its best, and TensorRT, interleaved in one run.

    python bench/gpu_reference.py [--tracker smat] [--weights FILE] [--device cuda:0] [--duration 10]

Exports the tracker to PyTorch and to TensorRT in every precision, each in a process of its own, and measures all with
`edgetrack bench`: eager as the paper times it, FP16 channels-last in one CUDA graph, and the engines that the card
takes. Writes bench/results/gpu-CARD.json, with the machine and every sample, and beside it what could not be exported.
Who fails is reported and leaves the others alone: TensorRT-RTX knows no compute capability 9.0, for one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from edgetrack.benchmark.candidates import require_gpu
from edgetrack.benchmark.run import this_machine
from edgetrack.capabilities import reference_target
from edgetrack.errors import EdgetrackError
from edgetrack.exporting.isolated import IsolatedExports, export_each
from edgetrack.io import replace_whole

RESULTS = Path(__file__).resolve().parent / "results"
WAYS = (("torch", "fp32"), ("tensorrt", "fp32"), ("tensorrt", "fp16"), ("tensorrt", "int8"))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracker", default="smat")
    parser.add_argument("--weights", help="as of `edgetrack export`; speed does not depend on them")
    parser.add_argument("--calib", default="synthetic", help="calibration crops of the INT8 engine")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds for each candidate and speed")
    parser.add_argument("--iterations", type=int, default=600, help="least frames for each; both are reached")
    parser.add_argument("--output", type=Path, help="else bench/results/gpu-CARD.json")
    return parser.parse_args()


def export_all(given: argparse.Namespace, folder: Path) -> IsolatedExports:
    """A bundle for each way, as far as they can be made here."""
    commands = {}
    for target, precision in WAYS:
        name = f"{given.tracker}-{target}-{precision}"
        wish = [given.tracker, "--target", target, "--precision", precision]
        weights = [] if given.weights is None else ["--weights", given.weights]
        calib = ["--calib", given.calib] if precision in ("fp16", "int8") else []
        commands[name] = [*wish, *weights, *calib, "-o", str(folder / name), "--json"]
    return export_each(commands, progress=lambda line: sys.stderr.write(line + "\n"))


def bench(given: argparse.Namespace, made: IsolatedExports, output: Path) -> int:
    """Measure them; the exit code of `edgetrack bench`."""
    eager = next(found.bundle for found in made.results if found.target == reference_target().name)
    options = ["--reference", eager, "--device", given.device, "--duration", str(given.duration)]
    options += ["--iterations", str(given.iterations), "--output", str(output), "--timeout", "600"]
    bundles = [found.bundle for found in made.results]
    command = [sys.executable, "-m", "edgetrack", "bench", *bundles, *options]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Export, measure, save; 0 where every way was measured."""
    given = arguments()
    here = this_machine()
    require_gpu(given.device, here.nvidia_present)
    card = re.sub(r"[^a-z0-9]+", "-", here.gpus[0].name.lower()).strip("-") if here.gpus else "unknown"
    output = given.output or RESULTS / f"gpu-{card}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgetrack-") as folder:
        made = export_all(given, Path(folder))
        replace_whole(output.with_suffix(".exports.json"), msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        for failure in made.failures:
            sys.stderr.write(f"FAILED: {failure.target}: {failure.message}\n")
        if not any(found.target == reference_target().name for found in made.results):
            return made.exit_code
        return bench(given, made, output) or made.exit_code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgetrackError as error:
        sys.stderr.write(f"{Path(__file__).name}: {error}\n")
        sys.exit(error.exit_code)
