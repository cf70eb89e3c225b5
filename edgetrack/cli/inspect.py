"""`edgetrack inspect`: what a bundle says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgetrack.cli import complete
from edgetrack.cli.options import JsonOption, OverwriteOption

if TYPE_CHECKING:
    from edgetrack.bundle.manifest import Manifest, TensorInfo
    from edgetrack.presentation.table import Table
    from edgetrack.runtime.verify import LayerReport


def inspect(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|FILE", help="A bundle's folder, zip or name; an ONNX file.", autocompletion=complete.bundles
        ),
    ],
    experts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Follow a target and write what the experts of a layer make of its tokens; wants a torch bundle.",
        ),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="For --experts: which layer, from 1. Default: the last.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="For --experts: draw them by two principal components: .png, .svg or .pdf.")
    ] = None,
    source: Annotated[str, typer.Option(help="For --experts: frames with a ground-truth box.")] = "synthetic:drift",
    frames: Annotated[int, typer.Option(min=1, help="For --experts: how many frames are tracked.")] = 8,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a bundle's tracker, weights, graphs, procedure and files, or what an ONNX file looks like.

    Nothing is run but with --experts.
    """
    from edgetrack.bundle import open_bundle, read_json
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.errors import UsageError
    from edgetrack.presentation.table import show_all
    from edgetrack.runtime.verify import LAYERS_FILE, LayerReport

    if experts is not None:
        _write_experts(bundle, experts, layer, plot, source, frames, overwrite)
        return
    if layer is not None or plot is not None:
        raise UsageError("--layer and --plot are for --experts; add --experts FILE.npz")
    if bundle.endswith(".onnx"):
        _show_file(Path(bundle), as_json)
        return
    with open_bundle(bundle) as opened:
        manifest = opened.manifest
        report = read_json(opened.path(LAYERS_FILE), LayerReport) if LAYERS_FILE in manifest.files else None
    if as_json:
        print_json(manifest)
        return
    console = stdout()
    console.print(manifest.name)
    show_all(tables(manifest, report), console)


def _show_file(path: Path, as_json: bool) -> None:
    """Inputs and outputs of an ONNX file, the family that they suggest, and how to go on."""
    from edgetrack.cli.console import print_json, stdout
    from edgetrack.exporting.guess import guess, read_signature
    from edgetrack.presentation.table import Column, Table, show_all

    file = read_signature(path)
    found = guess([file])
    roles = {t.name: role for side in (found.inputs, found.outputs) for role, t in side[path.stem].items()}
    if as_json:
        sides = {"inputs": file.inputs, "outputs": file.outputs}
        said = {side: [{**t._asdict(), "role": roles.get(t.name)} for t in ts] for side, ts in sides.items()}
        print_json({"schema": 1, "file": str(path), "opset": file.opset, "family": found.family or None, **said})
        return
    console = stdout()
    console.print(f"{path.name}: ONNX, opset {file.opset}, looks like family {found.family or 'none that is known'}")
    columns = [Column(title, align="left") for title in ("tensor", "", "type", "shape", "role (guess)")]
    rows = [
        (t.name, side, t.dtype, "x".join(map(str, t.shape)), roles.get(t.name, ""))
        for side, tensors in (("in", file.inputs), ("out", file.outputs))
        for t in tensors
    ]
    show_all([Table(columns, rows)], console)
    for doubt in found.doubts:
        console.print(f"check: {doubt}")
    if found.family:
        console.print(f"start a recipe with: edgetrack recipe new --onnx {path} -o {path.stem}.toml")


