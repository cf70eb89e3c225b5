"""`edgetrack list`: bundles in a folder, what can be exported, or where it can be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def list_bundles(
    folder: Annotated[Path, typer.Argument(help="Where to look for bundles.")] = Path("out"),
    trackers: Annotated[bool, typer.Option("--trackers", help="List the trackers that can be exported.")] = False,
    targets: Annotated[bool, typer.Option("--targets", help="List the targets and what they need.")] = False,
    scenes: Annotated[bool, typer.Option("--scenes", help="List the built-in scenes.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="List the devices that bench --device takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List bundles, trackers, targets, scenes or devices."""
    asked = {_trackers: trackers, _targets: targets, _scenes: scenes, _devices: devices}
    chosen = next((rows_of for rows_of, wanted in asked.items() if wanted), None)
    rows = _bundles(folder) if chosen is None else chosen()
    from edgetrack.cli.console import print_json, stderr, stdout

    if as_json:
        print_json({"schema": 1, "items": rows})
        return
    if not rows:
        stderr().print(f"no bundles in {folder}; make one with: edgetrack export TRACKER --target TARGET", markup=False)
        return
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    stdout().print(table)


def _bundles(folder: Path) -> list[dict[str, str]]:
    from edgetrack.bundle import find_bundles
    from edgetrack.cli.console import human_size

    rows = []
    for found in find_bundles(folder):
        manifest = found.manifest
        said = (
            {"tracker": "", "target": "", "precision": "", "weights": "", "problem": found.error or "unreadable"}
            if manifest is None
            else {
                "tracker": manifest.tracker,
                "target": manifest.target,
                "precision": manifest.precision,
                "weights": manifest.weights.origin,
                "problem": found.error or "",
            }
        )
        rows.append({"bundle": str(found.path), **said, "size": human_size(found.size_bytes)})
    return rows


def _trackers() -> list[dict[str, str]]:
    from edgetrack.errors import UsageError
    from edgetrack.export.recipe import find_recipe, recipe_names

    rows = []
    for name in recipe_names():
        try:
            recipe = find_recipe(name)
        except UsageError as error:
            rows.append(
                {"tracker": name, "title": f"cannot be used: {error}", "paper": "", "checkpoint": "", "from": ""}
            )
            continue
        rows.append(
            {
                "tracker": recipe.name,
                "title": recipe.title,
                "paper": recipe.paper.source,
                "checkpoint": recipe.checkpoint.file,
                "from": recipe.checkpoint.source,
            }
        )
    return rows


def _targets() -> list[dict[str, str]]:
    from edgetrack.capabilities import TARGETS

    return [
        {
            "target": t.name,
            "precisions": ", ".join((*t.precisions, *(f"{h} (hint)" for h in t.hints))),
            "installed": "yes" if t.installed else f"no: {t.install_command}",
            "tested": t.tested,
            "about": t.about,
        }
        for t in TARGETS
        if t.exporter is not None
    ]


def _scenes() -> list[dict[str, str]]:
    from edgetrack.media import load_scene, scene_names

    scenes = [load_scene(name) for name in scene_names()]
    return [{"scene": f"synthetic:{s.name}", "frames": str(s.length), "size": f"{s.width}x{s.height}"} for s in scenes]


def _devices() -> list[dict[str, str]]:
    from edgetrack.devices.hosts import config_file, read_sections
    from edgetrack.devices.profile import find_profile, profile_names

    own = read_sections(config_file())
    named = {name: section.profile or name for name, section in own.items()}
    rows = []
    for name in (*profile_names(), *(name for name in own if name not in profile_names())):
        profile = find_profile(named.get(name, name))
        rows.append(
            {
                "device": name,
                "title": profile.title,
                "runs": ", ".join(f"{target} on {place}" for target, place in profile.backends.items()),
                "host": own[name].host if name in own else "",
            }
        )
    return rows
