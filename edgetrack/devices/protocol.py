"""What a workstation and the agent on a device say to each other: one JSON object per line, over SSH's pipes.

    agent        ready           its version, and the folder that files are put into
    workstation  need            files by size and hash; repeated until all are named
    agent        missing         which of them are not there yet; they are uploaded by SFTP
    workstation  place           where files lie in the job's folder; repeated until all are placed
    workstation  run             the verb, its arguments, and what is wanted of what it writes
    agent        step, log, ...  how far it is, and what the verb prints for people
    agent        done            how the verb ended, and its files by size and hash
    workstation  clean           they were fetched: remove them

All the time the workstation sends `beat`; an agent that hears nothing for `PATIENCE_S` ends what it runs.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar, get_args

import msgspec

from edgetrack.bundle.manifest import FileInfo, Sha256
from edgetrack.errors import EdgetrackError, WorkerError
from edgetrack.io import decode_line

PROTOCOL = 2
BEAT_S = 5.0
PATIENCE_S = 60
LONGEST_MESSAGE = 16 << 20
MOST_FILES = 10_000
"""Of one message; a data set takes as many messages as it needs."""

DeviceVerb = Literal["bench", "check", "compare", "eval", "track", "tune", "verify"]
DEVICE_VERBS: tuple[DeviceVerb, ...] = get_args(DeviceVerb)
"""What an agent starts, and nothing else."""
RESULTS = "results"
"""The folder of a job that its arguments may name for outputs; gone after the job."""
OUTPUT = f"{RESULTS}/stdout"
"""What the verb prints as its result."""
KEPT = "out"
"""The folder of a job that stays for the next one on the same data, which so resumes."""

LogLine = Annotated[str, msgspec.Meta(max_length=4096)]
Argument = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z", max_length=4096)]
JobPath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!\.\.?(/|\Z))[^/\x00-\x1f\x7f]+(/(?!\.\.?(/|\Z))[^/\x00-\x1f\x7f]+)*\Z",
        max_length=1024,
        description="a path below the job's folder, without '.', '..' and control characters",
    ),
]
"""Of files whose names users choose; those of a bundle are narrower still."""
Files = Annotated[dict[JobPath, FileInfo], msgspec.Meta(max_length=MOST_FILES)]


class AgentReady(msgspec.Struct, frozen=True, tag="ready"):
    """The agent has started."""

    protocol: int
    version: str
    incoming: str


class NeededFiles(msgspec.Struct, frozen=True, tag="need"):
    """Files that a job takes."""

    files: Annotated[list[FileInfo], msgspec.Meta(max_length=MOST_FILES)]


class MissingFiles(msgspec.Struct, frozen=True, tag="missing"):
    """Those that must be uploaded to `incoming`, each under its hash; `free` is the disk's free space in bytes."""

    sha256: list[Sha256]
    free: int


class PlacedFiles(msgspec.Struct, frozen=True, tag="place"):
    """Put files into the job's folder; jobs of one `data` share what they keep."""

    data: Sha256
    files: Files


class VerbJob(msgspec.Struct, frozen=True, tag="run"):
    """Run a verb in the job's folder; `wanted` are files and folders whose files are to be listed afterwards."""

    verb: DeviceVerb
    arguments: list[Argument]
    wanted: list[JobPath]


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """A sign of life."""


class Clean(msgspec.Struct, frozen=True, tag="clean"):
    """The results were fetched; the agent may end."""


class VerbStep(msgspec.Struct, frozen=True, tag="step"):
    """What happens now, as `presentation.progress.Progress` takes it."""

    what: LogLine
    step: int
    total: int


class VerbLog(msgspec.Struct, frozen=True, tag="log"):
    """A line that the verb printed on stderr."""

    line: LogLine


class VerbDone(msgspec.Struct, frozen=True, tag="done"):
    """The verb ended; `files` are those that were wanted and are there, below `folder` on the device."""

    code: int
    folder: str
    files: dict[JobPath, FileInfo]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be done; `error` is the name of the exception's class."""

    error: str
    message: str


AgentRequest = NeededFiles | PlacedFiles | VerbJob | Beat | Clean
AgentReply = AgentReady | MissingFiles | VerbStep | VerbLog | VerbDone | Refused
ExpectedReply = TypeVar("ExpectedReply", AgentReady, MissingFiles, VerbDone)

_REQUESTS: msgspec.json.Decoder[AgentRequest] = msgspec.json.Decoder(AgentRequest)
_REPLIES: msgspec.json.Decoder[AgentReply] = msgspec.json.Decoder(AgentReply)


def decode_request(line: bytes) -> AgentRequest:
    """The request of a line.

    Raises:
        EdgetrackError: it is none.
    """
    return decode_line(
        line, _REQUESTS, lambda shown, why: EdgetrackError(f"the workstation sent {shown}, which is no request: {why}")
    )


def decode_reply(line: bytes) -> AgentReply:
    """The reply of a line.

    Raises:
        WorkerError: it is none.
    """
    return decode_line(
        line,
        _REPLIES,
        lambda shown, why: WorkerError(f"the device answered {shown}, which is no reply: {why}; is its shell silent?"),
    )
