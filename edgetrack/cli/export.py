"""`edgetrack export`: checkpoint to bundle."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import typer.main
from typer.core import TyperCommand

from edgetrack.capabilities import best_target, find_target, target_names, targets

if TYPE_CHECKING:
    from edgetrack.evaluation.protocols.anchored import Anchored
    from edgetrack.export.isolated import Exported
    from edgetrack.export.pipeline import Plan
    from edgetrack.quantization.accuracy_control import AccuracyControl


class ExportCommand(TyperCommand):
    """The verb, with the options that single targets declare; `context.obj` holds those that were given.

    The exporters' modules are imported only when the verb is run or its help is asked for.
    """

    def get_params(self, ctx: Any) -> Any:
        """The options of all targets stand behind the verb's own."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_target_parameters(), help_option]

    def invoke(self, ctx: Any) -> Any:
        """Run the verb, to which the targets' options are no parameters."""
        from edgetrack.cli.options import split_names
        from edgetrack.export.targets.base import option_fields

        found = {name: (ctx.params.pop(name), several) for name, _, several in option_fields()}
        ctx.obj = {name: split_names(value) if several else value for name, (value, several) in found.items() if value}
        return super().invoke(ctx)


def _target_parameters() -> list[Any]:
    """The targets' own options, as typer makes them of a function's parameters."""
    from edgetrack.export.targets.base import option_fields

    def function(**options: Any) -> None:
        """Its signature is all that is used."""

    kind: dict[str, Any] = {name: list[str] | None if several else str | None for name, _, several in option_fields()}
    function.__annotations__ = kind
    function.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=typer.Option(None, help=text), annotation=kind[name]
        )
        for name, text, _ in option_fields()
    ])  # fmt: skip
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return list(typer.main.get_command(app).params)


