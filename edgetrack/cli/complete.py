"""What the shell offers behind a Tab: names that are there. Nothing heavy is imported, and a fault offers nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from edgetrack.capabilities import target_names

_SYNTHETIC = "synthetic:"
# As `bundle.integrity` has it, whose package would bring NumPy.
_MANIFEST = "manifest.json"


def _offered(names: Callable[[str], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        """Names that begin so. An error must not land in what the user types: then files are offered, as ever."""
        try:
            return [name for name in names(incomplete) if name.startswith(incomplete)]
        except Exception:
            return []

    return complete


def _trackers(incomplete: str) -> Iterable[str]:
    from edgetrack.exporting.recipe import recipe_names

    return recipe_names()


def _bundles(incomplete: str) -> Iterable[str]:
    """Those in ./out, which are found by name; others are files."""
    folders = [Path(incomplete).parent] if os.sep in incomplete else [Path("out"), Path()]
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix == ".zip" or (path / _MANIFEST).is_file():
                yield str(path) if os.sep in incomplete else path.name


def _targets(incomplete: str) -> Iterable[str]:
    """Also behind a comma."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*target_names(), *([] if comma else ["all"]))]


def _devices(incomplete: str) -> Iterable[str]:
    from edgetrack.devices.profiles import config_file, profile_names, read_hosts

    return dict.fromkeys(("cpu", "cuda:0", *profile_names(), *read_hosts(config_file())))


def _datasets(incomplete: str) -> Iterable[str]:
    from edgetrack.resources import data_set_folders

    for folder in data_set_folders():
        yield from (path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != ".")
    if incomplete and _SYNTHETIC.startswith(incomplete[: len(_SYNTHETIC)]):
        from edgetrack.media import scene_names

        yield from (f"{_SYNTHETIC}{name}" for name in scene_names())


trackers, bundles, targets, devices, datasets = map(_offered, (_trackers, _bundles, _targets, _devices, _datasets))
