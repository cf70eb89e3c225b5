"""A bundle as commands take it: a path or name, with `@HINT` behind it where it is to be loaded with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetrack.bundle import Manifest, open_bundle
from edgetrack.capabilities import find_target
from edgetrack.errors import UsageError


@dataclass(frozen=True)
class Named:
    """A bundle that was named.

    Attributes:
        path: absolute, as `edgetrack.load` takes it.
        manifest: what the bundle says of itself.
        hint: the precision hint that it is to be loaded with.
        alias: the end of its path, where another bundle of the same name was named too.
    """

    path: Path
    manifest: Manifest
    hint: str | None = None
    alias: str | None = None

    @property
    def name(self) -> str:
        """What it is called: its alias where it has one."""
        return self.alias or self.manifest.name

    @property
    def label(self) -> str:
        """Its name, with its hint where it has one."""
        return self.name if self.hint is None else f"{self.name}@{self.hint}"

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in."""
        return self.hint or self.manifest.precision


def open_named(text: str) -> Named:
    """Read the manifest of a bundle that was given as `smat-openvino-fp32` or `smat-openvino-fp32@bf16`.

    A path that exists is taken as it is, with whatever @ it has in it.

    Raises:
        UsageError: its target takes no such hint.
        EdgetrackError: the bundle cannot be opened.
    """
    path, at, hint = text.rpartition("@")
    if not at or Path(text).exists():
        path, hint = text, ""
    with open_bundle(path) as bundle:
        named = Named(bundle.source.absolute(), bundle.manifest, hint or None)
    target = find_target(named.manifest.target)
    if named.hint is not None and named.hint not in target.hints:
        raise UsageError(
            f"{text}: target {target.name!r} takes no precision hint {hint!r}; "
            f"expected one of: {', '.join(target.hints) or 'none'}"
        )
    return named


def open_together(texts: Sequence[str]) -> list[Named]:
    """`open_named` for each, with aliases where two bundles have one name."""
    opened = [open_named(text) for text in texts]
    aliases = tell_apart([(one.manifest.name, one.path) for one in opened])
    return [replace(one, alias=alias) for one, alias in zip(opened, aliases, strict=True)]


def tell_apart(bundles: Sequence[tuple[str, Path]]) -> list[str | None]:
    """What to call bundles of one name in different places, such as two exports of one tracker.

    Args:
        bundles: names and paths.

    Returns:
        For each as much of its path's end as tells it from the others of its name; None where the name does.
    """
    places: dict[str, set[Path]] = {}
    for name, path in bundles:
        places.setdefault(name, set()).add(path.resolve())
    return [_end(path.resolve(), places[name]) for name, path in bundles]


def _end(path: Path, places: set[Path]) -> str | None:
    others = [place.parts for place in places if place != path]
    if not others:
        return None
    length = next(n for n in range(1, len(path.parts) + 1) if all(other[-n:] != path.parts[-n:] for other in others))
    return Path(*path.parts[-length:]).as_posix()
