"""From `--device` and `--host` to where a benchmark runs: here, or on a host that the user has named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgetrack.benchmark.machine import MachineRecord
from edgetrack.devices.hosts import Host, HostSection, config_file, host_of, parse_host, read_sections
from edgetrack.devices.profile import Profile, find_profile
from edgetrack.errors import DeviceUnavailableError, UsageError

DEFAULT = "cpu"
_PLAIN = re.compile(r"cpu|gpu|ane|all|cuda:[0-9]{1,2}")


@dataclass(frozen=True)
class Choice:
    """Where to run.

    Attributes:
        device: `cpu`, `cuda:0`, ... where no profile says it.
        profile: the device's, or None.
        host: over SSH, or None for here.
        python: what is started on the host.
    """

    device: str = DEFAULT
    profile: Profile | None = None
    host: Host | None = None
    python: str = "python3"


def choose_device(
    device: str,
    host: str | None,
    look: Callable[[], MachineRecord],
    *,
    here: bool = False,
    config: Path | None = None,
) -> Choice:
    """Find out where to run.

    Args:
        device: `cpu`, `cuda:0`, a profile's name, or that of a section of the user's file. A machine that is the board
            of the profile is measured itself, whatever host the file names for boards of that profile.
        host: as `--host` gives it, in place of the user's file.
        look: reads this machine's record; called only where a profile has to be recognised.
        here: run here whether or not the profile fits this machine.
        config: the user's file; by default `config_file()`.

    Raises:
        UnknownNameError: no such device.
        UsageError: a profile, the user's file or the host cannot be used.
        DeviceUnavailableError: the device is not this machine and no host is known for it.
    """
    path = config or config_file()
    sections = read_sections(path)
    section = sections.get(device)
    if host is not None:
        given = parse_host(host)
        section = given if section is None else _overridden(section, given)
    if _PLAIN.fullmatch(device) and (host is None or device != DEFAULT):
        if host is not None:
            raise UsageError(f"--device {device} with --host: name the device's profile, such as --device jetson")
        return Choice(device)
    name = "x86" if device == DEFAULT else (section.profile if section and section.profile else device)
    profile = find_profile(name)
    # A section under a name of the user's own is one certain host, and most PCs fit the profile of any PC.
    certain = host is not None or (section is not None and (device != name or not profile.is_board))
    if here or (not certain and (profile.connection == "local" or profile.fits(look()))):
        return Choice(profile=profile)
    if section is None:
        raise DeviceUnavailableError(
            f"this machine is no {profile.title}, and no host is known for {device}; give --host USER@HOST, or write "
            f"these three lines to {path}:\n"
            f'[{device}]\nhost = "name-or-address-of-the-device"\npython = "/path/on/the/device/to/python3"'
        )
    return Choice(profile=profile, host=host_of(section), python=section.python or profile.python)


def _overridden(section: HostSection, given: HostSection) -> HostSection:
    """The user's section with what `--host` says in its place: key and Python stay."""
    return msgspec.structs.replace(section, host=given.host, user=given.user or section.user, port=given.port)
