"""What a training starts from: numbers of its own, a pretrained backbone, or a checkpoint of the tracker."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgetrack.checkpoints import check_finite, read_checkpoint, unwrapped, without_wrapper
from edgetrack.errors import RecipeError, UsageError, WeightsMismatchError
from edgetrack.exporting.recipe import UNTRAINED, Recipe
from edgetrack.exporting.weights import fill
from edgetrack.training.method import TrainingMethod

_SPREAD = 0.02
"""Standard deviation of linear maps, embeddings and tokens, as transformers are begun with."""
_NAMED = 5


def check_start(recipe: Recipe, init: str | None, backbone: str | None) -> None:
    """Raise UsageError where a training cannot start so; see `start`."""
    if init is not None and backbone is not None:
        raise UsageError("--init brings the whole tracker, --init-backbone its backbone alone; leave one of them out")
    if init == UNTRAINED:
        raise UsageError("--init untrained is no start for a training; leave --init out to train from scratch")
    recipe.choose_weights(init)


def start(network: nn.Module, method: TrainingMethod, seed: int, init: str | None, backbone: str | None) -> str:
    """Fill a network for its training; returns where its numbers are from, for people.

    Args:
        network: changed in place.
        method: of the tracker.
        seed: of the numbers that no file brings.
        init: a checkpoint of the whole tracker, or `default`.
        backbone: files of a pretrained backbone, with commas between them.

    Raises:
        UsageError: neither is given and some of the network is held still as it starts.
        CheckpointError: a file cannot be read, or holds other tensors.
    """
    recipe = method.recipe
    if init is not None:
        info = fill(network, recipe, init)
        return f"started from {info.file}, sha256 {info.sha256}"
    initialise(network, {} if recipe.training is None else recipe.training.initial, seed)
    if backbone is not None:
        return fill_backbone(network, method, backbone)
    if still := [name for name, _ in network.named_parameters() if not method.trains(name)]:
        raise UsageError(
            f"training {recipe.name} leaves {len(still)} tensors as they start (such as {still[0]}), so it needs "
            "trained ones: give --init-backbone FILE, or --init CHECKPOINT of a whole tracker (docs/train.md)"
        )
    return f"started from scratch with seed {seed}"


def initialise(network: nn.Module, constants: Mapping[str, float], seed: int) -> None:
    """Start weights: convolutions from He's normal distribution (arXiv 1502.01852; fan-in), all other tensors of two
    dimensions or more from a normal one of deviation 0.02, biases 0, norms 1 and 0.

    Args:
        network: changed in place.
        constants: parameter's name, or pattern with `*` -> the value that fills it.
        seed: of torch's generator, used for this alone.

    Raises:
        RecipeError: a pattern fits no parameter.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.Conv2d) and name == "weight":
                    nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
                elif parameter.dim() > 1:
                    parameter.normal_(0.0, _SPREAD, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()
        for pattern, value in constants.items():
            fitting = fnmatch.filter(parameters, pattern)
            if not fitting:
                raise RecipeError(f"[training.initial] names {pattern!r}, which is no parameter of the network")
            for name in fitting:
                parameters[name].fill_(value)


def fill_backbone(network: nn.Module, method: TrainingMethod, files: str) -> str:
    """Load a backbone's tensors into a network that is filled already; says how many were taken and what was not.

    Raises:
        WeightsMismatchError: none of the tensors is the network's, or one has another shape.
        CheckpointError: a file cannot be read.
    """
    paths = (Path(files),) if Path(files).exists() else tuple(map(Path, files.split(",")))
    read: dict[str, Tensor] = {}
    hashes = []
    for path in paths:
        checkpoint = read_checkpoint(path)
        read |= unwrapped(checkpoint.tensors, without_wrapper, path.name)[0]
        hashes.append(f"{path.name}, sha256 {checkpoint.sha256}")
    source, state = ", ".join(path.name for path in paths), network.state_dict()
    named = method.backbone(network, read)
    taken = {name: tensor for name, tensor in named.items() if name in state}
    if wrong := [name for name, tensor in taken.items() if tensor.shape != state[name].shape]:
        raise WeightsMismatchError(
            f"{source}: {wrong[0]} has shape {tuple(taken[wrong[0]].shape)}, the network's has "
            f"{tuple(state[wrong[0]].shape)}; give a backbone of that size, or set the sizes in a copy of the recipe, "
            "[configuration]"
        )
    if not any(tensor.is_floating_point() and tensor.ndim > 1 for tensor in taken.values()):
        raise WeightsMismatchError(
            f"{source} holds none of the backbone's tensors; it has: {_few(list(read))}; the network has: "
            f"{_few(list(state))}"
        )
    check_finite(taken, source=source)
    with torch.no_grad():
        for name, tensor in taken.items():
            state[name].copy_(tensor)
    left = [name for name in named if name not in state]
    beside = f"; left out: {_few(left)}" if left else ""
    return f"backbone: {len(taken)} tensors from {'; '.join(hashes)}, {len(state) - len(taken)} others begun{beside}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
