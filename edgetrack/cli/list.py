"""`edgetrack list`: bundles in a folder, what can be exported, or where it can be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetrack.cli.options import JsonOption

if TYPE_CHECKING:
    from edgetrack.presentation.table import Table

Row = Mapping[str, Any]
"""Of the JSON list: numbers, booleans, lists and null as they are; `_text` makes a table's cells of them."""
_DROPPED = {"from": 9, "tested": 8, "paper": 7, "about": 6, "hints": 5, "environment": 10, "weights": 4, "precision": 3}
"""What a narrow terminal leaves out, the highest first."""


def list_bundles(
    folder: Annotated[Path, typer.Argument(help="Where to look for bundles.")] = Path("out"),
    trackers: Annotated[bool, typer.Option("--trackers", help="List the trackers that can be exported.")] = False,
    targets: Annotated[bool, typer.Option("--targets", help="List the targets and what they need.")] = False,
    scenes: Annotated[bool, typer.Option("--scenes", help="List the built-in scenes.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="List the devices that bench --device takes.")] = False,
    as_json: JsonOption = False,
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
        stderr().print(f"no bundles in {folder}; make one with: edgetrack export TRACKER --target TARGET")
        return
    table(rows).show(stdout())


def table(rows: Sequence[Row]) -> Table:
    """Rows of the same keys."""
    from edgetrack.presentation.table import Column, Table

    columns = [
        Column(key, align="right" if key in ("frames", "size") else "left", drop=_DROPPED.get(key, 0))
        for key in rows[0]
    ]
    return Table(columns, [[_text(key, value) for key, value in row.items()] for row in rows])


def _text(key: str, value: Any) -> str:
    from edgetrack.cli.console import human_size

    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if key == "set":
        from edgetrack.bundle.manifest import scalar_text

        return "; ".join(f"{name}={'|'.join(map(scalar_text, values))}" for name, values in value.items())
    if isinstance(value, Mapping):
        return ", ".join(f"{target} on {place}" for target, place in value.items())
    if isinstance(value, list):
        return ("x" if key == "size" else ", ").join(map(str, value))
    return human_size(value) if key == "size" else str(value)


def _bundles(folder: Path) -> list[Row]:
    """Each with its size in bytes, and what is wrong with it or null."""
    from edgetrack.bundle import find_bundles

    rows: list[Row] = []
    for found in find_bundles(folder):
        manifest = found.manifest
        rows.append(
            {
                "bundle": str(found.path),
                "tracker": manifest and manifest.tracker,
                "target": manifest and manifest.target,
                "precision": manifest and manifest.precision,
                "weights": manifest and manifest.weights.origin,
                "problem": found.error,
                "size": found.size_bytes,
            }
        )
    return rows


def _trackers() -> list[Row]:
    from edgetrack.errors import UsageError
    from edgetrack.exporting.recipe import find_recipe, recipe_names

    rows: list[Row] = []
    for name in recipe_names():
        try:
            recipe = find_recipe(name)
        except UsageError as error:
            unknown = dict.fromkeys(("paper", "checkpoint", "from", "set"))
            rows.append({"tracker": name, "title": f"cannot be used: {error}", **unknown})
            continue
        rows.append(
            {
                "tracker": recipe.name,
                "title": recipe.title,
                "paper": recipe.paper.source,
                "checkpoint": recipe.checkpoint.file,
                "from": recipe.checkpoint.source,
                "set": recipe.choices,
            }
        )
    return rows


def _targets() -> list[Row]:
    """Each with the command that installs it, null where it is installed; the state of its own environment, if any."""
    from edgetrack.capabilities import targets

    return [
        {
            "target": t.name,
            "precisions": list(t.precisions),
            "hints": list(t.hints),
            "installed": t.installed,
            "install": None if t.installed else t.install_command,
            "environment": t.environment_state(),
            "tested": t.tested,
            "about": t.about,
        }
        for t in targets()
        if t.exporter is not None
    ]


def _scenes() -> list[Row]:
    """Each with its length in frames and its [width, height] in pixels."""
    from edgetrack.media import load_scene, scene_names

    scenes = [load_scene(name) for name in scene_names()]
    return [{"scene": f"synthetic:{s.name}", "frames": s.length, "size": [s.width, s.height]} for s in scenes]


def _devices() -> list[Row]:
    """Each with where it runs which target, and its host or null."""
    from edgetrack.devices.profiles import config_file, find_profile, profile_names, read_hosts

    own = read_hosts(config_file())
    profiles = {name: section.profile or name for name, section in own.items()}
    rows: list[Row] = []
    for name in (*profile_names(), *(name for name in own if name not in profile_names())):
        profile = find_profile(profiles.get(name, name))
        host = own[name].host if name in own else None
        rows.append({"device": name, "title": profile.title, "runs": dict(profile.backends), "host": host})
    return rows
