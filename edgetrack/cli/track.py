"""`edgetrack track`: follow a target through a video and write its boxes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetrack.cli.device import DeviceCommand, chosen_device
from edgetrack.cli.options import (
    BundleArgument,
    DeviceOption,
    FramesOption,
    HereOption,
    HostOption,
    JsonOption,
    OverwriteOption,
    PrecisionHintOption,
    RecoverOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.tracking import TrackRequest


class OnBadFrame(str, Enum):
    """The values of `--on-bad-frame`."""

    stop = "stop"
    skip = "skip"


class Exif(str, Enum):
    """The values of `--exif`."""

    apply = "apply"
    ignore = "ignore"


def track(
    context: typer.Context,
    bundle: BundleArgument,
    source: Annotated[
        str,
        typer.Argument(
            help="A video, a folder of images, a glob, synthetic:NAME, or a live source: a camera's number, "
            "/dev/videoN, rtsp://, http://, udp://, gst:PIPELINE, csi:N or libcamera:N, see docs/live.md."
        ),
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
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="The target in the first frame as x,y,w,h in pixels. Repeat it to follow several, numbered from 1. "
            "Default: the source's ground truth."
        ),
    ] = None,
    select: Annotated[bool, typer.Option("--select", help="Draw the box with the mouse.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the boxes to this .txt, .csv, .json or .jsonl file. Default: print them."
        ),
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
    device: DeviceOption = None,
    host: HostOption = None,
    here: HereOption = False,
    threads: ThreadsOption = None,
    precision_hint: PrecisionHintOption = None,
    tuned: Annotated[
        bool,
        typer.Option(
            "--tuned",
            help="Take bundle, threads and hint from `edgetrack tune` on this machine; BUNDLE may be a tracker.",
        ),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(help="How past frames are kept: exact, exact:disk or bounded:M. Default: as the bundle says."),
    ] = None,
    recover: RecoverOption = False,
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
    latest: Annotated[
        bool | None,
        typer.Option(
            "--latest/--every-frame",
            help="Of a live source, track the newest frame and drop those that were missed, or let every frame wait. "
            "Default: the newest of a live source, every frame of a file.",
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Show how old each frame of a live source is when its box is there.")
    ] = False,
    reconnect: Annotated[
        str,
        typer.Option(metavar="TIME", help="Open a live source that broke again and again for this long. 0: never."),
    ] = "30s",
    source_timeout: Annotated[
        str,
        typer.Option(metavar="TIME", help="Longest wait for a live source's connection and for each of its frames."),
    ] = "10s",
    frames: FramesOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Track one target through a video, or several."""
    from edgetrack.box import Box
    from edgetrack.capabilities import open_ref
    from edgetrack.cli.console import print_json, print_text, progress_bar
    from edgetrack.errors import UsageError
    from edgetrack.io import parse_duration
    from edgetrack.media import BoxRecord, ReadOptions
    from edgetrack.media.frames import parse_range
    from edgetrack.runtime.tuned import find_choice
    from edgetrack.tracking import TrackRequest, follow

    if box and select:
        raise UsageError("--box and --select exclude each other; give one of them")
    if tuned:
        if any(one is not None for one in (device, host, threads, precision_hint)):
            raise UsageError(
                "--tuned decides on --threads and --precision-hint on this machine; leave those and --device out"
            )
        found = find_choice(bundle)
        print_text(f"edgetrack: tuned: {found}", err=True)
        bundle, device, threads, precision_hint = found.bundle, found.device, found.threads, found.hint
    choice = chosen_device(device, host, here)
    job = TrackRequest(
        bundle=bundle,
        source=source,
        targets=tuple(map(Box.parse, box or ())),
        select=select,
        boxes=output,
        video=video,
        show=show,
        frames=frames,
        overwrite=overwrite,
        device=choice.device if choice.profile is None else choice.placed(open_ref(bundle)).device or choice.device,
        threads=threads,
        precision_hint=precision_hint,
        aux=aux,
        memory=memory,
        recover="expand" if recover else None,
        text=tuple(text or ()),
        attention=attention,
        reading=ReadOptions(
            on_bad_frame=on_bad_frame.value,
            exif=exif.value,
            value_range=None if value_range is None else parse_range(value_range),
            ground_truth=not box,
            timeout_s=parse_duration(source_timeout, "--source-timeout"),
            reconnect_s=parse_duration(reconnect, "--reconnect", zero_allowed=True),
        ),
        latest=latest,
        show_age=live,
    )
    if choice.host is not None:
        _track_there(context, choice, job, as_json)
        return
    print_boxes = output is None and not as_json
    newest: BoxRecord | None = None

    def take(record: BoxRecord) -> None:
        nonlocal newest
        newest = record
        if print_boxes:
            number = "" if record.target is None else f"{record.target},"
            typer.echo(number + ",".join(f"{value:.4f}" for value in record.box))

    def title() -> str:
        if not live or newest is None or newest.age_ms is None:
            return "tracking"
        return f"tracking: frame {newest.frame}, {newest.age_ms:.0f} ms old at its box"

    def say(event: str) -> None:
        print_text(f"edgetrack: {event}", err=True)

    summary = follow(job, on_record=take, on_event=say, progress=progress_bar(title))
    if summary.signal is not None and summary.live is None:
        raise KeyboardInterrupt(summary.signal)
    if as_json:
        print_json({"schema": 1, **summary.as_dict()})
    else:
        print_text(summary.text(), err=print_boxes)


def _track_there(context: typer.Context, choice: DeviceChoice, job: TrackRequest, as_json: bool) -> None:
    from edgetrack.capabilities import open_ref
    from edgetrack.cli.console import print_json
    from edgetrack.errors import UsageError
    from edgetrack.io import check_output

    if job.select or job.show:
        raise UsageError("--select and --show need a window beside the tracker; give --box, or --video with a device")
    for path in (job.boxes, job.video):
        check_output(path, overwrite=job.overwrite)
    with DeviceCommand(context, choice, "track") as there:
        there.say("bundle", there.bundle(open_ref(job.bundle)))
        there.say("source", there.source(job.source))
        if job.aux is not None:
            there.say("aux", f"--aux={there.source(job.aux)}")
        there.writes("output", job.boxes)
        there.writes("video", job.video)
        found = there.run(*(["--json"] if as_json else []))
    if as_json:
        print_json(found.record(dict[str, Any]))
    else:
        for line in found.lines():
            typer.echo(line)
    found.check()
