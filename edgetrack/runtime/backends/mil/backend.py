"""The reference interpreter of ML programs: what a Core ML package states, computed with NumPy. It is not Core ML.

It proves packages where nothing runs them: slow, one operation after another, for numbers and never for speed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.backends.mil.interpreter import PackageInterpreter
from edgetrack.runtime.backends.mil.package import as_stated, import_coremltools


class MilGraph(CompiledGraph):
    """A graph, interpreted."""

    engine = "mil"
    arithmetic = "the reference interpreter, float32 rounded after each operation"
    # Float32 sums in another order, by another processor's kernels, moved SMAT in INT8 by 0.0031.
    same_peak = 0.005

    @classmethod
    def import_package(cls) -> None:
        import_coremltools()

    def _open(self, path: Path, options: BackendOptions) -> None:
        options.require_cpu("The reference interpreter's")
        options.refuse_hint("the reference interpreter")
        self._interpreter = PackageInterpreter(path)
        self._check_signature("inputs", as_stated(self._interpreter.inputs, self.info.inputs))
        self._check_signature("outputs", self._interpreter.outputs)

    def _infer(self) -> None:
        for name, value in self._interpreter.run(self.inputs).items():
            np.copyto(self.outputs[name], value)

    def _close(self) -> None:
        del self._interpreter
