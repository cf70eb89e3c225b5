"""`edgetrack track`: follow a target through a video and write its boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def track(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, zip or name.")],
    source: Annotated[
        str, typer.Argument(help="A video, a folder of images, a glob, a camera's number, or synthetic:NAME.")
    ],
    aux: Annotated[
        str | None,
        typer.Option(help="Second images (thermal, depth or event), as SOURCE, for a tracker that takes two a frame."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="What is said of the target, for a tracker that reads it: ATTRIBUTE=PHRASE, repeated, or one sentence."
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(help="The target in the first frame: x,y,w,h in pixels; else the source's ground truth."),
    ] = None,
    select: Annotated[bool, typer.Option("--select", help="Draw the box with the mouse.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Boxes as .txt, .csv or .json; else printed.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="Write a video with box, score and fps (.mp4 or .avi).")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the frames in a window; Esc or q stops.")] = False,
    device: Annotated[str, typer.Option(help="Where to run: cpu.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of an inference; all usable cores if left out.")] = None,
    precision_hint: Annotated[str | None, typer.Option(help="Arithmetic to ask the backend for: bf16.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="How past crops are kept: exact, exact:disk or bounded:M; else as the bundle says."),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Track one target through a video."""
    from edgetrack.box import Box
    from edgetrack.cli.console import print_json, progress_bar
    from edgetrack.errors import UsageError
    from edgetrack.media import BoxRecord
    from edgetrack.tracking import Job, follow

    if box is not None and select:
        raise UsageError("--box and --select exclude each other; give one of them")
    job = Job(
        bundle=bundle,
        source=source,
        box=None if box is None else Box.parse(box),
        select=select,
        boxes=output,
        video=video,
        show=show,
        frames=frames,
        overwrite=overwrite,
        device=device,
        threads=threads,
        precision_hint=precision_hint,
        aux=aux,
        memory=memory,
        text=tuple(text or ()),
    )
    print_boxes = output is None and not as_json

    def print_box(record: BoxRecord) -> None:
        if print_boxes:
            typer.echo(",".join(f"{value:.4f}" for value in record.box))

    summary = follow(job, on_record=print_box, progress=progress_bar("tracking"))
    if as_json:
        print_json({"schema": 1, **summary.as_dict()})
    else:
        typer.echo(summary.text(), err=print_boxes)
