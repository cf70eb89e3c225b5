"""A backend without a network: outputs follow from inputs by a fixed rule. Ships, so that anyone's tests need no model.

A graph's file is JSON that maps an output to the value that fills it, to a row of values (one for each run, the last
one repeated), or, by the text `input:NAME`, to the mean of that input in 0..1. `"nan"` fills with NaN.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from edgetrack.errors import BundleIntegrityError
from edgetrack.io import BAD_JSON, read_bytes
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph

Rule = float | str | Annotated[list[float], msgspec.Meta(min_length=1)]


class FakeGraph(CompiledGraph):
    """A scripted graph."""

    engine = "fake"

    def _open(self, path: Path, options: BackendOptions) -> None:
        options.require_cpu("scripted")
        options.refuse_hint("the fake backend")
        try:
            self._rules = msgspec.json.decode(read_bytes(path), type=dict[str, Rule])
        except (OSError, *BAD_JSON) as error:
            raise BundleIntegrityError(f"{path.name} is not a fake graph: {error}") from None
        if set(self._rules) != set(self.outputs):
            raise BundleIntegrityError(
                f"{path.name} has rules for {sorted(self._rules)}, the manifest's outputs are {sorted(self.outputs)}"
            )
        texts = {rule for rule in self._rules.values() if isinstance(rule, str)} - {"nan"}
        if unknown := texts - {f"input:{name}" for name in self.inputs}:
            raise BundleIntegrityError(f"{path.name} has rules {sorted(unknown)}, expected 'nan' or 'input:NAME'")
        self.runs = 0

    def _infer(self) -> None:
        for name, rule in self._rules.items():
            self.outputs[name][...] = self._value(rule)
        self.runs += 1

    def _close(self) -> None:
        """There is nothing to release."""

    def _value(self, rule: Rule) -> float:
        if isinstance(rule, list):
            return rule[min(self.runs, len(rule) - 1)]
        if isinstance(rule, str):
            return (
                math.nan
                if rule == "nan"
                else float(self.inputs[rule.removeprefix("input:")].astype(np.float64).mean() / 255)
            )
        return rule
