"""Trackers and targets of other packages, found by entry points of five groups; an entry point has their name.

edgetrack.trackers  the procedure: a subclass of `edgetrack.runtime.trackers.base.Procedure`; all that a device loads
edgetrack.models    the networks: a module with `Network`, `deploy` and `reference`; exports and eager PyTorch load it
edgetrack.recipes   the recipe: a path or an `importlib.resources` file, of a TOML file; exports load it
edgetrack.trainings how it is trained, optional: a subclass of `edgetrack.training.method.TrainingMethod`
edgetrack.targets   a row of the capability table: an `edgetrack.capabilities.Target`

Nothing of a plug-in is imported before its tracker or target is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edgetrack.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PROCEDURES = "edgetrack.trackers"
MODELS = "edgetrack.models"
RECIPES = "edgetrack.recipes"
TRAININGS = "edgetrack.trainings"
TARGETS = "edgetrack.targets"


def plugin_names(group: str) -> list[str]:
    """The trackers, or targets, that other packages bring, sorted."""
    return sorted({entry.name for entry in _entries(group)})


def load_plugin(group: str, name: str) -> Any | None:
    """What a plug-in brings for a tracker or target, or None where no package does.

    Raises:
        UsageError: two packages bring it, or it cannot be imported.
    """
    noun = "target" if group == TARGETS else "tracker"
    # A distribution that lies on the path twice is listed twice.
    found = {(entry.value, _package(entry)): entry for entry in _entries(group) if entry.name == name}
    if len(found) > 1:
        raise UsageError(
            f"{noun} {name!r} comes from more than one package: {', '.join(package for _, package in found)} "
            f"(entry point group {group!r}); uninstall all but one"
        )
    if not found:
        return None
    (entry,) = found.values()
    try:
        return entry.load()
    except Exception as error:
        raise UsageError(
            f"package {_package(entry)} cannot be used for {noun} {name!r}: loading {entry.value!r} (entry point "
            f"group {group!r}) fails with {type(error).__name__}: {error}"
        ) from error


def _entries(group: str) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # 50 ms that `edgetrack --help` need not wait for

    return entry_points(group=group)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"
