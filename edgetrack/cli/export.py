"""`edgetrack export`: checkpoint to bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetrack.capabilities import best_target, target_names

if TYPE_CHECKING:
    from edgetrack.export.pipeline import Plan


def export(
    tracker: Annotated[
        str, typer.Argument(help="A tracker's name (see `edgetrack list --trackers`) or a recipe file.")
    ],
    target: Annotated[
        str | None, typer.Option(help=f"{', '.join(target_names())}; else the first of them that is installed.")
    ] = None,
    precision: Annotated[str, typer.Option(help="See `edgetrack list --targets`.")] = "fp32",
    weights: Annotated[str, typer.Option(help="Path of a checkpoint, or `untrained`.")] = "untrained",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle's folder; else out/<tracker>-<target>-<precision>."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")] = False,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 17 or 18.")] = 17,
    atol: Annotated[float | None, typer.Option(help="Absolute parity tolerance in place of the recipe's.")] = None,
    rtol: Annotated[float | None, typer.Option(help="Relative parity tolerance in place of the recipe's.")] = None,
    parity_source: Annotated[
        list[str] | None,
        typer.Option(help="More frames to prove parity on: a sequence folder with ground truth; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a checkpoint into a bundle that runs without PyTorch, and prove that it computes the same."""
    from edgetrack.cli.console import print_json, stages
    from edgetrack.export.pipeline import ExportRequest, plan
    from edgetrack.export.pipeline import export as run

    request = ExportRequest(
        tracker=tracker,
        target=best_target().name if target is None else target,
        precision=precision,
        weights=weights,
        output=output,
        overwrite=overwrite,
        opset=opset,
        atol=atol,
        rtol=rtol,
        parity_sources=tuple(parity_source or ()),
    )
    work = plan(request)
    if dry_run:
        typer.echo(_plan_text(work))
        return
    with stages(f"exporting {work.name}") as progress:
        report = run(request, progress=progress)
    if as_json:
        print_json(
            {
                "schema": 1,
                "bundle": str(report.path),
                "weights": report.manifest.weights.origin,
                "comparisons": report.comparisons,
                "worst": {"name": report.worst, "max_abs": report.worst_abs},
            }
        )
        return
    typer.echo(
        f"{report.path}  ({report.manifest.weights.origin} weights)\n"
        f"parity: {report.comparisons} comparisons with PyTorch pass; largest difference {report.worst_abs:.2g} "
        f"({report.worst})"
    )


def _plan_text(work: Plan) -> str:
    request = work.request
    return "\n".join(
        (
            f"tracker    {work.recipe.title}",
            f"weights    {request.weights}",
            f"target     {work.target.name}, {request.precision}: {work.target.about}",
            f"opset      {request.opset}",
            f"parity     |difference| <= {work.tolerance.atol:g} + {work.tolerance.rtol:g} x |PyTorch|, "
            f"on built-in scenes{''.join(f', {s}' for s in request.parity_sources)} and noise",
            f"writes     {work.output}{' (replacing it)' if request.overwrite and work.output.exists() else ''}",
        )
    )
