"""The user's own devices: `~/.config/edgetrack/devices.toml` says under which name which host is reached, and how.

    [jetson]
    host = "orin.local"
    python = "/home/me/edgetrack/bin/python"

A section's name is a profile's, or any other name with `profile = "..."` in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from edgetrack.errors import UsageError
from edgetrack.io import read_toml

HostName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:-]{0,252}\Z")]
"""A name, an address or an alias of ~/.ssh/config; nothing that a shell, or ssh's own options, could take otherwise."""
UserName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9._-]{0,63}\Z")]
PythonPath = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-]?[^\x00-\x1f\x7f]+\Z", max_length=4096)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class HostSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a device is reached. `key` and `known_hosts` are files, by default those that ssh takes."""

    host: HostName
    user: UserName | None = None
    port: Port | None = None
    python: PythonPath | None = None
    profile: str | None = None
    key: str | None = None
    known_hosts: str | None = None


@dataclass(frozen=True)
class Host:
    """A host as it is connected to; what is None is left to ssh's own configuration.

    Attributes:
        host, user, port: where.
        key: the private key's file.
        known_hosts: the file that the host's key must be in.
    """

    host: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    known_hosts: Path | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        name = f"{self.user}@{self.host}" if self.user else self.host
        return f"{name} port {self.port}" if self.port else name


def config_file() -> Path:
    """`$XDG_CONFIG_HOME/edgetrack/devices.toml`, which is under `~/.config` by default."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base else Path.home() / ".config") / "edgetrack" / "devices.toml"


def read_sections(path: Path) -> dict[str, HostSection]:
    """The user's devices; none where there is no such file.

    Raises:
        UsageError: the file is not what it should be.
    """
    if not path.exists():
        return {}
    return read_toml(path, dict[str, HostSection], "list of devices")


def host_of(section: HostSection) -> Host:
    """Where a section leads."""

    def file(text: str | None) -> Path | None:
        return Path(text).expanduser() if text is not None else None

    return Host(section.host, section.user, section.port, file(section.key), file(section.known_hosts))


def parse_host(text: str) -> HostSection:
    """`HOST`, `USER@HOST` or `USER@HOST:PORT` as `--host` takes it; an IPv6 address with a port in brackets.

    Raises:
        UsageError: it is none of these.
    """
    user, at, rest = text.rpartition("@")
    host, port = rest, ""
    if rest.startswith("[") and "]" in rest:
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    given: dict[str, object] = {"host": host, "user": user if at else None}
    if port:
        given["port"] = int(port) if port.isascii() and port.isdigit() else port
    try:
        return msgspec.convert(given, HostSection)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"--host {text[:80]!r} is no host: {error}; expected HOST, USER@HOST or USER@HOST:PORT"
        ) from None
