"""A backend whose engine runs in a target's own Python environment, in a process for each graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from edgetrack.decoding import converted
from edgetrack.environments import PythonEnvironment
from edgetrack.environments.process import open_environment
from edgetrack.errors import BundleError, BundleIntegrityError, WorkerError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, GraphSignature


class OpenedGraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker may say of a graph: its inputs and outputs, (dtype, shape) by name, and where it runs."""

    inputs: GraphSignature | None = None
    outputs: GraphSignature | None = None
    placement: str = ""


class EnvironmentGraph(CompiledGraph):
    """A graph that the target's worker runs; a subclass gives `engine` and `environment`, and no more is needed.

    The worker, see `edgetrack.environments.serve`, has two functions:

    `open_graph(arrays, say, *, path, device, threads, ...)` opens the file; it may return values, see `OpenedGraph`,
    which are compared with the manifest.
    `run_graph(arrays, say)` takes all inputs by name and returns all outputs by name.
    """

    environment: ClassVar[PythonEnvironment]

    @classmethod
    def import_package(cls) -> None:
        with open_environment(cls.environment):
            pass

    def _open_options(self, path: Path, options: BackendOptions) -> dict[str, Any]:
        """JSON values that `open_graph` gets beside the path, the device and the number of threads."""
        return {}

    def _open(self, path: Path, options: BackendOptions) -> None:
        options.refuse_hint(self.engine)
        own = self._open_options(path, options)
        self._process = open_environment(self.environment, threads=options.threads)
        try:
            values = self._process.call(
                "open_graph", path=str(path.absolute()), device=options.device, threads=options.threads, **own
            ).values
            opened = converted(values, OpenedGraph, lambda words: WorkerError(f"broke its protocol: {words}"))
            for side, stated in (("inputs", opened.inputs), ("outputs", opened.outputs)):
                if stated is not None:
                    self._check_signature(side, stated)
        except WorkerError as error:  # a file that the engine does not take, or that ends it
            self._process.close()
            raise BundleIntegrityError(self._failed("cannot be opened", error)) from None
        except BaseException:
            self._process.close()
            raise
        self.placement = opened.placement

    def _infer(self) -> None:
        try:
            found = self._process.call("run_graph", self.inputs).arrays
        except WorkerError as error:
            raise BundleError(self._failed("fails while it runs", error)) from None
        stated = {name: (str(value.dtype), value.shape) for name, value in found.items()}
        wanted = {name: (str(value.dtype), value.shape) for name, value in self.outputs.items()}
        if stated != wanted:
            raise BundleError(f"graph {self.info.name!r}: the engine gave {stated}, the manifest says {wanted}")
        for name, value in found.items():
            np.copyto(self.outputs[name], value)

    def _close(self) -> None:
        self._process.close()
