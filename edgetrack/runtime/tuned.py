"""What `edgetrack tune` found for this machine, for those who ask for it: `load(tuned=True)` and `track --tuned`.

One file of the user's, with a choice for each tracker and machine. A choice is stale, and refused, where the machine,
the versions of the packages that run it, or the bundle itself is not what was measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgetrack.bundle.reader import open_bundle, split_label
from edgetrack.capabilities import find_target
from edgetrack.errors import EdgetrackError, UsageError, did_you_mean
from edgetrack.io import locked, read_toml, toml_value, write_whole
from edgetrack.system.machine import MachineRecord, collect

_LOCK_S = 10.0


class TunedChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is the fastest of a tracker on a machine.

    Attributes:
        tracker: with its settings, as `Manifest.system`.
        machine: where it was measured, `MachineRecord.kind`.
        bundle, digest: the absolute path, and the SHA-256 of the manifest.
        hint, device, threads: as `edgetrack.load` takes them.
        versions: of the packages that ran it.
        measured: when, and what was found, for people.
        raced: the digests of all bundles that it was compared with, itself among them.
    """

    tracker: str
    machine: str
    bundle: str
    digest: str
    hint: str | None = None
    device: str
    threads: int
    versions: dict[str, str]
    measured: str
    raced: tuple[str, ...] = ()

    def __str__(self) -> str:
        hint = f" with the hint {self.hint}" if self.hint else ""
        return f"{Path(self.bundle).name}{hint} on {self.device}, threads {self.threads} ({self.measured})"

    def problem(self, machine: str) -> str | None:
        """Why it is stale on a machine; None where it holds."""
        if self.machine != machine:
            return f"it was measured on {self.machine}, and this is {machine}"
        try:
            with open_bundle(self.bundle, verify_files=False) as bundle:
                manifest = bundle.manifest
        except EdgetrackError as error:
            return f"its bundle cannot be opened: {error}"
        if manifest.digest != self.digest:
            return f"its bundle {self.bundle} was exported again since"
        now = find_target(manifest.target).versions()
        if now != self.versions:
            was, is_ = (" ".join(f"{k} {v}" for k, v in one.items()) for one in (self.versions, now))
            return f"it was measured with {was}, and installed is {is_}"
        return None


class TunedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All choices of a user."""

    schema: int = 1
    choice: tuple[TunedChoice, ...] = ()


def tuned_file() -> Path:
    """`$XDG_CONFIG_HOME/edgetrack/tuned.toml`, which is under `~/.config` by default."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base or os.path.expanduser("~/.config")) / "edgetrack" / "tuned.toml"  # noqa: PTH111


def read_choices(path: Path | None = None) -> tuple[TunedChoice, ...]:
    """The choices of the user's file; none where there is none.

    Raises:
        UsageError: the file is not what it should be.
    """
    path = path or tuned_file()
    advice = "remove it, or tune again"
    return read_toml(path, TunedFile, "list of tuned choices", advice=advice).choice if path.exists() else ()


def keep_choice(choice: TunedChoice, path: Path | None = None) -> Path:
    """Put a choice in the place of an older one of the same tracker and machine.

    Raises:
        EdgetrackError: the file cannot be written, or is not what it should be.
    """
    path = path or tuned_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock"), _LOCK_S):
            others = [
                one for one in read_choices(path) if (one.tracker, one.machine) != (choice.tracker, choice.machine)
            ]
            write_whole(path, _to_toml([*others, choice]).encode())
    except (OSError, TimeoutError) as error:
        raise EdgetrackError(f"{path} cannot be written: {error}") from None
    return path


def find_choice(bundle: str | Path, machine: MachineRecord | None = None, path: Path | None = None) -> TunedChoice:
    """The choice for a tracker, or for what a bundle was raced with, on this machine.

    Args:
        bundle: a tracker's name, or a bundle.
        machine: where it is to run; None: this machine.
        path: the user's file.

    Raises:
        UsageError: there is none, or it is stale; the message says why and what to type.
    """
    text, choices = str(bundle), read_choices(path)
    here = (machine or collect()).kind
    mine = [one for one in choices if one.tracker == text] or _raced(text, choices)
    if not mine:
        known = sorted({one.tracker for one in choices})
        raise UsageError(
            f"nothing was tuned for {text!r} on any machine{did_you_mean(text, known)}; type: edgetrack tune {text}"
        )
    choice = next((one for one in mine if one.machine == here), mine[0])
    reason = choice.problem(here)
    if reason is not None:
        raise UsageError(
            f"the tuned choice for {choice.tracker} is stale: {reason}; type: edgetrack tune {choice.tracker}"
        )
    return choice


def _raced(text: str, choices: Sequence[TunedChoice]) -> list[TunedChoice]:
    try:
        with open_bundle(split_label(text)[0], verify_files=False) as bundle:
            digest = bundle.manifest.digest
    except UsageError:
        return []
    return [one for one in choices if digest in one.raced]


def _to_toml(choices: Sequence[TunedChoice]) -> str:
    lines = ["# Written by `edgetrack tune`; used by load(tuned=True) and track --tuned alone.", "schema = 1"]
    for one in choices:
        lines += ["", "[[choice]]"]
        fields = msgspec.structs.asdict(one).items()
        lines += [f"{name} = {toml_value(value)}" for name, value in fields if value is not None]
    return "\n".join(lines) + "\n"
