"""Text from outside (bundles, data sets, records, devices) made safe to show on a terminal and in Markdown.

A table (`presentation.table`) does this for its cells and notes. HTML is escaped by the page's templates.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from edgetrack.io import readable

_REPLACEMENT = "\ufffd"
_COMMAND = re.compile(r"^(?=\s*::)|(?<=#)(?=#\w*\[)")
"""What CI systems take for a command in a log: `::error::` where a line begins, `##[error]` and `##vso[` anywhere."""
_MENTION = re.compile(r"(?<![\w.])@(?=\w)")
"""GitHub looks for `@name` in the finished text, where a backslash is gone; a comment parts the two."""
_MARKDOWN = {ord(c): f"\\{c}" for c in "\\`*_[]|~#"} | {ord("<"): "&lt;", ord(">"): "&gt;", ord("&"): "&amp;"}

_USER = re.compile(r"(://[^/@\s:]*:)[^\s\"']*(?=@)")
_SECRET = re.compile(r"""(?i)([\w-]*(?:pass|pwd|pw|secret|token|key|auth|sig)[\w-]*=)("[^"]*"|'[^']*'|[^&\s"']+)""")


def hide_passwords(text: str) -> str:
    """An address or a pipeline with `***` for the password before its `@` and for values of keys like `password=`."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***", text))


def printable(text: str, longest: int | None = None) -> str:
    """One line of text without what would steer a terminal or turn the direction of writing.

    Control, format, private and unassigned characters and line breaks become replacement characters, bytes of a name
    that is not UTF-8 read as `\\udcc4`; text beyond `longest` characters is cut off.
    """
    text = readable(text)
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_REPLACEMENT if _steers(character) else character for character in text)


def log_line(text: str) -> str:
    """Printable text that no CI system takes for a command: a backslash stands before what would be one."""
    return _COMMAND.sub(r"\\", printable(text))


def printable_data(value: Any) -> Any:
    """Plain data, as JSON holds it, with printable keys and texts; texts keep their line feeds."""
    if isinstance(value, str):
        return "\n".join(map(printable, value.split("\n")))
    if isinstance(value, list):
        return [printable_data(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable_data(item) for key, item in value.items()}
    return value


def markdown_text(text: str) -> str:
    """Text on one line that GitHub's Markdown shows as it is: no markup, HTML or mention in it has an effect."""
    return _MENTION.sub("@<!-- -->", printable(" ".join(text.split())).translate(_MARKDOWN))


def _steers(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")
