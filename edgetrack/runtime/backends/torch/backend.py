"""PyTorch on the published network: the reference for numbers and speed, on the CPU eager, on a GPU by `torch_cuda`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from edgetrack.bundle.manifest import Scalar
from edgetrack.errors import (
    BackendMissingError,
    BundleError,
    BundleIntegrityError,
    CheckpointError,
    UnknownNameError,
    UsageError,
)
from edgetrack.io import BAD_JSON
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.backends.torch.cuda import CudaRun, find_device, to_half

HALF = "fp16"
# One network for the graphs of a bundle, as in the published tracker; gone with the last of them.
_networks: WeakValueDictionary[tuple[str, int, str, str | None], Any] = WeakValueDictionary()


def import_torch() -> Any:
    """The package.

    Raises:
        BackendMissingError: it, or safetensors, is not installed.
    """
    try:
        import safetensors  # noqa: F401
        import torch
    except ImportError as error:
        raise BackendMissingError(
            f"PyTorch is not installed ({error}); install it with: pip install 'edgetrack[export]'"
        ) from error
    return torch


def _network(path: Path, device: str, hint: str | None) -> tuple[str, Any]:
    torch = import_torch()
    from safetensors import SafetensorError, safe_open

    from edgetrack.checkpoints import check_tensors, load_into, read_checkpoint
    from edgetrack.models.base import make_network

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        # Files that were written before there were families name the tracker alone.
        family = metadata.get("family") or metadata.get("tracker", "")
        configuration = msgspec.json.decode(metadata.get("configuration", "{}"), type=dict[str, Scalar])
    except BAD_JSON as error:
        raise BundleIntegrityError(f"{path.name} states a configuration that is none: {error}") from None
    except (OSError, SafetensorError) as error:
        raise BundleIntegrityError(f"{path.name} is not a safetensors file: {error}") from None
    key = (str(path.resolve()), path.stat().st_mtime_ns, device, hint)
    network = _networks.get(key)
    if network is None:
        try:
            checkpoint = read_checkpoint(path)
            # Without memory first: a configuration may claim any size, the file's is known.
            with torch.device("meta"):
                shapes = {name: tuple(t.shape) for name, t in make_network(family, configuration).state_dict().items()}
            check_tensors(shapes, checkpoint.tensors, source=path.name)
            network = make_network(family, configuration)
            load_into(network, checkpoint, source=path.name)
        except (UnknownNameError, UsageError, CheckpointError) as error:
            raise BundleIntegrityError(f"{path.name} does not hold a network that is known here: {error}") from None
        _networks[key] = network
    return family, network


class TorchGraph(CompiledGraph):
    """A graph of the published network."""

    engine = "torch"
    probe = "edgetrack.runtime.backends.torch.probe:TorchProbe"

    @classmethod
    def import_package(cls) -> None:
        import_torch()

    def _open(self, path: Path, options: BackendOptions) -> None:
        if options.precision_hint not in (None, HALF) or (options.precision_hint and options.device == "cpu"):
            raise UsageError(
                f"the PyTorch reference takes the precision hint {HALF} on a GPU and no other, "
                f"given {options.precision_hint!r} on {options.device!r}"
            )
        torch = import_torch()
        family, network = _network(path, options.device, options.precision_hint)
        from edgetrack.models.base import find_model

        self.network = network
        """The published network, for those who look inside."""
        self._torch, self._threads = torch, options.threads
        device = None if options.device == "cpu" else find_device(torch, options.device)
        if device is not None:
            network.to(device)
        if options.precision_hint == HALF:
            to_half(torch, network)
        modules = {graph.name: graph for graph in find_model(family).reference(network)}
        if self.info.name not in modules:
            raise BundleIntegrityError(f"{family} has no graph {self.info.name!r}; it has: {', '.join(modules)}")
        self._module = modules[self.info.name]
        for side, tensors in (("inputs", self._module.inputs), ("outputs", self._module.outputs)):
            self._check_signature(side, {t.name: (t.dtype, t.shape) for t in tensors})
        self._on_gpu: CudaRun | None = None
        if device is not None:
            self._on_gpu = CudaRun(torch, self._module, device, half=options.precision_hint == HALF)
            self.inputs, self.outputs = self._on_gpu.inputs, self._on_gpu.outputs
        self._in = [torch.from_numpy(self.inputs[t.name]) for t in self._module.inputs]
        self._out = {name: torch.from_numpy(buffer) for name, buffer in self.outputs.items()}

    def _infer(self) -> None:
        if self._on_gpu is not None:
            self._on_gpu.run()
            return
        # One setting for the whole process, which another graph or the program may have changed meanwhile.
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        for name, value in self._module(*self._in).items():
            if value.shape != self._out[name].shape:
                raise BundleError(
                    f"graph {self.info.name!r} returns {name!r} of shape {tuple(value.shape)}, declared is "
                    f"{tuple(self._out[name].shape)}; export the bundle again"
                )
            self._out[name].copy_(value)

    def _close(self) -> None:
        del self._torch, self.network, self._module, self._in, self._out, self._on_gpu
