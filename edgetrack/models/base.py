"""What a family's module under `edgetrack.models` (or a plug-in's) offers, and how one is found.

Network             the published module, official parameter names; takes what a recipe's [configuration] says, if any
deploy(network)     the graphs that ship, derived from it by algebra
reference(network)  the same graphs computed the published way, for eager PyTorch
deploy_channels_last(network)  optional: what `deploy` gives, for targets whose engine keeps channels last, where
                    another form of the same algebra is faster there
experts(network)    optional: of each layer the modules of several experts by the map that they belong to, each with
                    `each(tokens)`: what every expert makes of them, and its weight
MEMBERS             optional: trackers whose `torch` bundles may be older than families -> their configuration

A Network may have `assemble(tensors, source)`: the state dict from the tensors of the files that a user gives (`source`
names them in errors), where it is not those tensors as they are.

What `deploy` and `reference` owe one another, since parity is proven between the two and the runtime drives both:

* The same graphs, by name and role, in the order in which a frame runs them.
* The same inputs from the runtime (crops, masks, carried tokens: names, dtypes, shapes) and the same outputs of every
  `step` graph, in the same units; a bundle's whole chain from crop to outputs is compared on those.
* What one graph hands to the next (an `init` graph's outputs) may differ in names, number and shapes, since the runtime
  only hands it on: SMAT's template is encoded further than the published one, NanoTrack's is correlation kernels.
* `deploy` may share parameters with the network but may not change it; both return modules in evaluation mode.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import pkgutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from edgetrack.bundle.manifest import DType, GraphRole, Scalar, TensorInfo
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.plugins import MODELS, load_plugin

MAX_MODULES = 3_000
"""Layers and groups of layers of one network; the largest that is published has 1,536."""
Spec = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Tensor name -> shape and dtype."""


