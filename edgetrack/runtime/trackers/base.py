"""What a per-frame procedure is, and how one is found.

`Procedure` holds what every tracker does with a frame: fill the graph's inputs, run it, check its numbers, decode,
judge the score, remember. A tracker's class says how it fills and decodes (docs/plugins.md builds one).
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import msgspec
import numpy as np

from edgetrack.arrays import Array, all_finite
from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest, Scalar, TensorInfo
from edgetrack.decoding import converted
from edgetrack.errors import BundleError, InvalidTextError, UnknownNameError, UsageError
from edgetrack.media.frames import Frame
from edgetrack.plugins import PROCEDURES, load_plugin
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.memory import MemoryEstimate
from edgetrack.runtime.prompt import Prompt

if TYPE_CHECKING:
    from edgetrack.runtime.decode import Chooser, Map

StageTimer = Callable[[str], None]
"""Ends a stage of an update, `crop`, `graphs` or `decode`; one that ends twice is added up."""
NOT_FINITE = "the graph returned NaN or infinity; the last box is kept"
NO_BOX = "the box found is none that a frame can hold; the last box is kept"
Pattern = Mapping[str, tuple[int | str, ...]]
"""Shapes of tensors by name; a name in place of a dimension stands for any number, the same one everywhere."""
_Settings = TypeVar("_Settings", bound=msgspec.Struct)

# Ranges of the numbers of a procedure: what is outside is a slip or an attack, and would end as an overflow in a crop.
Side = Annotated[int, msgspec.Meta(ge=8, le=4096)]
"""Of a crop, in its pixels."""
Factor = Annotated[float, msgspec.Meta(ge=0.1, le=100)]
"""Side of a crop over the square root of the box's area."""
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Strength = Annotated[float, msgspec.Meta(ge=0, le=1000)]
"""Of a penalty; 0 for none."""
Pixels = Annotated[float, msgspec.Meta(ge=0.01, le=4096)]
"""Of the frame: a least side, a margin."""
Threshold = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]
"""Of a score."""


Diagnostics = Mapping[str, Mapping[str, float]]
"""Weights in a frame: gate -> part -> its weight, 0..1, where a gate's weights add up to 1; a gate of one part is a
figure of the frame, such as the cosine of the first memory and the newest. Empty for most trackers."""
NO_DIAGNOSTICS: Diagnostics = {}
ATTENTION = "attention_"
"""How the names of `step`'s outputs begin that are maps of attention: in bundles that were exported with them only."""


class AttentionMap(NamedTuple):
    """Where in the search region a tracker looked.

    Attributes:
        name: which of the tracker's maps it is.
        weights: float32 (rows, columns), shares of a softmax; what they add up to is the family's affair.
        region: what the map covers, in pixels of the frame, beyond which it may reach.
    """

    name: str
    weights: Map
    region: Box


class Decision(NamedTuple):
    """What a procedure makes of a frame.

    Attributes:
        box: the new state, in pixels of the frame.
        score: the tracker's confidence, 0..1.
        reason: why the target counts as lost, or None while it is followed.
        diagnostics: see `edgetrack.runtime.diagnostics`; the same gates and parts in every frame.
        attention: the frame's maps; empty where the bundle was exported without them.
    """

    box: Box
    score: float
    reason: str | None = None
    diagnostics: Diagnostics = NO_DIAGNOSTICS
    attention: tuple[AttentionMap, ...] = ()


