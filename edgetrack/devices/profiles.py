"""Device profiles (`bench/devices/*.toml`), the user's own hosts (`devices.toml`), and where a `--device` leads.

    [jetson]                                   # ~/.config/edgetrack/devices.toml
    host = "orin.local"
    python = "/home/me/edgetrack/bin/python"

A section's name is a profile's, or any other name with `profile = "..."` in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from edgetrack.capabilities import find_target, is_device, place_of
from edgetrack.decoding import converted
from edgetrack.device_name import EXAMPLES, DeviceName, ProfileName
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.io import read_toml
from edgetrack.resources import data_folder
from edgetrack.system.machine import MachineRecord
from edgetrack.system.sampler import RAILS, Clocks, Expectation, Megahertz, SourceName

if TYPE_CHECKING:  # `doctor` lists profiles where NumPy cannot be loaded, which a bundle's reader needs
    from edgetrack.bundle.manifest import Manifest
    from edgetrack.bundle.reader import BundleRef
    from edgetrack.capabilities import Target

ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Rail = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(jtop|tegrastats|nvml|rapl):[\w:-]+(\+[\w:-]+)*\Z",
        max_length=200,
        description="a rail such as tegrastats:VDD_IN, or several joined by +",
    ),
]
HostName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:-]{0,252}\Z", description="a host's name or address")
]
"""A name, an address or an alias of ~/.ssh/config, without anything that a shell or ssh would take for an option."""
UserName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9._-]{0,63}\Z", description="a user's name")]
PythonPath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^\x00-\x1f\x7f-]?[^\x00-\x1f\x7f]+\Z", max_length=4096, description="the path of a Python"
    ),
]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_LONGEST_SHOWN = 80


class Recognition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine's record must say, all of it; a profile that asks for nothing fits every machine.

    `board` is a part of the board's name, or several of them, `gpu` of a GPU's, `system` the beginning of the system's;
    case is ignored.
    """

    jetson: bool | None = None
    board: ShortText | tuple[ShortText, ...] | None = None
    gpu: ShortText | None = None
    architecture: tuple[ShortText, ...] = ()
    system: ShortText | None = None


class ExpectedState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state in which figures are compared; it is checked and never set.

    Clocks are in MHz, under load; `clocks` has those of power modes that differ.
    """

    power_modes: tuple[ShortText, ...] = ()
    jetson_clocks: bool | None = None
    cpu_mhz: Megahertz | None = None
    gpu_mhz: Megahertz | None = None
    clocks: dict[str, Clocks] = {}


class Readings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where power, temperature, clocks and throttling are read, and what stands for the whole device's power."""

    sources: tuple[SourceName, ...] | None = None
    power: tuple[Rail, ...] = ()


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device. `backends` says for each target where on the device it runs; `python` is what SSH starts there."""

    schema: Literal[1]
    name: ProfileName
    title: ShortText
    connection: Literal["local", "ssh"]
    python: ShortText = "python3"
    backends: dict[str, DeviceName]
    recognise: Recognition = Recognition()
    expect: ExpectedState = ExpectedState()
    telemetry: Readings = Readings()

    def fits(self, machine: MachineRecord) -> bool:
        """Whether a machine is such a device."""
        want = self.recognise
        return all(
            (
                want.jetson is None or want.jetson == machine.is_jetson,
                want.board is None or any(_within(one, [machine.device_model or ""]) for one in _several(want.board)),
                want.gpu is None or _within(want.gpu, [gpu.name for gpu in machine.gpus]),
                not want.architecture or machine.architecture in want.architecture,
                want.system is None or machine.os.lower().startswith(want.system.lower()),
            )
        )

    @property
    def is_board(self) -> bool:
        """Whether it describes boards that are recognised by their name."""
        return self.recognise.jetson is True or self.recognise.board is not None

    def device_of(self, manifest: Manifest) -> str:
        """Where on the device a bundle runs: `cpu`, `cuda:0`, ...

        Raises:
            UsageError: its target does not run there.
        """
        return place_of(manifest, self.backends, self.name)

    def best_target(self) -> Target:
        """The target to export to for the device when none is named: the first that can be exported to here.

        Raises:
            BackendMissingError: none can.
        """
        rows = [row for row in map(find_target, self.backends) if row.exporter is not None and not row.reference]
        for row in rows:
            # What proves an export has to be installed here, not what runs it there.
            if row.installed or (row.proof and find_target(row.proof).installed):
                return row
        raise BackendMissingError(
            f"no package is installed to export for the device {self.name}; type one of: "
            + " or ".join(row.install_command for row in rows)
        )

    def expectation(self) -> Expectation:
        """What the benchmark reads and checks there."""
        state = msgspec.structs.asdict(self.expect)
        return Expectation(sources=self.telemetry.sources, rails=self.telemetry.power or RAILS, **state)


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of the user's file: how a device is reached.

    What is None is left to ssh's own configuration, `python` to the profile. `key` is the file of the private key,
    `known_hosts` the file that the host's key must be in.
    """

    host: HostName
    user: UserName | None = None
    port: Port | None = None
    python: PythonPath | None = None
    profile: str | None = None
    key: str | None = None
    known_hosts: str | None = None

    def __post_init__(self) -> None:
        for name in ("key", "known_hosts"):
            if (file := getattr(self, name)) is not None:
                msgspec.structs.force_setattr(self, name, os.path.expanduser(file))  # noqa: PTH111 - Path's may raise

    @property
    def label(self) -> str:
        """What messages call it."""
        name = f"{self.user}@{self.host}" if self.user else self.host
        return f"{name} port {self.port}" if self.port else name


