"""`edgetrack export`: checkpoint to bundle."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main

from edgetrack.capabilities import find_target, target_names, targets
from edgetrack.cli import complete
from edgetrack.cli.help import Verb
from edgetrack.cli.options import (
    AnchorLengthOption,
    AnchorsOption,
    CalibSeedOption,
    CalibSizeOption,
    JobsOption,
    JsonOption,
    OverwriteOption,
    given_words,
    split_names,
)
from edgetrack.errors import UsageError
from edgetrack.evaluation import ANCHOR_LENGTH, ANCHOR_SPACING

if TYPE_CHECKING:
    from edgetrack.exporting.isolated import Exported
    from edgetrack.exporting.pipeline import ExportPlan
    from edgetrack.quantization.lower import LoweringRequest


class ExportCommand(Verb):
    """The verb, with the options that single targets declare; `context.obj` holds those that were given.

    The exporters' modules are imported only when the verb is run or its help is asked for.
    """

    def get_params(self, ctx: Any) -> Any:
        """The options of all targets stand behind the verb's own."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_target_parameters(), help_option]

    def invoke(self, ctx: Any) -> Any:
        """Run the verb, to which the targets' options are no parameters."""
        from edgetrack.exporting.targets.base import option_fields

        found = {name: (ctx.params.pop(name), several) for name, _, several in option_fields()}
        ctx.obj = {name: split_names(value) if several else value for name, (value, several) in found.items() if value}
        return super().invoke(ctx)


def _target_parameters() -> list[Any]:
    """The targets' own options, as typer makes them of a function's parameters."""
    from edgetrack.exporting.targets.base import option_fields

    def function(**options: Any) -> None:
        """Its signature is all that is used."""

    kind: dict[str, Any] = {name: list[str] | None if several else str | None for name, _, several in option_fields()}
    function.__annotations__ = kind
    function.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(None, help=text, metavar="TEXT"),
            annotation=kind[name],
        )
        for name, text, _ in option_fields()
    ])  # fmt: skip
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return list(typer.main.get_command(app).params)


