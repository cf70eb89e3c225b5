"""What the site holds beside the pages: the command-line reference, and the files elsewhere that pages link to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from typer.main import get_command

from edgetrack.cli.help import name_of
from edgetrack.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
_INSIDE = re.compile(r"\]\((?:\.\./)+docs/([\w./#-]+)\)")
_OUTSIDE = re.compile(r"\]\(((?:\.\./)+)((?:examples|bench|packages)/[\w./-]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the reference, and each file outside `docs` that a page links to."""
    files.append(File.generated(config, "reference/cli.md", content=command_line_reference()))
    linked = {found[2] for page in files.documentation_pages() for found in _OUTSIDE.finditer(page.content_string)}
    for path in sorted(linked):
        if (ROOT / path).is_file():  # else the link stays broken, which is an error
            files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links to files outside `docs` lead to the site's copies, and links of those back to the pages."""
    up = "../" * page.file.src_uri.count("/")
    if page.file.src_uri.startswith("files/"):
        markdown = _INSIDE.sub(lambda found: f"]({up}{found[1]})", markdown)
    return _OUTSIDE.sub(lambda found: f"]({up}files/{found[2]})", markdown)


def command_line_reference() -> str:
    """Markdown: each verb with what it does, its usage, its arguments and options."""
    group = get_command(app)
    lines = ["# Command line", "", f"{group.help}", ""]
    for path, command in _verbs(group, ()):
        context = command.context_class(command, info_name=" ".join(("edgetrack", *path)))
        lines += [f"## edgetrack {' '.join(path)}", "", command.help or "", ""]
        usage = " ".join(("edgetrack", *path, *command.collect_usage_pieces(context)))
        lines += ["```text", usage, "```", ""]
        lines += ["| argument or option | |", "|---|---|"]
        for option in command.get_params(context):
            if record := option.get_help_record(context):
                lines.append(f"| `{_cell(name_of(option, record))}` | {_cell(record[1]).replace('<', '&lt;')} |")
        lines.append("")
    return "\n".join(lines)


def _verbs(group: Any, path: tuple[str, ...]) -> Any:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, (*path, name))
        else:
            yield (*path, name), command


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
