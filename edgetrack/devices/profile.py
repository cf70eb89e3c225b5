"""Device profiles, `bench/devices/*.toml`: how to recognise a device, what runs on it, what to expect and to read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from edgetrack.benchmark.machine import MachineRecord
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.io import read_toml
from edgetrack.resources import data_folder
from edgetrack.telemetry.sources import RAILS, Expectation, SourceName

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Place = Annotated[str, msgspec.Meta(pattern=r"^(cpu|gpu|ane|all|cuda:[0-9]{1,2})\Z")]
ProfileName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
Rail = Annotated[str, msgspec.Meta(pattern=r"^(jtop|tegrastats|nvml|rapl):[\w:-]+(\+[\w:-]+)*\Z", max_length=200)]
Megahertz = Annotated[float, msgspec.Meta(gt=0, le=100_000)]


class Recognition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine's record must say, all of it; a profile that asks for nothing fits every machine.

    `board` is a part of the board's name, `gpu` of a GPU's, `system` the beginning of the system's; case is ignored.
    """

    jetson: bool | None = None
    board: Text | None = None
    gpu: Text | None = None
    architecture: tuple[Text, ...] = ()
    system: Text | None = None


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state in which figures are compared; it is checked and never set. Clocks in MHz, under load."""

    power_modes: tuple[Text, ...] = ()
    jetson_clocks: bool | None = None
    cpu_mhz: Megahertz | None = None
    gpu_mhz: Megahertz | None = None


class Readings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where power, temperature, clocks and throttling are read, and what stands for the whole device's power."""

    sources: tuple[SourceName, ...] | None = None
    power: tuple[Rail, ...] = ()


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device. `backends` says for each target that runs there on what; `python` is what SSH starts there."""

    schema: Literal[1]
    name: ProfileName
    title: Text
    connection: Literal["local", "ssh"]
    python: Text = "python3"
    backends: dict[str, Place]
    recognise: Recognition = Recognition()
    expect: Expected = Expected()
    telemetry: Readings = Readings()

    def fits(self, machine: MachineRecord) -> bool:
        """Whether a machine is such a device."""
        want = self.recognise
        return all(
            (
                want.jetson is None or want.jetson == machine.is_jetson,
                want.board is None or _within(want.board, [machine.device_model or ""]),
                want.gpu is None or _within(want.gpu, [gpu.name for gpu in machine.gpus]),
                not want.architecture or machine.architecture in want.architecture,
                want.system is None or machine.os.lower().startswith(want.system.lower()),
            )
        )

    @property
    def is_board(self) -> bool:
        """Whether it describes boards that can be told from other machines by their name."""
        return self.recognise.jetson is True or self.recognise.board is not None

    def place(self, manifests: Iterable[Manifest]) -> str:
        """On what the bundles run there: `cpu` or `cuda:0`.

        Raises:
            UsageError: a target that does not run there, or bundles that run on different things.
        """
        places: dict[str, str] = {}
        for manifest in manifests:
            if manifest.target not in self.backends:
                raise UsageError(
                    f"{manifest.name} is for {manifest.target}, and the device {self.name} runs "
                    f"{', '.join(sorted(self.backends))}; export it with --target {next(iter(self.backends))}"
                )
            places.setdefault(self.backends[manifest.target], manifest.name)
        if len(places) > 1:
            raise UsageError(f"{' and '.join(places.values())} run on {' and '.join(places)}; measure them in two runs")
        return next(iter(places), "cpu")

    def expectation(self) -> Expectation:
        """What the benchmark reads and checks there."""
        return Expectation(
            sources=self.telemetry.sources,
            rails=self.telemetry.power or RAILS,
            power_modes=self.expect.power_modes,
            jetson_clocks=self.expect.jetson_clocks,
            cpu_mhz=self.expect.cpu_mhz,
            gpu_mhz=self.expect.gpu_mhz,
        )


def profile_names() -> list[str]:
    """The profiles that edgetrack ships."""
    return sorted(path.stem for path in (data_folder("bench") / "devices").glob("*.toml"))


def find_profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        UnknownNameError: no such profile.
        UsageError: its file is not a profile.
    """
    if name not in profile_names():
        raise UnknownNameError(
            f"device {name[:80]!r} is not known; expected cpu, cuda:0, a section of your devices.toml, or one of: "
            f"{', '.join(profile_names())}"
        )
    profile = read_toml(data_folder("bench") / "devices" / f"{name}.toml", Profile, "device profile")
    if profile.name != name:
        raise UsageError(f"the profile {name}.toml is named {profile.name!r}; give both the same name")
    return profile


def fitting(machine: MachineRecord) -> list[str]:
    """The names of the profiles that fit a machine, but for `local`, which fits all."""
    profiles = map(find_profile, profile_names())
    return [profile.name for profile in profiles if profile.connection == "ssh" and profile.fits(machine)]


def _within(part: str, names: Iterable[str]) -> bool:
    return any(re.search(rf"(?<![a-z0-9]){re.escape(part.lower())}(?![a-z0-9])", name.lower()) for name in names)
