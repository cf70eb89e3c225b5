"""`edgetrack calibrate`: calibration sets, made by running a tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli.options import CalibSeedOption, CalibSizeOption, LayoutOption, OverwriteOption
from edgetrack.cli.verbosity import with_verbosity

app = typer.Typer(
    help="Make and show calibration sets: lists of the crops on which INT8 ranges are observed.", no_args_is_help=True
)


@app.command()
@with_verbosity
def collect(
    bundle: Annotated[str, typer.Argument(help="Bundle that tracks: a folder, zip or name, best an fp32 one.")],
    dataset: Annotated[str, typer.Argument(help="Sequences with boxes, a video with its boxes, or synthetic:[NAME].")],
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


@app.command()
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
