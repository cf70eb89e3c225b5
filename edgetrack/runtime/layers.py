"""What a compiled bundle's graphs consist of, layer by layer: `layers.json` in the bundle, shown by `inspect`."""

from __future__ import annotations

from collections import Counter

import msgspec

LAYERS_FILE = "layers.json"


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer: its type, the type of what it returns, and the layers of the file that were fused into it."""

    name: str
    type: str
    precision: str
    fused: tuple[str, ...] = ()


class GraphLayers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The layers of one graph.

    Attributes:
        source: who was asked: `parsed network` (before any fusion), `engine inspector` or `model specification`.
        tool: package and version.
        layers: in their order.
    """

    source: str
    tool: str
    layers: tuple[Layer, ...]

    def types(self) -> dict[str, int]:
        """How many layers there are of each type, the most frequent first."""
        return dict(Counter(layer.type for layer in self.layers).most_common())

    def precisions(self) -> dict[str, int]:
        """How many layers return each type of number, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())


class LayerReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Layers of every graph of a bundle, by the graph's name."""

    schema: int = 1
    graphs: dict[str, GraphLayers]

    def to_json(self) -> bytes:
        """The same report gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"
