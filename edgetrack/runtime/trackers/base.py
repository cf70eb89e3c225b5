"""What a per-frame procedure is, and how one is found."""

from __future__ import annotations

import abc
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest, Scalar
from edgetrack.errors import BundleError, InvalidTextError, UnknownNameError, UsageError
from edgetrack.plugins import PROCEDURES, load_plugin
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.memory import Forecast

Frame = NDArray[np.uint8]
Mark = Callable[[str], None]
Settings = TypeVar("Settings", bound=msgspec.Struct)
Diagnostics = Mapping[str, Mapping[str, float]]
"""What a tracker mixed in a frame, and in which shares: mixture -> part -> share, 0..1; a mixture's add up to 1."""
NO_DIAGNOSTICS: Diagnostics = {}


class Decision(NamedTuple):
    """What a procedure makes of a frame.

    Attributes:
        box: the new state, in pixels of the frame.
        score: the tracker's confidence, 0..1.
        reason: why the target counts as lost, or None while it is followed.
        diagnostics: the same mixtures and parts in every frame; of most trackers none.
    """

    box: Box
    score: float
    reason: str | None
    diagnostics: Diagnostics = NO_DIAGNOSTICS


class Procedure(abc.ABC):
    """One tracker's way from frame to box, on graphs that are already open.

    `mark(stage)` ends a stage of the timing waterfall: `crop`, `graphs`, `decode`; one that comes twice is added up.

    Attributes:
        modalities: images a frame; with 2, a frame is uint8 (H, W, 6), both images' BGR channels.
        remembers: whether what a frame's graphs are fed depends on the frames before, not on the last box alone.
        attributes: what a description of the target may speak of; empty for a tracker that reads none. One that does
            is given it by `describe` before `init`.
    """

    modalities: ClassVar[int] = 1
    remembers: ClassVar[bool] = False
    attributes: tuple[str, ...] = ()

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        """Check the manifest's procedure section and find the graphs."""
        self.graphs = graphs

    def describe(self, phrases: Mapping[str, str]) -> None:
        """Take what is said of the target: one phrase or more, by attribute; it holds until the next description.

        Raises:
            InvalidTextError: a phrase cannot be read; the description before it holds.
        """
        raise InvalidTextError(f"{type(self).__name__} reads no description of the target; leave text out")

    @classmethod
    def forecast(cls, manifest: Manifest) -> Forecast | None:
        """What the memory of past frames will take by the manifest; None for a tracker without one."""
        return None

    @abc.abstractmethod
    def init(self, frame: Frame, box: Box) -> None:
        """Take the target's looks from the first frame."""

    @abc.abstractmethod
    def update(self, frame: Frame, mark: Mark) -> Decision:
        """Find the target in the next frame."""

    @abc.abstractmethod
    def place(self, box: Box) -> None:
        """Go on from a box other than the one that was found: the next search region is cut around it.

        The target's looks stay those of `init`. `box` is in pixels of the frame, with an area above 0.
        """


def read_settings(values: Mapping[str, Scalar], kind: type[Settings]) -> Settings:
    """A manifest's procedure section as the tracker's own settings.

    Raises:
        BundleError: a number is missing, unknown or of the wrong kind.
    """
    try:
        return msgspec.convert(dict(values), kind, strict=False)
    except msgspec.ValidationError as error:
        raise BundleError(f"the manifest's procedure section does not suit {kind.__name__}: {error}") from None


def find_procedure(manifest: Manifest) -> type[Procedure]:
    """The procedure class of a bundle's tracker; see `find_family`."""
    return find_family(manifest.tracker if manifest.family is msgspec.UNSET else manifest.family)


def find_family(name: str) -> type[Procedure]:
    """The procedure class of a family of trackers: `PROCEDURE` in our file of that name, or a plug-in's.

    Bundles that are older than families name the tracker alone: a family's `MEMBERS` are those trackers.

    Raises:
        UnknownNameError: there is neither.
        UsageError: the plug-in cannot be used.
    """
    if (own := _own_attribute(name, "PROCEDURE")) is not None:
        return cast("type[Procedure]", own)
    plugin = load_plugin(PROCEDURES, name)
    family = name.rpartition("_")[0]
    if plugin is None and name in (_own_attribute(family, "MEMBERS") or ()):
        return find_family(family)
    if plugin is None:
        raise UnknownNameError(
            f"no tracker named {name!r} is installed; update edgetrack, or install the package that provides it "
            f"(entry point group {PROCEDURES!r})"
        )
    if not (isinstance(plugin, type) and issubclass(plugin, Procedure)):
        raise UsageError(
            f"the plug-in for tracker {name!r} gives {plugin!r}, expected a subclass of {Procedure.__module__}."
            f"{Procedure.__name__} (entry point group {PROCEDURES!r})"
        )
    return plugin


def _own_attribute(family: str, name: str) -> Any:
    module = f"edgetrack.runtime.trackers.{family}"
    if not family.isidentifier() or importlib.util.find_spec(module) is None:
        return None
    return getattr(importlib.import_module(module), name, None)