@dataclass(frozen=True)
class DeviceChoice:
    """Where to run.

    Attributes:
        device: `cpu`, `cuda:0`, ... where no profile says it.
        profile: the device's, or None.
        host: over SSH, or None for this machine.
    """

    device: str = "cpu"
    profile: Profile | None = None
    host: Host | None = None

    def placed(self, ref: BundleRef) -> BundleRef:
        """A bundle with the place where it runs: the one that was named with it, else the profile's, or `device`.

        Raises:
            UsageError: its target does not run on the device.
        """
        if ref.device is not None:
            return ref
        return replace(ref, device=self.profile.device_of(ref.manifest) if self.profile else self.device)

    @property
    def profile_name(self) -> str | None:
        """Of records."""
        return None if self.profile is None else self.profile.name


def profile_names() -> list[str]:
    """The profiles that edgetrack ships."""
    return sorted(path.stem for path in (data_folder("bench") / "devices").glob("*.toml"))


def find_profile(name: str, own: Iterable[str] = ()) -> Profile:
    """A profile by name.

    Args:
        own: names of the user's sections, for the message.

    Raises:
        UnknownNameError: no such profile.
        UsageError: its file is not a profile.
    """
    if name not in profile_names():
        known = dict.fromkeys((*EXAMPLES, *profile_names(), *own))
        raise UnknownNameError.of("device", name[:_LONGEST_SHOWN], known, "devices.toml takes names of your own")
    profile = read_toml(data_folder("bench") / "devices" / f"{name}.toml", Profile, "device profile")
    if profile.name != name:
        raise UsageError(f"the profile {name}.toml is named {profile.name!r}; give both the same name")
    return profile


def fitting(machine: MachineRecord) -> list[str]:
    """The names of the profiles that fit a machine, without `local`, which fits all."""
    profiles = map(find_profile, profile_names())
    return [profile.name for profile in profiles if profile.connection == "ssh" and profile.fits(machine)]


def config_file() -> Path:
    """`$XDG_CONFIG_HOME/edgetrack/devices.toml`, which is under `~/.config` by default."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # Without a home (a container's random user) `~` stays as it is, and no such file is found.
    return Path(base or os.path.expanduser("~/.config")) / "edgetrack" / "devices.toml"  # noqa: PTH111


def read_hosts(path: Path) -> dict[str, Host]:
    """The user's devices; none where there is no such file.

    Raises:
        UsageError: the file is not what it should be.
    """
    return read_toml(path, dict[str, Host], "list of devices") if path.exists() else {}


def parse_host(text: str) -> Host:
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
    return converted(
        given,
        Host,
        lambda words: UsageError(
            f"--host {text[:_LONGEST_SHOWN]!r} is no host: {words}; expected HOST, USER@HOST or USER@HOST:PORT"
        ),
    )


def choose_device(
    device: str,
    host: str | None,
    look: Callable[[], MachineRecord],
    *,
    here: bool = False,
    config: Path | None = None,
) -> DeviceChoice:
    """Find out where to run: here, or on a host that the user has named.

    Args:
        device: `cpu`, `cuda:0`, the name of a profile, or of a section of the user's file. A machine that is the
            profile's board is measured itself, whatever host the file names for such boards.
        host: as `--host` gives it; it replaces the section's host, user and port, and leaves its key and Python.
        look: reads this machine's record; called only where a profile has to be recognised.
        here: run here whether or not the profile fits this machine.
        config: the user's file; by default `config_file()`.

    Raises:
        UnknownNameError: no such device.
        UsageError: a profile, the user's file or the host cannot be used.
        DeviceUnavailableError: the device is not this machine and no host is known for it.
    """
    path = config or config_file()
    hosts = read_hosts(path)
    own = hosts.get(device)
    if host is not None:
        given = parse_host(host)
        user = given.user or (own.user if own else None)
        own = msgspec.structs.replace(own or given, host=given.host, user=user, port=given.port)
    if is_device(device) and (host is None or device != "cpu"):
        if host is not None:
            raise UsageError(f"--device {device} with --host: name the device's profile, such as --device jetson")
        return DeviceChoice(device)
    name = "x86" if device == "cpu" else (own.profile if own and own.profile else device)
    profile = find_profile(name, hosts)
    # A section under a name of the user's own is one certain host, and most PCs fit the profile of any PC.
    certain = host is not None or (own is not None and (device != name or not profile.is_board))
    if here or (not certain and (profile.connection == "local" or profile.fits(look()))):
        return DeviceChoice(profile=profile)
    if own is None:
        raise DeviceUnavailableError(
            f"this machine is no {profile.title}, and no host is known for {device}; give --host USER@HOST, or write "
            f"these three lines to {path}:\n"
            f'[{device}]\nhost = "name-or-address-of-the-device"\npython = "/path/on/the/device/to/python3"'
        )
    return DeviceChoice(profile=profile, host=own)


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _within(part: str, names: Iterable[str]) -> bool:
    return any(re.search(rf"(?<![a-z0-9]){re.escape(part.lower())}(?![a-z0-9])", name.lower()) for name in names)
