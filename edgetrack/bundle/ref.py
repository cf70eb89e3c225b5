"""How commands name a bundle: a path or a name, with `@HINT` behind it where it is to be loaded with one.

`edgetrack.capabilities.open_ref` opens one, since only the targets know which hints there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetrack.bundle.manifest import Manifest


def bundle_label(name: str, hint: str | None) -> str:
    """A bundle's name as results show it: `smat-openvino-fp32`, or `smat-openvino-fp32@bf16` with a precision hint."""
    return name if hint is None else f"{name}@{hint}"


def split_label(text: str) -> tuple[str, str | None]:
    """A bundle's path or name, and its precision hint; a path that exists is taken as it is, whatever @ is in it."""
    path, at, hint = text.rpartition("@")
    return (text, None) if not at or Path(text).exists() else (path, hint or None)


@dataclass(frozen=True)
class BundleRef:
    """A bundle that a command was given.

    Attributes:
        path: absolute, as `edgetrack.load` takes it.
        manifest: what the bundle says of itself.
        hint: the precision hint that it is to be loaded with.
        alias: the end of its path, where another bundle of the same name was given, too.
    """

    path: Path
    manifest: Manifest
    hint: str | None = None
    alias: str | None = None

    @property
    def name(self) -> str:
        """Its alias where it has one, else the manifest's name."""
        return self.alias or self.manifest.name

    @property
    def label(self) -> str:
        """Its name, with its hint where it has one."""
        return bundle_label(self.name, self.hint)

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in."""
        return self.hint or self.manifest.precision


def path_aliases(bundles: Sequence[tuple[str, Path]]) -> list[str | None]:
    """What to call bundles of one name in different places, such as two exports of one tracker.

    Args:
        bundles: names and paths.

    Returns:
        For each as much of its path's end as tells it from the others of its name; None where the name does.
    """
    places: dict[str, set[Path]] = {}
    for name, path in bundles:
        places.setdefault(name, set()).add(path.resolve())
    return [_distinct_end(path.resolve(), places[name]) for name, path in bundles]


def _distinct_end(path: Path, places: set[Path]) -> str | None:
    others = [place.parts for place in places if place != path]
    if not others:
        return None
    length = next(n for n in range(1, len(path.parts) + 1) if all(other[-n:] != path.parts[-n:] for other in others))
    return Path(*path.parts[-length:]).as_posix()
