"""Plain data from outside as typed objects; what does not fit is said in words: the key, its value, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from edgetrack.errors import did_you_mean

_T = TypeVar("_T")
_SHOWN = 80
_STEPS = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def decode_json(data: bytes | str, type_: type[_T], refused: Callable[[str], Exception]) -> _T:
    """JSON as an object of a type, strictly.

    Args:
        data: what somebody else wrote.
        type_: what msgspec decodes it to.
        refused: makes the exception from words that say what is wrong: which key, what it is, what is allowed.

    Raises:
        Exception: what `refused` returned.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.ValidationError as fault:
        words = str(fault)
        with suppress(ValueError, RecursionError):
            words = explained(fault, msgspec.json.decode(data), type_)
        raise refused(words) from None
    except RecursionError:
        raise refused("it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise refused(f"it is not JSON: {fault}") from None


def converted(plain: Any, type_: type[_T], refused: Callable[[str], Exception], *, strict: bool = True) -> _T:
    """Plain data, as TOML and JSON hold it, as an object of a type; else as `decode_json`."""
    try:
        return msgspec.convert(plain, type_, strict=strict)
    except msgspec.ValidationError as fault:
        raise refused(explained(fault, plain, type_)) from None
    except RecursionError:
        raise refused("it is nested too deeply") from None


def explained(fault: msgspec.ValidationError, plain: Any, type_: Any) -> str:
    """What msgspec found wrong, in words: the key, what it is, what is allowed, and the nearest name."""
    message, _, place = str(fault).partition(" - at `")
    place, of_key = place.rstrip("`"), place.startswith("key` in `")
    where, value, kinds = "", plain, [type_]
    for name, item in _STEPS.findall(place.removeprefix("key` in `")):
        step: Any = name or item
        if item == "..." and isinstance(value, dict):
            kinds = [get_args(kind)[-1] for kind in _plain_kinds(kinds) if get_origin(kind) is dict]
            step = next((key for key, one in value.items() if not _fits(one, kinds)), None)
            value = value.get(step)
        elif item.isdigit() and isinstance(value, (list, tuple)):
            kinds = [part for kind in _plain_kinds(kinds) for part in _items_of(kind, int(item))]
            value = value[int(item)]
        else:
            fields = [field for kind in _structs(kinds) for field in msgspec.structs.fields(kind)]
            kinds = [field.type for field in fields if field.encode_name == name]
            value = value.get(name) if isinstance(value, dict) else None
        where += f"[{item}]" if item and item != "..." else f".{step}" if where else str(step)
    return _said(message, f"a key of {where or 'it'}" if of_key else where, value, kinds)


def _said(message: str, where: str, value: Any, kinds: list[Any]) -> str:
    subject = where or "it"
    known = [field.encode_name for kind in _structs(kinds) for field in msgspec.structs.fields(kind)]
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        near = did_you_mean(found[1], known)
        return f"{subject} has the unknown key {found[1]!r}{near}; it may have: {', '.join(known) or 'none'}"
    if found := re.fullmatch(r"Object missing required field `(.*)`", message, re.DOTALL):
        others = [key for key in value if key not in known] if isinstance(value, dict) else []
        near = did_you_mean(found[1], others).replace("did you mean", "is it")
        return f"{subject} lacks the key {found[1]!r}{near}"
    if message.startswith("Invalid enum value"):
        allowed = [str(one) for kind in _plain_kinds(kinds) if get_origin(kind) is Literal for one in get_args(kind)]
        return f"{subject} is {_shown(value)}{did_you_mean(str(value), allowed)}; expected one of: {', '.join(allowed)}"
    if message.startswith("Expected `"):
        about = [meta.description for kind in kinds for meta in getattr(kind, "__metadata__", ()) if meta.description]
        wanted = (
            about[0] if about and "got" not in message else message.partition(", got ")[0].removeprefix("Expected ")
        )
        for bare, word in _KINDS.items():
            wanted = re.sub(rf"\b{bare}\b", word, wanted)
        wanted = wanted.replace("`", "").replace(" | ", " or ").replace(">=", "of at least").replace("<=", "of at most")
        return f"{subject} is {_shown(value)}; expected {wanted.replace('of length of', 'with a length of')}"
    return f"{where}: {message}" if where else message


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    words = {"None": "null", "True": "true", "False": "false"}
    text = repr(value) if isinstance(value, str) else words.get(str(value), str(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _plain_kinds(kinds: list[Any]) -> list[Any]:
    """Annotated types without their annotations, and unions' parts."""
    found: list[Any] = []
    for kind in kinds:
        if hasattr(kind, "__metadata__"):
            found += _plain_kinds([kind.__origin__])
        elif get_origin(kind) in (Union, UnionType):
            found += _plain_kinds(list(get_args(kind)))
        else:
            found.append(kind)
    return found


def _structs(kinds: list[Any]) -> list[type[msgspec.Struct]]:
    return [kind for kind in _plain_kinds(kinds) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


def _items_of(kind: Any, index: int) -> list[Any]:
    """The types of an item of a list or tuple."""
    parts = get_args(kind)
    if get_origin(kind) is tuple and not (len(parts) == 2 and parts[1] is ...):
        return list(parts[index : index + 1])
    return list(parts[:1])


def _fits(value: Any, kinds: list[Any]) -> bool:
    for kind in kinds:
        with suppress(msgspec.ValidationError):
            msgspec.convert(value, kind)
            return True
    return False
