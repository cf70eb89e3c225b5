"""`edgetrack calibrate`: what is found by running a tracker: calibration sets, and when a target counts as lost."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli import complete
from edgetrack.cli.help import Verb, VerbGroup, page
from edgetrack.cli.options import (
    BundleArgument,
    CalibSeedOption,
    CalibSizeOption,
    FramesOption,
    JobsOption,
    JsonOption,
    LayoutOption,
    LocalDeviceOption,
    OverwriteOption,
    SequencesOption,
    ThreadsOption,
    split_names,
)
from edgetrack.cli.verbosity import with_verbosity


class DumpKind(str, Enum):
    """The values of `dump --format`."""

    npy = "npy"
    npz = "npz"
    rknn = "rknn"
    hailo = "hailo"
    qnn = "qnn"


app = typer.Typer(
    cls=VerbGroup,
    help="Run a tracker to calibrate it: lists of the crops on which INT8 ranges are observed, and the threshold below "
    "which a target counts as lost.",
    no_args_is_help=True,
)


@app.command(cls=Verb, epilog=page("precision.md"))
@with_verbosity
def collect(
    bundle: Annotated[
        str,
        typer.Argument(
            help="Bundle that tracks: a folder, zip or name, best an fp32 one.", autocompletion=complete.bundles
        ),
    ],
    dataset: Annotated[
        str,
        typer.Argument(
            help="Sequences with boxes, a video with its boxes, or synthetic:[NAME].", autocompletion=complete.datasets
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of the set, which must end in .toml.")],
    calib_size: CalibSizeOption = 300,
    seed: CalibSeedOption = 0,
    layout: LayoutOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Run a tracker over clips and list the search regions that it cuts, half of them jittered as in training."""
    from edgetrack.cli.console import print_text, stages
    from edgetrack.errors import UsageError
    from edgetrack.io import check_output, write_whole
    from edgetrack.quantization.calibration import CalibrationSources, CropSampling, make_set, to_toml
    from edgetrack.runtime.session import load

    name = output.stem.lower().replace(" ", "-")
    if output.suffix != ".toml":
        raise UsageError(f"--output {output}: a set's file ends in .toml; try {output.with_suffix('.toml')}")
    check_output(output, overwrite=overwrite)
    with load(bundle) as tracker, stages("collecting") as progress:
        found = CalibrationSources((dataset,), layout, CropSampling(calib_size, seed)).choose(
            tracker.procedure, progress
        )
        weights = tracker.manifest.weights.origin
        about = f"{tracker.manifest.tracker}, {weights} weights, tracked; seed {seed}"
    chosen = make_set(name, found.parts, about)
    write_whole(output, to_toml(chosen).encode())
    print_text(f"{output}: {chosen.size} crops of {len({i.clip for p in chosen.parts for i in p.items})} clips")


@app.command(cls=Verb, epilog=page("precision.md"))
@with_verbosity
def show(name: Annotated[str, typer.Argument(help="Name or file of a set.")]) -> None:
    """Print what a set holds; its hash is checked."""
    from edgetrack.cli.console import print_text
    from edgetrack.quantization.calibration import find_set

    found = find_set(name)
    print_text(f"{found.name}: {found.size} crops, sha256 {found.sha256}\n{found.about}")
    for part in found.parts:
        clips: dict[str, int] = {}
        for item in part.items:
            clips[item.clip] = clips.get(item.clip, 0) + 1
        listed = ", ".join(f"{clip} {count}" for clip, count in clips.items())
        print_text(f"{part.dataset}: {listed}")


