"""What a backend says of the layers of a graph: how long each takes in it, and how long alone."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from edgetrack.runtime.backends.base import BackendOptions

Role = Literal["compute", "move", "own"]


class TimedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a graph as the engine runs it, after all that it fuses.

    Attributes:
        name: the engine's.
        kind: the engine's word for it, such as "Convolution".
        shape: all that its time depends on but the weights' values: kind, tensors, settings, what is fused with it.
        primitive: what computes it, in the engine's words.
        role: `compute`: has to be timed; `move`: computes little on what it reads and writes; `own`: no layer of the
            network, such as a change of layout between two others.
        seconds: least time in the graph.
        moved: bytes of its outputs and of those inputs that are no constants.
    """

    name: str
    kind: str
    shape: str
    primitive: str
    role: Role
    seconds: float
    moved: int


class LayerTime(msgspec.Struct, frozen=True):
    """Least seconds of one layer alone, its inputs in cache, and what computed it."""

    seconds: float
    primitive: str


class LayerTimer(abc.ABC):
    """The layers of one graph file in one engine on the processor, with its threads and precision.

    Attributes:
        engine: the backend's name in records.
        instructions: the instruction set that the engine says it uses, empty where it does not say.
    """

    engine: ClassVar[str]
    instructions: str = ""

    @abc.abstractmethod
    def __init__(self, path: Path, options: BackendOptions) -> None:
        """Read a graph file.

        Raises:
            BackendMissingError: a package is missing that takes graphs apart.
            BundleIntegrityError: it is none.
        """

    @abc.abstractmethod
    def layers(self, seconds: float) -> list[TimedLayer]:
        """The layers in the order in which they run, timed for about `seconds`; layers that do nothing are left out."""

    @abc.abstractmethod
    def alone(self, layer: TimedLayer, seconds: float) -> LayerTime | None:
        """That layer only, timed for about `seconds`; None where it would not run as it does in the graph."""

    @abc.abstractmethod
    def move(self, moved: int, seconds: float) -> float:
        """Least seconds in which a layer reads half of `moved` bytes and writes the other half."""