def _write_experts(
    bundle: str, file: Path, layer: int | None, plot: Path | None, source: str, frames: int, overwrite: bool
) -> None:
    from io import BytesIO

    from edgetrack.bundle.writer import write_npz
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.comparison_report import check_plot
    from edgetrack.io import check_output, write_whole
    from edgetrack.report.experts import arrays, draw_experts, record_experts

    if file.suffix != ".npz":
        raise UsageError(f"--experts {file}: expected a name that ends in .npz")
    check_output(file, overwrite=overwrite)
    check_output(plot, overwrite=overwrite)
    if plot is not None:
        check_plot(plot)
    found = record_experts(bundle, layer, source, frames)
    written = BytesIO()
    write_npz(written, arrays(found))
    write_whole(file, written.getbuffer())
    if plot is not None:
        draw_experts(found, plot)
    for name, one in found.items():
        tokens, experts, channels = one.outputs.shape
        means = ", ".join(f"{weight:.2f}" for weight in one.weights.mean(axis=0))
        typer.echo(f"{name}: {tokens} tokens, {experts} experts of {channels} channels, mean weights {means}")


def tables(manifest: Manifest, report: LayerReport | None) -> Iterator[Table]:
    """What a manifest states: facts, graphs, engines, the layers of a report of them, files."""
    from edgetrack.cli.console import human_size
    from edgetrack.presentation.table import Column, Table, facts

    def text(title: str) -> Column:
        return Column(title, align="left")

    yield facts(_facts(manifest))
    graphs = [
        (
            graph.name,
            {"init": "once per target", "step": "every frame", "choice": "when chosen"}[graph.role],
            _signature(graph.inputs),
            _signature(graph.outputs),
            graph.flops / 1e9,
            graph.file,
        )
        for graph in manifest.graphs
    ]
    yield Table((*map(text, ("graph", "runs", "inputs", "outputs")), Column("GFLOP", 3), text("file")), graphs)
    engines = []
    for engine in (engine for graph in manifest.graphs for engine in graph.engines):
        file = str(engine["file"])
        said = (f"{key} {value}" for key, value in engine.items() if key != "file" and not key.endswith("sha256"))
        engines.append((file, ", ".join(said), human_size(manifest.files[file].size)))
    if engines:
        yield Table((text("engine"), text("recorded"), Column("size")), engines)
    if report is not None:
        layers: list[tuple[str | int, ...]] = []
        for name, listed in report.graphs.items():
            types, numbers = (
                ", ".join(f"{n} {t}" for t, n in c.items()) for c in (listed.types(), listed.precisions())
            )
            layers.append((name, len(listed.layers), types, numbers, f"{listed.source}, {listed.tool}"))
        yield Table((text("graph"), Column("layers"), *map(text, ("of type", "returning", "according to"))), layers)
    files = [(name, human_size(info.size), info.sha256[:16]) for name, info in manifest.files.items()]
    yield Table((text("file"), Column("size"), text("sha256")), files)


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    from edgetrack.cli.console import human_size
    from edgetrack.runtime.trackers.base import find_procedure

    weights = manifest.weights
    described = (weights.origin, weights.file, weights.note and f"({weights.note})")
    yield "tracker", manifest.title
    yield "target", f"{manifest.target}, {manifest.precision}"
    yield "weights", " ".join(part for part in described if part)
    yield "weights sha256", weights.sha256 or "none"
    if weights.licence is not msgspec.UNSET:
        passed = "may" if weights.licence.redistribution else "may not"
        yield "licence", f"{weights.licence.name}; the weights {passed} be passed on"
    if weights.parameters is not None:
        yield "parameters", f"{weights.parameters:,} of the network as published"
    yield "made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items())
    if manifest.overrides:
        yield "set", ", ".join(manifest.settings)
    yield "procedure", ", ".join(f"{k} {v}" for k, v in manifest.procedure.items())
    forecast = find_procedure(manifest).memory_estimate(manifest)
    if forecast is not None:
        yield "memory", forecast.text()
    if manifest.calibration is not None:
        found = manifest.calibration
        yield "calibration", f"{found.method}; {found.size} crops, list {found.list_sha256[:16]}"
    if manifest.precision_exceptions:
        kept = (f"{node} ({precision})" for node, precision in manifest.precision_exceptions.items())
        yield "exceptions", ", ".join(kept)
    yield "size", human_size(sum(f.size for f in manifest.files.values()))


def _signature(tensors: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype}[{'x'.join(map(str, t.shape))}]" for t in tensors)
