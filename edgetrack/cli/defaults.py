"""A file of defaults: the nearest `edgetrack.toml`, or `[tool.edgetrack]` of a pyproject.toml, from here upwards.

    device = "jetson"          # of every verb that takes it; `check` follows its budget
    threads = 2
    data = ["~/data", "sets"]  # where data sets are looked for by name

    [eval]                     # of one verb: any of its options
    jobs = 2

What is typed wins. `EDGETRACK_DEFAULTS` names another file, or is `off`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.resources import DATA_VARIABLE

FILE, PROJECT = "edgetrack.toml", "pyproject.toml"
VARIABLE = "EDGETRACK_DEFAULTS"
_OFF = "off"
_SECTION = b"[tool.edgetrack"
_GENERAL = ("device", "threads", "jobs")
_BY_BUDGET = ("check",)
"""Verbs whose device and threads another file states, which the general keys leave alone."""
_NO_DEFAULTS = ("help", "debug", "verbose", "quiet")


@dataclass(frozen=True)
class Defaults:
    """What a file says.

    Attributes:
        path: the file.
        options: verb -> parameter -> value, as a command's `default_map`; groups of verbs nest.
        general: the keys of all verbs, as they are written.
        folders: of data sets.
    """

    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    general: dict[str, Any] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()

    def __str__(self) -> str:
        said = [f"{key} = {value}" for key, value in self.general.items()]
        said += [f"data = {os.pathsep.join(map(str, self.folders))}"] if self.folders else []
        return f"{self.path}" + (f" ({', '.join(said)})" if said else "")


_in_use: Defaults | None = None


def in_use() -> Defaults | None:
    """The defaults of the verb that runs; None where there is no file."""
    return _in_use


def apply(context: typer.Context) -> None:
    """Give the verbs of a command line the defaults of the nearest file.

    Raises:
        UsageError: the file cannot be read, or a value is none that its option takes.
        UnknownNameError: a key is not known.
    """
    global _in_use
    path = nearest(Path.cwd())
    _in_use = None if path is None else read(path, context.command)
    context.default_map = None if _in_use is None else _in_use.options
    if _in_use is not None and _in_use.folders:
        os.environ.setdefault(DATA_VARIABLE, os.pathsep.join(map(str, _in_use.folders)))


def nearest(start: Path) -> Path | None:
    """The file that counts in a folder; None where there is none.

    Raises:
        UsageError: `EDGETRACK_DEFAULTS` names a file that is not there.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == _OFF:
        return None
    if chosen:
        if not Path(chosen).is_file():
            raise UsageError(f"{VARIABLE}={chosen}: there is no such file; give another, or {_OFF}")
        return Path(chosen)
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder / FILE
        if _has_section(folder / PROJECT):
            return folder / PROJECT
    return None


def _has_section(path: Path) -> bool:
    """Whether a project's file is for us, too: another's that is broken is none of our business."""
    from edgetrack.io import LARGEST_TOML

    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _SECTION in file.read(LARGEST_TOML)
    except OSError:
        return False


def read(path: Path, command: Any) -> Defaults:
    """A file of defaults, held against a group of verbs; raises what `apply` raises."""
    from edgetrack.io import read_toml

    tables: Any = read_toml(path, dict[str, Any], "file of defaults")
    if path.name == PROJECT:
        tables = tables.get("tool", {}).get("edgetrack", {})
    general = {key: tables[key] for key in _GENERAL if key in tables}
    folders = _folders(tables.get("data", []), path)
    verbs = {key: value for key, value in tables.items() if key not in (*_GENERAL, "data")}
    options = _of_group(command, verbs, general, str(path), (*_GENERAL, "data"))
    return Defaults(path, options, general, folders)


def _folders(given: Any, path: Path) -> tuple[Path, ...]:
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, list) or not all(isinstance(one, str) and one for one in several):
        raise UsageError(f"{path}: data is {given!r}; expected a folder, or a list of folders")
    # Not Path.expanduser, which raises for a user that is not there.
    return tuple(path.parent.absolute() / os.path.expanduser(one) for one in several)  # noqa: PTH111


def _of_group(
    group: Any, tables: Any, general: Mapping[str, Any], where: str, more: Iterable[str] = ()
) -> dict[str, Any]:
    if not isinstance(tables, dict):
        raise UsageError(f"{where} is {tables!r}; expected a table")
    for key in tables:
        if key not in group.commands:
            raise UnknownNameError.of(f"{where}: the key", key, (*more, *group.commands))
    found = {}
    for name, command in group.commands.items():
        table = tables.get(name, {})
        make = _of_group if hasattr(command, "commands") else _of_verb
        if values := make(command, table, general, f"{where}: {name}"):
            found[name] = values
    return found


def _of_verb(command: Any, table: Any, general: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {table!r}; expected a table, such as [eval]")
    # Of single targets, too, where the table asks for them: they come with the exporters' modules.
    context = command.context_class(command, info_name=command.name)
    options = {
        _name(parameter): parameter
        for parameter in (command.get_params(context) if table else command.params)
        if parameter.param_type_name == "option" and _name(parameter) not in _NO_DEFAULTS
    }
    found = {}
    if command.name not in _BY_BUDGET:
        found = {
            options[key].name: _checked(options[key], value, context, where.partition(":")[0], key)
            for key, value in general.items()
            # A profile is no device of verbs that do not leave this machine.
            if key in options and (key != "device" or "host" in options)
        }
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None:
            raise UnknownNameError.of(f"{where} has the key", key, options)
        found[option.name] = _checked(option, value, context, where, key)
    return found


def _name(parameter: Any) -> str:
    return str(max(parameter.opts, key=len).lstrip("-"))


def _checked(option: Any, value: Any, context: Any, where: str, key: str) -> Any:
    """The value as the option's default, which takes it.

    Raises:
        UsageError: it does not.
    """
    several = option.multiple or option.nargs != 1
    items = value if several and isinstance(value, list) else [value]
    fits = all(isinstance(one, bool) == option.is_flag and isinstance(one, (str, int, float)) for one in items)
    if not fits or (option.nargs != 1 and len(items) != option.nargs):
        kind = "true or false" if option.is_flag else "a text or number"
        expected = f"{option.nargs} of them" if option.nargs != 1 else f"{kind}, or a list" if option.multiple else kind
        raise UsageError(f"{where}: {key} is {value!r}; expected {expected}")
    given = items if several else value
    try:
        option.process_value(context, given)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {key} is {value!r}: {error.message}") from None
    return given
