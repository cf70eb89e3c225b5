"""What `--help` looks like: words for values, no Python types; nothing is cut off, however narrow the terminal."""

from __future__ import annotations

import inspect
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

_WORDS: dict[Any, str] = {str: "TEXT", Path: "PATH", int: "N", float: "NUMBER"}


def worded(parameter: inspect.Parameter) -> inspect.Parameter:
    """A verb's parameter, whose value has a word in the help: `--frames N`, `SOURCE`, `--format npy|npz`."""
    kind, *described = get_args(parameter.annotation) or (parameter.annotation,)
    for info in described:
        if getattr(info, "metavar", "") is None:
            # An option has declarations, such as `--set`; an argument goes by its own name.
            is_option = type(info).__name__ == "OptionInfo"
            info.metavar = word_of(kind) if is_option else parameter.name.upper()
    return parameter


def word_of(kind: Any) -> str | None:
    """The word for a value of a type; None for what is on or off."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    if kind is bool:
        return None
    for part in get_args(kind):  # of `str | None` and `list[str]`
        if part is not type(None):
            return word_of(part)
    return _WORDS[kind]


def page(name: str) -> str:
    """The last line of a verb's help."""
    return f"More: docs/{name}"


class Verb(TyperCommand):
    """A verb's help."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] BUNDLE DATASET`; brackets for what may be left out, dots for what may be repeated."""
        return ["[OPTIONS]", *(_usage(one) for one in self.get_params(ctx) if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments by their names alone, then the options."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = [(one, one.get_help_record(ctx)) for one in self.get_params(ctx) if one.param_type_name == kind]
            rows = [(name_of(one, record), record[1]) for one, record in records if record is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def name_of(parameter: Any, record: tuple[str, str]) -> str:
    """What a help calls a parameter: `BUNDLE`, `-o, --output PATH`."""
    return str(parameter.metavar) if parameter.param_type_name == "argument" else record[0]


def _usage(argument: Any) -> str:
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return f"{name}..." if argument.nargs != 1 else str(name)


class VerbGroup(TyperGroup):
    """A group's help: what each verb does, in whole sentences."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The verbs in the order in which they were added."""
        rows = [(name, _first_paragraph(command)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_paragraph(command: Any) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split())