class Procedure(abc.ABC):
    """One tracker's way from frame to box, on graphs that are already open.

    A subclass implements `init`, `fill` and `decode`; what `update` does around them is the same for all. One with
    other graphs than `step` in a frame implements `update` itself.

    Attributes:
        settings_type: what the manifest's procedure section is read as; values are checked by it before an export.
        head: whose canonical outputs `step` has; "" for a tracker with outputs of its own.
        modalities: images a frame; with 2, a frame is uint8 (H, W, 6), both images' BGR channels.
        operators: operators that its graphs need and that are refused otherwise: `Loop`, `If`, `Scan`, or
            `domain::Name` for one that is not ONNX's own.
        fades: whether it weighs what it remembers, so that memories may fade (`decay:G`).
        remembers: whether what a frame's graphs are fed depends on the frames before, not on the last box alone.
        prompt: what the tracker reads of a description of the target, given by `set_text` before `init`; None for a
            tracker without language.
        diagnostics: what the last update reports of the tracker's inside.
        state: the last box, in pixels of the frame; `confidence` is the score with which it was found.
        maps: outputs of `step` that are checked for NaN and infinity before they are decoded.
        lost_below: a score under it flags the result as lost, unless a calibrated model judges that.
        holds: whether the last box is kept where the score is below `lost_below`.
        chooser: what chooses the cell of a score map; None where there is no such map.
        region: side of the last search region, in pixels of the frame.
        looked: arrays that a look changes and the next one reads, beside the state.
        looks: outputs of `step` that are maps of attention, by name; empty unless the bundle was exported with them.
    """

    settings_type: ClassVar[type[msgspec.Struct] | None] = None
    head: ClassVar[Literal["", "center", "box", "distances"]] = ""
    modalities: ClassVar[int] = 1
    operators: ClassVar[frozenset[str]] = frozenset()
    remembers: bool = False
    fades: ClassVar[bool] = False
    prompt: Prompt | None = None
    diagnostics: Diagnostics = NO_DIAGNOSTICS
    maps: tuple[Map, ...] = ()
    lost_below: float = 0.0
    holds: bool = False
    confidence: float = 0.0
    chooser: Chooser | None = None
    region: float = 0.0
    looked: tuple[Array, ...] = ()

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        """Check the manifest's graphs and procedure section, and find the graphs."""
        self.graphs = graphs
        self.prompt = self.prompt_of(manifest)
        self.looks: dict[str, Map] = {}
        if "step" in graphs:
            self.step = graphs["step"]
            self.looks = {
                name.removeprefix(ATTENTION): cast("Map", found)
                for name, found in self.step.outputs.items()
                if name.startswith(ATTENTION)
            }
        if self.looks and type(self).search_region is Procedure.search_region:
            raise BundleError(
                f"bundle {manifest.name!r} has maps of attention, which the procedure of its tracker does not read; "
                "export it without them"
            )
        self.state = Box(0.0, 0.0, 1.0, 1.0)

    @classmethod
    def batches(cls) -> bool:
        """Whether one graph may run for several targets at once: `step` is all that runs between crop and decoding."""
        own = cls.update, cls.look, cls.run
        return own == (Procedure.update, Procedure.look, Procedure.run)

    @abc.abstractmethod
    def init(self, frame: Frame, box: Box) -> None:
        """Take the target's appearance from the first frame."""

    def fill(self, frame: Frame) -> float:
        """Write the inputs of `step`: the crop around the state; returns crop pixels per frame pixel."""
        raise NotImplementedError

    def search_region(self) -> Box:
        """What the crop of `fill` covers, in pixels of the frame; asked for where the bundle has maps of attention."""
        raise NotImplementedError

    def decode(self, frame: Frame, scale: float) -> Decision | None:
        """The outputs of `step` to a box; None where they are NaN or infinite. `scale` is what `fill` returned."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the graphs between crop and decoding."""
        self.step.run()

    def remember(self, frame: Frame, timer: StageTimer) -> None:  # noqa: B027
        """Keep what later frames need of this one, at the new state."""

    def update(self, frame: Frame, timer: StageTimer) -> Decision:
        """Find the target in the next frame."""
        found = self.look(frame, timer)
        self.accept(frame, found, timer)
        return found._replace(diagnostics=self.diagnostics)

    def accept(self, frame: Frame, found: Decision, timer: StageTimer) -> None:
        """Take over what a look found as the new state, and remember the frame."""
        self.state, self.confidence = found.box, found.score
        self.remember(frame, timer)

    def look(self, frame: Frame, timer: StageTimer) -> Decision:
        """Search around the state; what is found is not yet followed."""
        scale = self.prepare(frame, timer)
        self.run()
        timer("graphs")
        return self._judged(frame, scale)

    def prepare(self, frame: Frame, timer: StageTimer) -> float:
        """The part of `update` in front of the graphs; returns what `finish` is given behind them."""
        scale = self.fill(frame)
        if (crop := self.step.inputs.get("search")) is not None:
            self.region = crop.shape[-2] / scale
        timer("crop")
        return scale

    def finish(self, frame: Frame, scale: float, timer: StageTimer) -> Decision:
        """The part of `update` behind the graphs, which somebody else has run."""
        found = self._judged(frame, scale)
        self.accept(frame, found, timer)
        return found._replace(diagnostics=self.diagnostics)

    def _judged(self, frame: Frame, scale: float) -> Decision:
        attention = self._attention() if self.looks else ()
        found = self.decode(frame, scale) if all_finite(*self.maps) else None
        if found is not None and not found.box.can_be_followed:
            found = Decision(self.state, 0.0, NO_BOX)
        box, score, reason, *_ = found or Decision(self.state, 0.0, NOT_FINITE)
        if reason is None and score < self.lost_below:
            reason = f"score {score:.3f} is below {self.lost_below:g}"
        return Decision(box, score, reason, attention=attention)

    def _attention(self) -> tuple[AttentionMap, ...]:
        """Copies of the maps that `step` gave; the state is still that of the frame before."""
        region = self.search_region()
        return tuple(AttentionMap(name, np.array(found[0]), region) for name, found in self.looks.items())

    def reset_box(self, box: Box) -> None:
        """Continue from another box than the one found: the next search region is cut around it.

        The target's appearance stays that of `init`. `box` is in pixels of the frame, with an area above 0.
        """
        self.state = box

    def set_text(self, phrases: Mapping[str, str]) -> None:
        """Take a description of the target, a phrase by attribute; it holds until the next one.

        Raises:
            InvalidTextError: a phrase cannot be read; the description before it holds.
        """
        raise InvalidTextError(f"{type(self).__name__} reads no description of the target; leave text out")

    @classmethod
    def prompt_of(cls, manifest: Manifest) -> Prompt | None:
        """What a bundle's tracker reads of a description of the target; None for one without language."""
        return cls.prompt

    @classmethod
    def side_files(cls, manifest: Manifest, tokenizer: Path | None) -> dict[str, bytes]:
        """What a new bundle holds beside its graphs for this tracker, by file name.

        Args:
            manifest: of the bundle.
            tokenizer: a file of CLIP's merges that the user gave; None: an installed package's, where there is one.

        Raises:
            UsageError: a tokenizer was given to a tracker that reads no text, or is none.
        """
        if tokenizer is not None:
            raise UsageError(f"{manifest.tracker!r} reads no text, given --tokenizer {tokenizer}; leave it out")
        return {}

    @classmethod
    def lacking(cls, manifest: Manifest, folder: Path) -> str:
        """A line on what a new bundle lacks of its `side_files`; empty where its device needs nothing else."""
        return ""

    def take_files(self, folder: Path) -> None:  # noqa: B027
        """Know the bundle's folder, for what `side_files` put there; called before the first `set_text`."""

    @classmethod
    def memory_estimate(cls, manifest: Manifest) -> MemoryEstimate | None:
        """What the memory of past frames takes by the manifest; None for a tracker without one."""
        return None


