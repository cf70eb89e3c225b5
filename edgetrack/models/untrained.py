"""Weights that are not trained: every tensor drawn from its own name, so no weights file is needed.

The recipe ("golden-recipe-1") keeps activations in a range where every parameter visibly moves the outputs. It depends
on names and shapes only, not on the order of the tensors or on torch's random numbers, so two implementations with the
same official names hold the same weights on any machine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

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