def export(
    context: typer.Context,
    tracker: Annotated[
        str,
        typer.Argument(
            help="A tracker's name (see `edgetrack list --trackers`), `default`, or a recipe file.",
            autocompletion=complete.trackers,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help=f"Target to export for: {', '.join(target_names())}. Several, as a,b, or all: each in a process of "
            "its own. Default: the first of them that is installed.",
            autocompletion=complete.targets,
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of the bundle, see `edgetrack list --targets`.")] = "fp32",
    weights: Annotated[
        str | None,
        typer.Option(help="Path of a checkpoint, `default` (what ships with edgetrack) or `untrained`."),
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(help="ONNX file of a graph to start from, such as template.onnx. Repeat it for every graph."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of the recipe's configuration or procedure otherwise, such as memory=exact. May be "
            "repeated; `edgetrack list --trackers` shows the values of keys that take few.",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            help="Add a graph that runs this many targets of one video at once, for `edgetrack track` with several "
            "--box and `edgetrack.load_many`."
        ),
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the bundle. Default: out/<tracker>[-<--set>]-<target>-<precision>."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    licence: Annotated[
        str | None, typer.Option(help="The weights' licence, an SPDX identifier such as MIT, for the manifest.")
    ] = None,
    redistribute: Annotated[
        bool, typer.Option("--redistribute", help="Note with --licence that the weights may be passed on.")
    ] = False,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 17 or 18.")] = 17,
    atol: Annotated[
        float | None, typer.Option(help="Absolute parity tolerance of this precision in place of the recipe's.")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Relative parity tolerance of this precision in place of the recipe's.")
    ] = None,
    parity_source: Annotated[
        list[str] | None,
        typer.Option(help="Sequence folder with ground truth to prove parity on, too. May be repeated."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="CLIP's merges for a tracker that reads text: bpe_simple_vocab_16e6.txt.gz or merges.txt. Default: "
            "those of an installed package."
        ),
    ] = None,
    calib: Annotated[
        list[str] | None,
        typer.Option(help="Calibration crops: a set's name or file, or clips with boxes to track. May be repeated."),
    ] = None,
    calib_size: CalibSizeOption = 300,
    calib_method: Annotated[str, typer.Option(help="How INT8 ranges are found: minmax, percentile or histogram.")] = (
        "minmax"
    ),
    bias_correction: Annotated[str, typer.Option(help="How INT8 biases are corrected: fast, full or none.")] = "fast",
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="Give each INT8 weight one scale, not one for each channel.")
    ] = False,
    smooth_quant: Annotated[
        float | None, typer.Option(help="Alpha of SmoothQuant for INT8, 0..1. Default: without SmoothQuant.")
    ] = None,
    weight_bits: Annotated[
        int,
        typer.Option(
            metavar="7|8",
            help="Bits of INT8 weights: 7 keeps sums from saturating on x86 processors without VNNI.",
        ),
    ] = 8,
    keep: Annotated[
        list[str] | None, typer.Option(help="Stages that stay in fp32, as a,b, or none. Default: the recipe's.")
    ] = None,
    seed: CalibSeedOption = 0,
    max_drop: Annotated[
        float | None, typer.Option(help="Accuracy control: points of AO that the precision may cost on --val.")
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(help="Accuracy control: annotated sequences to measure AO on.", autocompletion=complete.datasets),
    ] = None,
    val_frames: Annotated[
        int | None, typer.Option(min=2, help="Accuracy control: use at most this many frames per sequence.")
    ] = None,
    anchors: AnchorsOption = ANCHOR_SPACING,
    anchor_length: AnchorLengthOption = ANCHOR_LENGTH,
    on_drop: Annotated[
        str, typer.Option(help="Accuracy control: revert stages to fp32, or fail, where the cost is higher.")
    ] = "revert",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Accuracy control: measure every stage even if the cost is met.")
    ] = False,
    jobs: JobsOption = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a checkpoint into a bundle that runs without PyTorch, and prove that it computes the same."""
    if target is not None and (target == "all" or "," in target):
        _export_each(context, target, precision, as_json)
        return
    from edgetrack.requests.exporting import accuracy_control, export_work

    control = accuracy_control(
        precision,
        max_drop=max_drop,
        val=val,
        val_frames=val_frames,
        anchors=anchors,
        anchor_length=anchor_length,
        on_drop=on_drop,
        sensitivity=sensitivity,
        jobs=jobs,
    )
    work, lowering = export_work(
        tracker,
        target=target,
        precision=precision,
        weights=weights,
        onnx=onnx or (),
        settings=settings or (),
        batch=batch,
        output=output,
        overwrite=overwrite,
        licence=licence,
        redistribute=redistribute,
        opset=opset,
        atol=atol,
        rtol=rtol,
        parity_source=parity_source or (),
        tokenizer=tokenizer,
        options=context.obj or {},
        calib=calib or (),
        calib_size=calib_size,
        calib_method=calib_method,
        bias_correction=bias_correction,
        per_tensor=per_tensor,
        smooth_quant=smooth_quant,
        weight_bits=weight_bits,
        keep=split_names(keep),
        seed=seed,
        control=control,
    )
    if dry_run:
        lowering.check(work)
        _show_plan(work, as_json)
    else:
        _export_one(work, lowering, as_json)


def _export_one(work: ExportPlan, lowering: LoweringRequest, as_json: bool) -> None:
    from edgetrack.cli.console import print_json, print_text, stages, stderr
    from edgetrack.quantization.accuracy_control import lines
    from edgetrack.quantization.lower import export as run
    from edgetrack.requests.exporting import exported
    from edgetrack.runtime.trackers.base import find_procedure

    with stages(f"exporting {work.name}") as progress:
        try:
            report = run(work, lowering, progress=progress)
        finally:
            if lowering.control is not None and lowering.control.found is not None:
                for line in lines(lowering.control.found):
                    stderr().print(line)
    found = exported(report)
    if lacking := find_procedure(report.manifest).lacking(report.manifest, report.path):
        stderr().print(lacking, markup=False)
    if as_json:
        print_json(found)
    else:
        print_text(_report_text(found))


def _report_text(found: Exported) -> str:
    worst = found.worst
    relative = f" + {worst.rtol:g} x |{found.reference}|" if worst.rtol else ""
    return (
        f"{found.bundle}  ({found.weights} weights)\n"
        f"parity: {found.comparisons} comparisons with {found.reference} pass; "
        f"largest difference {worst.max_abs:.2g}, allowed {worst.atol:.2g}{relative} ({worst.name})"
        + (f"\nnot run: {found.not_run}" if found.not_run else "")
    )


def _show_plan(work: ExportPlan, as_json: bool) -> None:
    from edgetrack.bundle.manifest import settings_of
    from edgetrack.cli.console import print_json, print_text
    from edgetrack.exporting.memory import needed_mib

    request, tolerance = work.request, work.allowed
    reference = "FP32" if request.precision != "fp32" else "given ONNX" if request.onnx else "PyTorch"
    weights = ", ".join(map(str, request.onnx)) or request.weights
    replaces = request.overwrite and work.output.exists()
    if as_json:
        print_json({
            "schema": 1,
            "tracker": work.recipe.name,
            "weights": weights,
            "overrides": work.overrides,
            "target": work.target.name,
            "precision": request.precision,
            "opset": request.opset,
            "batch": request.batch,
            "reference": reference,
            "atol": tolerance.atol,
            "rtol": tolerance.rtol,
            "parity_sources": request.parity_sources,
            "memory_mib": needed_mib(work.weight_bytes) if work.weight_bytes else None,
            "output": str(work.output),
            "replaces": replaces,
        })  # fmt: skip
        return
    changed = "".join(f"set        {setting}\n" for setting in settings_of(work.overrides))
    sources = "".join(f", {source}" for source in request.parity_sources)
    memory = f"memory     about {needed_mib(work.weight_bytes) / 1024:.1f} GiB\n" if work.weight_bytes else ""
    many = f"targets    {request.batch} at once\n" if request.batch > 1 else ""
    print_text(
        f"tracker    {work.recipe.title}\n"
        f"{changed}"
        f"weights    {weights}\n"
        f"target     {work.target.name}, {request.precision}: {work.target.about}\n"
        f"opset      {request.opset}\n"
        f"{many}"
        f"parity     |difference| <= {tolerance.atol:g} + {tolerance.rtol:g} x |{reference}|, "
        f"on built-in scenes{sources} and noise\n"
        f"{memory}"
        f"writes     {work.output}{' (replacing it)' if replaces else ''}"
    )


def _export_each(context: typer.Context, wanted: str, precision: str, as_json: bool) -> None:
    """The same command for every target, in a process of its own."""
    from edgetrack.cli.console import print_json, print_text, stderr
    from edgetrack.exporting.isolated import export_each, targets_of
    from edgetrack.presentation.progress import heartbeat, shown_progress

    given = given_words(context)
    for option in ("output", "dry_run"):
        if option in given:
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for one target; leave it out, or give one --target")
    names = targets_of(wanted, precision)
    commands = {name: _arguments(given, name) for name in names}
    console = stderr()
    with shown_progress(console) as progress:

        def tell(line: str) -> None:
            now = heartbeat(line)
            console.print(line) if now is None else progress(now, 0, 0)

        progress(f"exporting to {', '.join(names)}", 0, 0)
        exports = export_each(commands, progress=tell)
    if as_json:
        print_json(exports)
    else:
        for found in exports.results:
            print_text(_report_text(found))
        for failure in exports.failures:
            print_text(f"FAILED: {failure.target}: {failure.message}")
    if exports.exit_code:
        raise typer.Exit(exports.exit_code)


def _arguments(given: dict[str, list[str]], target: str) -> list[str]:
    """The command for one target: options that are for other targets alone are left out."""
    from edgetrack.exporting.targets.base import exporter_of

    row = find_target(target)
    fields = {other.name: exporter_of(other).options_type.__struct_fields__ for other in targets() if other.exporter}
    foreign = {name for names in fields.values() for name in names} - set(fields[row.name])
    kept = [name for name in given if name not in {*foreign, "target", "as_json", "tracker"}]
    return [*given["tracker"], "--target", target, *(word for name in kept for word in given[name]), "--json"]
