"""`edgetrack inspect`: what a bundle says of itself."""

from __future__ import annotations

from edgetrack.cli.options import BundleArgument, JsonOption


def inspect(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Show a bundle's tracker, weights, graphs, procedure and files; runs nothing."""
    from rich.table import Table

    from edgetrack.bundle import open_bundle, read_json
    from edgetrack.cli.console import human_size, print_json, stdout
    from edgetrack.runtime.trackers.base import find_procedure
    from edgetrack.runtime.verify import LAYERS_FILE, LayerReport

    with open_bundle(bundle) as opened:
        manifest = opened.manifest
        report = read_json(opened.path(LAYERS_FILE), LayerReport) if LAYERS_FILE in manifest.files else None
    if as_json:
        print_json(manifest)
        return
    console = stdout()
    weights = manifest.weights
    described = (weights.origin, weights.file, weights.note and f"({weights.note})")
    facts = Table(show_header=False, box=None, title=manifest.name, title_justify="left")
    facts.add_row("tracker", manifest.title)
    facts.add_row("target", f"{manifest.target}, {manifest.precision}")
    facts.add_row("weights", " ".join(part for part in described if part))
    facts.add_row("weights sha256", weights.sha256 or "none")
    facts.add_row("made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items()))
    facts.add_row("procedure", ", ".join(f"{k} {v}" for k, v in manifest.procedure.items()))
    forecast = find_procedure(manifest).memory_estimate(manifest)
    if forecast is not None:
        facts.add_row("memory", forecast.text())
    if manifest.calibration is not None:
        found = manifest.calibration
        facts.add_row("calibration", f"{found.method}; {found.size} crops, list {found.list_sha256[:16]}")
    if manifest.precision_exceptions:
        kept = (f"{node} ({precision})" for node, precision in manifest.precision_exceptions.items())
        facts.add_row("exceptions", ", ".join(kept))
    facts.add_row("size", human_size(sum(f.size for f in manifest.files.values())))
    console.print(facts, markup=False)
    graphs = Table("graph", "runs", "inputs", "outputs", "GFLOP", "file")
    for graph in manifest.graphs:
        sides = [
            "\n".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in side) for side in (graph.inputs, graph.outputs)
        ]
        runs = "once per target" if graph.role == "init" else "every frame"
        graphs.add_row(graph.name, runs, *sides, f"{graph.flops / 1e9:.3f}", graph.file)
    console.print(graphs, markup=False)
    engines = [engine for graph in manifest.graphs for engine in graph.engines]
    if engines:
        compiled = Table("engine", "recorded", "size")
        for engine in engines:
            file = str(engine["file"])
            said = (f"{key} {value}" for key, value in engine.items() if key != "file" and not key.endswith("sha256"))
            compiled.add_row(file, ", ".join(said), human_size(manifest.files[file].size))
        console.print(compiled, markup=False)
    if report is not None:
        layers = Table("graph", "layers", "of type", "returning", "according to")
        for name, listed in report.graphs.items():
            types, numbers = (
                ", ".join(f"{n} {t}" for t, n in c.items()) for c in (listed.types(), listed.precisions())
            )
            layers.add_row(name, str(len(listed.layers)), types, numbers, f"{listed.source}, {listed.tool}")
        console.print(layers, markup=False)
    files = Table("file", "size", "sha256")
    for name, info in manifest.files.items():
        files.add_row(name, human_size(info.size), info.sha256[:16])
    console.print(files, markup=False)
