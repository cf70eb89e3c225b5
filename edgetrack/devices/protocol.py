"""What a workstation and the agent on a device say to each other: one JSON object per line, over SSH's pipes.

    agent        ready        its version, and the folder that files are put into
    workstation  need         which files of which hashes the bundles have
    agent        missing      which of them are not there yet; they are uploaded by SFTP
    workstation  bench        what to measure
    agent        log, ..., done   what the benchmark prints, and where its record is
    workstation  clean        the record was fetched: remove it

All the time the workstation sends `beat`; an agent that hears nothing for `PATIENCE_S` ends what it runs.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from edgetrack.bundle.manifest import FileInfo, FilePath, Name
from edgetrack.errors import EdgetrackError, WorkerError
from edgetrack.io import decode_line

PROTOCOL = 1
BEAT_S = 5.0
PATIENCE_S = 60
LONGEST_MESSAGE = 16 << 20

LogLine = Annotated[str, msgspec.Meta(max_length=4096)]
Hint = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,16}\Z")]
Argument = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z", max_length=4096)]


class AgentReady(msgspec.Struct, frozen=True, tag="ready"):
    """The agent has started."""

    protocol: int
    version: str
    incoming: str


class NeededFiles(msgspec.Struct, frozen=True, tag="need"):
    """The files that a benchmark takes."""

    files: list[FileInfo]


class MissingFiles(msgspec.Struct, frozen=True, tag="missing"):
    """Those that must be uploaded to `incoming`, each under its hash."""

    sha256: list[str]


class SentBundle(msgspec.Struct, frozen=True):
    """A bundle: its name, the hint that it is loaded with, and all its files with the manifest."""

    name: Name
    hint: Hint | None
    files: dict[FilePath, FileInfo]


class BenchJob(msgspec.Struct, frozen=True, tag="bench"):
    """Measure `bundles`, against `reference` where one is given; `options` are arguments of `edgetrack bench`."""

    bundles: list[SentBundle]
    reference: SentBundle | None
    options: list[Argument]


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """A sign of life."""


class Clean(msgspec.Struct, frozen=True, tag="clean"):
    """The record was fetched; the agent may end."""


class BenchLog(msgspec.Struct, frozen=True, tag="log"):
    """A line that the benchmark printed."""

    line: LogLine


class BenchDone(msgspec.Struct, frozen=True, tag="done"):
    """The benchmark ended; `record` is its file, None where it wrote none."""

    code: int
    record: str | None
    info: FileInfo | None


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be done; `error` is the name of the exception's class."""

    error: str
    message: str


AgentRequest = NeededFiles | BenchJob | Beat | Clean
AgentReply = AgentReady | MissingFiles | BenchLog | BenchDone | Refused
ExpectedReply = TypeVar("ExpectedReply", AgentReady, MissingFiles, BenchDone)

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
