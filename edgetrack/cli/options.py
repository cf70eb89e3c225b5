"""Options that several verbs share: one name, one meaning, one unit, one help text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli import complete

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, zip or name.", autocompletion=complete.bundles)
]

DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Where to run: cpu, cuda:0, or a device such as jetson, see docs/devices.md. Default: cpu.",
        autocompletion=complete.devices,
    ),
]
LocalDeviceOption = Annotated[str, typer.Option("--device", help="Where to run: cpu or cuda:0.")]
HostOption = Annotated[
    str | None, typer.Option("--host", help="Run over SSH on HOST, USER@HOST or USER@HOST:PORT; keys only.")
]
HereOption = Annotated[
    bool, typer.Option("--here", help="Take this machine for the --device, even if it does not look like it.")
]
RecoverOption = Annotated[
    bool,
    typer.Option(
        "--recover", help="Search for a target that is lost; the bundle must be calibrated, see docs/lost.md."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="Threads per inference. Default: all usable cores."),
]
PrecisionHintOption = Annotated[
    str | None, typer.Option("--precision-hint", help="Arithmetic to ask the backend for, such as bf16.")
]
JobsOption = Annotated[
    int,
    typer.Option("--jobs", min=1, help="Sequences to run at a time, each in its own process; they share the cores."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]

SourceOption = Annotated[
    str | None,
    typer.Option("--source", help="Frames: a video, a folder, or synthetic:NAME. Default: a 1280x720 scene."),
]
BoxOption = Annotated[
    str | None,
    typer.Option(
        "--box", help="The target in the first frame as x,y,w,h in pixels. Default: the source's ground truth."
    ),
]
FramesOption = Annotated[int | None, typer.Option("--frames", min=1, help="Use at most this many frames per sequence.")]
LayoutOption = Annotated[
    str | None, typer.Option("--layout", help="How the data set is laid out. Default: recognized from its files.")
]
SequencesOption = Annotated[
    list[str] | None, typer.Option("--sequences", help="Use only these sequences, as a,b,c. May be repeated.")
]

CalibSizeOption = Annotated[
    int, typer.Option("--calib-size", min=1, help="Number of calibration crops to collect from clips.")
]
CalibSeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the calibration sampling.")]

AnchorsOption = Annotated[int, typer.Option("--anchors", min=1, help="Frames between the starts of anchored runs.")]
AnchorLengthOption = Annotated[int, typer.Option("--anchor-length", min=1, help="Frames of an anchored run.")]

TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="Longest wait for one answer of a worker, as 45s or 2m.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print the result as a Markdown table.")]
RunsOutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="FILE.json: write the result as JSON to this file. Any other name: keep runs and result in this folder.",
    ),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write the result as JSON to this file.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Start again instead of resuming what an interrupted run has kept.")
]


def split_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Names separated by commas, by repeating the option, or both; None where the option was left out."""
    if given is None:
        return None
    return tuple(name for text in given for part in text.split(",") if (name := part.strip()))


def given_words(context: typer.Context) -> dict[str, list[str]]:
    """What stood on the command line, or in a file of defaults: parameter -> words that say it again."""
    words: dict[str, list[str]] = {}
    for parameter in context.command.get_params(context):
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name not in ("COMMANDLINE", "DEFAULT_MAP"):
            continue
        value = {**context.params, **(context.obj or {})}[name]
        several = value if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            words[name] = [str(one) for one in several]
        elif isinstance(value, bool):
            words[name] = [*(parameter.opts if value else parameter.secondary_opts)][:1]
        elif parameter.nargs > 1:
            words[name] = [parameter.opts[0], *map(_word, several)]
        else:  # `=` keeps a value that begins with a dash from being taken for an option
            words[name] = [f"{parameter.opts[0]}={_word(one)}" for one in several]
    return words


def _word(value: object) -> str:
    return str(value.value if isinstance(value, Enum) else value)
