"""`edgetrack track`: follow a target through a video and write its boxes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli.options import (
    BoxOption,
    BundleArgument,
    FramesOption,
    JsonOption,
    LocalDeviceOption,
    OverwriteOption,
    PrecisionHintOption,
    ThreadsOption,
)


class OnBadFrame(str, Enum):
    """The values of `--on-bad-frame`."""

    stop = "stop"
    skip = "skip"


class Exif(str, Enum):
    """The values of `--exif`."""

    apply = "apply"
    ignore = "ignore"


def track(
    bundle: BundleArgument,
    source: Annotated[
        str, typer.Argument(help="A video, a folder of images, a glob, a camera's number, or synthetic:NAME.")
    ],
    aux: Annotated[
        str | None,
        typer.Option(
            help="Second images (thermal, depth or event), given like SOURCE, for a tracker that takes two a frame."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Description of the target, for a tracker that reads one: ATTRIBUTE=PHRASE, repeated, or a sentence."
        ),
    ] = None,
    box: BoxOption = None,
    select: Annotated[bool, typer.Option("--select", help="Draw the box with the mouse.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the boxes to this .txt, .csv or .json file. Default: print them."),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Write a video with box, score and frames/s to this .mp4 or .avi file.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the frames in a window. Esc or q stops.")] = False,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention",
            help="Lay the tracker's maps of attention over the picture; the bundle must have them, see docs/run.md.",
        ),
    ] = False,
    device: LocalDeviceOption = "cpu",
    threads: ThreadsOption = None,
    precision_hint: PrecisionHintOption = None,
    memory: Annotated[
        str | None,
        typer.Option(help="How past frames are kept: exact, exact:disk or bounded:M. Default: as the bundle says."),
    ] = None,
    on_bad_frame: Annotated[
        OnBadFrame,
        typer.Option(help="What to do with a frame that cannot be read: stop, or skip it, counted and said."),
    ] = OnBadFrame.stop,
    exif: Annotated[
        Exif,
        typer.Option(help="Turn images upright as their EXIF data say (apply), or take them as stored (ignore)."),
    ] = Exif.apply,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range", help="Values of 16-bit and float images that become 0 and 255: LOW:HIGH, or percentile."
        ),
    ] = None,
    frames: FramesOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Track one target through a video."""
    from edgetrack.box import Box
    from edgetrack.cli.console import print_json, print_text, progress_bar
    from edgetrack.errors import UsageError
    from edgetrack.media import BoxRecord, ReadOptions
    from edgetrack.media.frames import parse_range
    from edgetrack.tracking import TrackRequest, follow

    if box is not None and select:
        raise UsageError("--box and --select exclude each other; give one of them")
    job = TrackRequest(
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
        attention=attention,
        reading=ReadOptions(
            on_bad_frame=on_bad_frame.value,
            exif=exif.value,
            value_range=None if value_range is None else parse_range(value_range),
            ground_truth=box is None,
        ),
    )
    print_boxes = output is None and not as_json

    def print_box(record: BoxRecord) -> None:
        if print_boxes:
            typer.echo(",".join(f"{value:.4f}" for value in record.box))

    summary = follow(job, on_record=print_box, progress=progress_bar("tracking"))
    if as_json:
        print_json({"schema": 1, **summary.as_dict()})
    else:
        print_text(summary.text(), err=print_boxes)