def read_settings(values: Mapping[str, Scalar], kind: type[_Settings]) -> _Settings:
    """A manifest's procedure section as the tracker's own settings.

    Raises:
        BundleError: a number is missing, unknown, of the wrong kind or out of its range, or two do not suit each other.
    """
    return converted(
        dict(values),
        kind,
        lambda words: BundleError(f"the manifest's procedure section does not suit {kind.__name__}: {words}"),
        strict=False,
    )


def shapes_of(tensors: tuple[TensorInfo, ...]) -> dict[str, tuple[int | str, ...]]:
    """Shapes by name."""
    return {tensor.name: tensor.shape for tensor in tensors}


def check_graphs(manifest: Manifest, expected: Mapping[str, tuple[Pattern, Pattern]]) -> dict[str, int]:
    """Check the shapes of the manifest's graphs before anything is written into them.

    Maps of attention, outputs (1, rows, columns) of `step` beside the others, are left aside.

    Args:
        manifest: of the bundle.
        expected: graph -> patterns of its inputs and of its outputs.

    Returns:
        The numbers that the names in the patterns stand for.

    Raises:
        BundleError: a graph is missing, or of other inputs or outputs.
    """
    sizes: dict[str, int] = {}
    for name, sides in expected.items():
        graph = manifest.graph(name)
        for side, tensors, pattern in zip(("inputs", "outputs"), (graph.inputs, graph.outputs), sides, strict=True):
            found = shapes_of(tuple(t for t in tensors if not (name == "step" and _is_attention(t))))
            for tensor, shape in pattern.items():
                for dimension, size in zip(shape, found.get(tensor, ()), strict=False):
                    if isinstance(dimension, str):
                        sizes.setdefault(dimension, cast(int, size))
            wanted = {
                tensor: tuple(sizes.get(d, d) if isinstance(d, str) else d for d in shape)
                for tensor, shape in pattern.items()
            }
            if found != wanted:
                raise BundleError(
                    f"the graphs of bundle {manifest.name!r} do not suit its procedure: {name!r} has {side} {found}, "
                    f"expected {wanted}; export it again"
                )
    return sizes


def _is_attention(tensor: TensorInfo) -> bool:
    return (
        tensor.name.startswith(ATTENTION)
        and tensor.dtype == "float32"
        and len(tensor.shape) == 3
        and tensor.shape[0] == 1
    )


def find_procedure(manifest: Manifest) -> type[Procedure]:
    """The procedure class of a bundle's tracker; see `find_family`."""
    return find_family(manifest.tracker if manifest.family is msgspec.UNSET else manifest.family)


def operators_of(manifest: Manifest) -> frozenset[str]:
    """Operators that a bundle's graphs may hold beyond plain ones; none where its family is not installed."""
    try:
        return find_procedure(manifest).operators
    except UnknownNameError:
        return frozenset()


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
        modules = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
        ours = [module for module in modules if _own_attribute(module, "PROCEDURE")]
        more = f"update edgetrack, or install the package that provides it (entry point group {PROCEDURES!r})"
        raise UnknownNameError.of("tracker", name, ours, more)
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