def recipe_normal(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Standard normal numbers of `shape`, C order, that depend on `name` alone.

    Model inputs of the recipe have the name "input:" and the input's key.
    """
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8"))))
    return np.asarray(generator.standard_normal(shape), dtype=np.float64)


def untrained_tensors(
    spec: Spec | torch.nn.Module,
    multipliers: Mapping[str, float] | None = None,
    overrides: Mapping[str, float] | None = None,
) -> dict[str, torch.Tensor]:
    """The recipe's tensors, contiguous, on the CPU, in the order of `spec`.

    Args:
        spec: shape and dtype of every tensor by its full official name, or a module (not changed) that has them.
        multipliers: suffix of a name -> factor; every suffix that fits a name applies, in float32.
        overrides: name -> the one value that fills the whole tensor, after the multipliers.

    Returns:
        One tensor for each entry. Integer and bool entries are what they are in the module, and 0 where `spec` only
        gives shapes.
    """
    state = spec.state_dict() if isinstance(spec, torch.nn.Module) else _zeros(spec)
    overrides = overrides or {}
    tensors = {}
    for name, entry in state.items():
        if name in overrides:
            tensors[name] = torch.full(entry.shape, overrides[name], dtype=entry.dtype)
        elif entry.is_floating_point():
            values = _scaled(name, tuple(entry.shape), multipliers or {})
            tensors[name] = torch.from_numpy(values).to(entry.dtype)
        else:
            tensors[name] = entry.detach().cpu().clone()
    return tensors


def _zeros(spec: Spec) -> dict[str, torch.Tensor]:
    return {name: torch.zeros((), dtype=dtype).expand(shape) for name, (shape, dtype) in spec.items()}


def _scaled(name: str, shape: tuple[int, ...], multipliers: Mapping[str, float]) -> npt.NDArray[np.float32]:
    values = _recipe(name, shape).astype(np.float32)
    for suffix, factor in multipliers.items():
        if name.endswith(suffix):
            values *= np.float32(factor)
    return values


def _recipe(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The first rule that fits the last part of the name and the shape."""
    normal = recipe_normal(name, shape)
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return np.asarray(1 + 0.1 * np.abs(normal))
    if leaf == "running_mean":
        return np.asarray(0.1 * normal)
    if len(shape) <= 1:
        return np.asarray(1 + 0.1 * normal if leaf in {"weight", "gamma"} else 0.1 * normal)
    is_token = any(part in leaf for part in ("embed", "token", "query"))
    if is_token or (shape[0] == 1 and leaf != "weight"):
        return 0.1 * normal
    return normal / math.sqrt(math.prod(shape[1:]))


_M = TypeVar("_M", bound=nn.Module)


@dataclass(frozen=True)
class GraphModule:
    """A graph as a torch module, in evaluation mode: positional inputs and outputs in the order of their names.

    Attributes:
        name: of the graph, unique in its tracker.
        role: when it runs.
        module: takes one tensor for each entry of `inputs`, returns a tensor or a tuple as in `outputs`.
    """

    name: str
    role: GraphRole
    module: nn.Module
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def example(self) -> tuple[Tensor, ...]:
        """Zero tensors of the inputs' dtypes and shapes."""
        return tuple(torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in self.inputs)

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run without gradients; outputs by name."""
        with torch.inference_mode():
            out = self.module(*inputs)
        tensors = out if isinstance(out, tuple) else (out,)
        return {info.name: tensor for info, tensor in zip(self.outputs, tensors, strict=True)}


def tensors(dtype: DType = "float32", /, **shapes: tuple[int, ...]) -> tuple[TensorInfo, ...]:
    """Inputs or outputs of one dtype, by name."""
    return tuple(TensorInfo(name=name, dtype=dtype, shape=shape) for name, shape in shapes.items())


def shipped(module: _M) -> _M:
    """The module in evaluation mode, without gradients."""
    return module.eval().requires_grad_(False)


class Published(nn.Module):
    """A graph of the reference: `run` on the network and the graph's inputs."""

    def __init__(self, network: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.run = network.eval(), run
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """What `run` returns: a tensor or a tuple."""
        return self.run(self.network, *inputs)


class ModelPackage(Protocol):
    """The face of a tracker's package or module under `edgetrack.models`, or of a plug-in's."""

    Network: type[nn.Module]

    def deploy(self, network: nn.Module) -> tuple[GraphModule, ...]:
        """The graphs that ship."""

    def reference(self, network: nn.Module) -> tuple[GraphModule, ...]:
        """The published computation."""


def find_model(family: str) -> ModelPackage:
    """The network of a family of trackers: our package or module of that name, or a plug-in's.

    Raises:
        UnknownNameError: there is none.
        UsageError: the plug-in cannot be used.
    """
    if (own := _own_model(family)) is not None:
        return own
    plugin = load_plugin(MODELS, family)
    if plugin is None and (whole := _own_model(family.rpartition("_")[0])) and family in getattr(whole, "MEMBERS", ()):
        return whole
    if plugin is None:
        ours = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if _own_model(module.name))
        raise UnknownNameError.of("network", family, ours, "`edgetrack list --trackers` shows the trackers")
    missing = [face for face in ("Network", "deploy", "reference") if not hasattr(plugin, face)]
    if missing:
        raise UsageError(
            f"the plug-in for tracker {family!r} gives {plugin!r} without {', '.join(missing)}; expected a module "
            f"with Network, deploy and reference (entry point group {MODELS!r})"
        )
    return cast(ModelPackage, plugin)


def _own_model(family: str) -> ModelPackage | None:
    name = f"edgetrack.models.{family}"
    if not family.isidentifier() or importlib.util.find_spec(name) is None:
        return None
    module: Any = importlib.import_module(name)
    # What trackers share, such as layers, lies beside them.
    return cast(ModelPackage, module) if hasattr(module, "Network") else None


@contextmanager
def _bounded_modules() -> Iterator[None]:
    """Raise ValueError where a network grows beyond MAX_MODULES: a depth from a file may be any number."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1
        if count > MAX_MODULES:
            raise ValueError(f"it has more than {MAX_MODULES} layers")

    hook = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def make_network(family: str, configuration: Mapping[str, Scalar]) -> nn.Module:
    """A family's network of a configuration; an empty one gives the published sizes.

    Raises:
        UnknownNameError: there is no such tracker.
        UsageError: its network cannot be made so.
    """
    model = find_model(family)
    member = getattr(model, "MEMBERS", {}).get(family, {})
    try:
        with _bounded_modules():
            return model.Network(**{**member, **configuration})
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        shown = ", ".join(f"{key} = {value!r}" for key, value in configuration.items())
        raise UsageError(
            f"the network of tracker {family!r} cannot be made with {shown}: {error}; correct --set, or "
            "the recipe's [configuration]"
        ) from None


def bgr_image_to_rgb(image: Tensor) -> Tensor:
    """uint8 (H, W, 3) BGR to float32 (1, 3, H, W) RGB, 0..1."""
    return image.permute(2, 0, 1).flip(0).unsqueeze(0).float() / 255.0