def export(
    context: typer.Context,
    tracker: Annotated[
        str, typer.Argument(help="A tracker's name (see `edgetrack list --trackers`) or a recipe file.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(target_names())}; else the first of them that is installed. Several, as a,b, or all: "
            "each in a process of its own."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="See `edgetrack list --targets`.")] = "fp32",
    weights: Annotated[
        str | None,
        typer.Option(help="Path of a checkpoint, `default` (what ships with edgetrack) or `untrained`."),
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(
            help="An ONNX file of each graph to start from, such as template.onnx; repeat it for every graph."
        ),
    ] = None,
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
    calib: Annotated[
        list[str] | None,
        typer.Option(help="Calibration crops: a set's name or file, or clips with boxes to track; may be repeated."),
    ] = None,
    calib_size: Annotated[int, typer.Option(min=1, help="Crops to collect from clips.")] = 300,
    calib_method: Annotated[str, typer.Option(help="INT8 ranges: minmax, percentile or histogram.")] = "minmax",
    bias_correction: Annotated[str, typer.Option(help="INT8 weights: fast, full or none.")] = "fast",
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="INT8: one scale a weight, not a channel.")] = False,
    smooth_quant: Annotated[float | None, typer.Option(help="INT8: SmoothQuant's alpha, 0..1; else off.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Stages that stay in fp32: a,b, or none; the recipe's if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the crops that are collected.")] = 0,
    max_drop: Annotated[
        float | None, typer.Option(help="Accuracy control: points of AO that the precision may cost on --val.")
    ] = None,
    val: Annotated[str | None, typer.Option(help="Accuracy control: annotated sequences.")] = None,
    val_frames: Annotated[int | None, typer.Option(min=2, help="Only so many frames of each of them.")] = None,
    anchors: Annotated[int, typer.Option(min=1, help="Accuracy control: frames between the starts of runs.")] = 40,
    anchor_length: Annotated[int, typer.Option(min=1, help="Accuracy control: frames of a run.")] = 20,
    on_drop: Annotated[str, typer.Option(help="Where it costs more: revert (keep stages in fp32) or fail.")] = "revert",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure every stage even if all is well.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Validation sequences at a time.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a checkpoint into a bundle that runs without PyTorch, and prove that it computes the same."""
    if target is not None and (target == "all" or "," in target):
        _export_separately(context, target, precision, as_json)
        return
    from edgetrack.cli.console import print_json, stages
    from edgetrack.cli.options import split_names
    from edgetrack.evaluation.protocols.anchored import Anchored
    from edgetrack.export.isolated import Exported, Worst
    from edgetrack.export.lowering import Correction, Method, Ranges
    from edgetrack.export.pipeline import ExportRequest, plan
    from edgetrack.export.targets.base import read_options
    from edgetrack.quantization.calibration import DEFAULT
    from edgetrack.quantization.collect import Wish
    from edgetrack.quantization.lower import LoweringRequest, check_lowering
    from edgetrack.quantization.lower import export as run
    from edgetrack.quantization.sources import Sources

    control = None
    if max_drop is not None or val is not None or sensitivity:
        control = _control(
            max_drop, val, val_frames, Anchored(anchors, anchor_length), on_drop, sensitivity, jobs, precision
        )
    chosen = best_target().name if target is None else target
    request = ExportRequest(
        tracker=tracker,
        target=chosen,
        precision=precision,
        weights=weights,
        onnx=tuple(onnx or ()),
        output=output,
        overwrite=overwrite,
        opset=opset,
        atol=atol,
        rtol=rtol,
        parity_sources=tuple(parity_source or ()),
        options=read_options(find_target(chosen), context.obj or {}),
    )
    lowering = LoweringRequest(
        calibration=Sources(tuple(calib or (DEFAULT,)), None, Wish(calib_size, seed)),
        method=Method(cast(Ranges, calib_method), cast(Correction, bias_correction), not per_tensor, smooth_quant),
        keep=None if (kept := split_names(keep)) is None else tuple(name for name in kept if name != "none"),
        control=control,
    )
    work = plan(request)
    if dry_run:
        check_lowering(work, lowering)
        typer.echo(_plan_text(work))
        return
    with stages(f"exporting {work.name}") as progress:
        try:
            report = run(work, lowering, progress=progress)
        finally:
            if control is not None and control.found is not None:
                _show(control)
    found = Exported(
        bundle=str(report.path),
        target=report.manifest.target,
        weights=report.manifest.weights.origin,
        comparisons=report.comparisons,
        reference=report.reference,
        not_run=report.not_run,
        worst=Worst(report.worst, report.worst_abs),
    )
    if as_json:
        print_json(found)
    else:
        typer.echo(_report_text(found))


def _report_text(found: Exported) -> str:
    return (
        f"{found.bundle}  ({found.weights} weights)\n"
        f"parity: {found.comparisons} comparisons with {found.reference} pass; "
        f"largest difference {found.worst.max_abs:.2g} ({found.worst.name})"
        + (f"\nnot run: {found.not_run}" if found.not_run else "")
    )


def _export_separately(context: typer.Context, wish: str, precision: str, as_json: bool) -> None:
    """The same command for every target, in a process of its own."""
    from edgetrack.cli.console import print_json, stderr
    from edgetrack.errors import UsageError
    from edgetrack.export.isolated import export_each, targets_of

    given = _given(context)
    for option in ("output", "dry_run"):
        if option in given:
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for one target; leave it out, or give one --target")
    names = targets_of(wish, precision)
    commands = {name: _arguments(given, name) for name in names}
    together = export_each(commands, progress=lambda line: stderr().print(line, markup=False, soft_wrap=True))
    if as_json:
        print_json(together)
    else:
        for found in together.results:
            typer.echo(_report_text(found))
        for failure in together.failures:
            typer.echo(f"FAILED: {failure.target}: {failure.message}")
    if together.exit_code:
        raise typer.Exit(together.exit_code)


def _given(context: typer.Context) -> dict[str, list[str]]:
    """What stood on the command line: parameter -> words that say it again."""
    words: dict[str, list[str]] = {}
    for parameter in context.command.get_params(context):
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        value = {**context.params, **(context.obj or {})}[name]
        if parameter.param_type_name == "argument":
            words[name] = [str(value)]
        elif isinstance(value, bool):
            words[name] = [parameter.opts[0]]
        else:
            several = value if isinstance(value, (list, tuple)) else [value]
            words[name] = [word for one in several for word in (parameter.opts[0], str(one))]
    return words


def _arguments(given: dict[str, list[str]], target: str) -> list[str]:
    """The command for one target: options that are for other targets alone are left out."""
    from edgetrack.export.targets.base import exporter_of

    row = find_target(target)
    fields = {other.name: exporter_of(other).options_type.__struct_fields__ for other in targets() if other.exporter}
    foreign = {name for names in fields.values() for name in names} - set(fields[row.name])
    kept = [name for name in given if name not in {*foreign, "target", "as_json", "tracker"}]
    return [*given["tracker"], "--target", target, *(word for name in kept for word in given[name]), "--json"]


def _control(
    max_drop: float | None,
    val: str | None,
    frames: int | None,
    plan: Anchored,
    on_drop: str,
    sensitivity: bool,
    jobs: int,
    precision: str,
) -> AccuracyControl:
    from edgetrack.errors import UsageError
    from edgetrack.evaluation.datasets import open_dataset
    from edgetrack.quantization.accuracy_control import AccuracyControl

    if precision == "fp32":
        raise UsageError("--max-drop, --val and --sensitivity are for precisions below fp32; give --precision")
    if max_drop is None or val is None:
        raise UsageError("accuracy control needs both --max-drop POINTS and --val SEQUENCES")
    if on_drop not in ("revert", "fail"):
        raise UsageError(f"--on-drop {on_drop!r}: expected revert or fail")
    return AccuracyControl(
        open_dataset(val), max_drop / 100, plan, frames, jobs, None, revert=on_drop == "revert", map_always=sensitivity
    )


def _show(control: AccuracyControl) -> None:
    from edgetrack.cli.console import stderr
    from edgetrack.quantization.sensitivity import lines

    if control.found is not None:
        for line in lines(control.found):
            stderr().print(line, markup=False, soft_wrap=True, highlight=False)


def _plan_text(work: Plan) -> str:
    request = work.request
    reference = "given ONNX" if request.onnx else "PyTorch"
    return "\n".join(
        (
            f"tracker    {work.recipe.title}",
            f"weights    {', '.join(map(str, request.onnx)) or request.weights}",
            f"target     {work.target.name}, {request.precision}: {work.target.about}",
            f"opset      {request.opset}",
            f"parity     |difference| <= {work.tolerance.atol:g} + {work.tolerance.rtol:g} x |{reference}|, "
            f"on built-in scenes{''.join(f', {s}' for s in request.parity_sources)} and noise",
            f"writes     {work.output}{' (replacing it)' if request.overwrite and work.output.exists() else ''}",
        )
    )
