"""A bundle as commands take it: a path or name, with `@HINT` behind it where it is to be loaded with one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgetrack.bundle import Manifest, open_bundle
from edgetrack.capabilities import find_target
from edgetrack.errors import UsageError


class Named(NamedTuple):
    """A bundle that was named.

    Attributes:
        path: absolute, as `edgetrack.load` takes it.
        manifest: what the bundle says of itself.
        hint: the precision hint that it is to be loaded with.
    """

    path: Path
    manifest: Manifest
    hint: str | None = None

    @property
    def label(self) -> str:
        """The bundle's name, with its hint where it has one."""
        return self.manifest.name if self.hint is None else f"{self.manifest.name}@{self.hint}"

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