@app.command(cls=Verb, epilog=page("lost.md"))
@with_verbosity
def lost(
    bundle: BundleArgument,
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Sequences with boxes, as `eval` takes them; several.",
            autocompletion=complete.datasets,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a calibrated copy of the bundle, or of its recipe to a .toml file."),
    ] = None,
    false_alarms: Annotated[
        str, typer.Option(metavar="RATE", help="Share of frames on target that may be flagged, such as 0.5%.")
    ] = "0.5%",
    hysteresis: Annotated[
        int, typer.Option(min=1, max=1000, help="Frames in a row that it takes to become lost, or found again.")
    ] = 1,
    recipe: Annotated[
        str | None, typer.Option(help="With -o FILE.toml: the recipe to copy. Default: that of the bundle's tracker.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder that keeps the runs. Default: out/eval/BUNDLE, as `eval`.")
    ] = None,
    layout: LayoutOption = None,
    sequences: SequencesOption = None,
    frames: FramesOption = None,
    jobs: JobsOption = 1,
    threads: ThreadsOption = None,
    device: LocalDeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the score below which a target counts as lost, at a stated rate of false alarms; refuse where none does."""
    from edgetrack.capabilities import open_ref
    from edgetrack.cli.console import print_json, print_text, stdout
    from edgetrack.cli.evaluate import resumable_progress
    from edgetrack.evaluation.config import EvalConfig
    from edgetrack.evaluation.datasets import Dataset, open_dataset
    from edgetrack.evaluation.lost_model import calibrate_lost, parse_rate
    from edgetrack.evaluation.lost_report import LostOutput, calibration_table

    rate = parse_rate(false_alarms)
    ref = open_ref(bundle)
    target = LostOutput.check(ref, output, recipe, overwrite=overwrite)

    def config(dataset: Dataset) -> EvalConfig:
        return EvalConfig(dataset=dataset, jobs=jobs, threads=threads, frames=frames, device=device, output=runs)

    opened = [open_dataset(one, layout).select(split_names(sequences)) for one in datasets]
    with resumable_progress() as progress:
        found = calibrate_lost(ref, opened, rate=rate, hysteresis=hysteresis, config=config, progress=progress)
    target.write(found.model)
    if found.warning is not None:
        print_text(f"note: {found.warning}", err=True)
    if as_json:
        print_json(found)
        return
    calibration_table(found).show(stdout())
    print_text("nothing was written; add -o BUNDLE or -o RECIPE.toml" if output is None else f"{output}: calibrated")


@app.command("dump", cls=Verb, epilog=page("precision.md"))
@with_verbosity
def write_dump(
    bundle: Annotated[
        str,
        typer.Argument(
            help="Bundle whose graphs are to be quantized: a folder, zip or name.", autocompletion=complete.bundles
        ),
    ],
    dataset: Annotated[
        str, typer.Argument(metavar="SET", help="A set by name or .toml file, or sequences to collect one from.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    kind: Annotated[
        DumpKind, typer.Option("--format", help="Whose format the files have; see docs/precision.md.")
    ] = DumpKind.npy,
    calib_size: CalibSizeOption = 300,
    seed: CalibSeedOption = 0,
    layout: LayoutOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write what every graph is fed on a calibration set, as the quantizer of another vendor reads it."""
    from edgetrack.cli.console import print_text, stages
    from edgetrack.quantization.calibration import CalibrationSources, CropSampling
    from edgetrack.quantization.dump import check_folder, dump
    from edgetrack.runtime.session import load

    check_folder(output, overwrite=overwrite)
    sources = CalibrationSources((dataset,), layout, CropSampling(calib_size, seed))
    sources.check()
    with load(bundle) as tracker, stages("dumping") as progress:
        made = dump(tracker, sources, output, kind.value, overwrite=overwrite, progress=progress)
    for name, graph in made.graphs.items():
        inputs = ", ".join(f"{i.written_as} {i.written_dtype}{list(i.written_shape)}" for i in graph.inputs)
        print_text(f"{name}: {len(graph.samples)} samples of {inputs}")
    size = sum(file.size for file in made.files.values())
    print_text(f"{output}: {len(made.files)} files, {size / 2**20:.1f} MiB, set {made.set_sha256[:16]}")
