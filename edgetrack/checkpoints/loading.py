"""Named tensors against a model: do they fit, are they finite, and put them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edgetrack.checkpoints.policy import shown
from edgetrack.checkpoints.reading import Checkpoint
from edgetrack.errors import CheckpointError, WeightsMismatchError

_SHOWN = 20


def check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Check that `found` has exactly the names and shapes of `expected`; `source` names the weights in the message.

    Raises:
        WeightsMismatchError: lists missing, unexpected and misshapen tensors, sorted by name, 20 of each at most.
    """
    misshapen = [
        f"{shown(name)} is {tuple(found[name].shape)} and should be {tuple(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != tuple(expected[name])
    ]
    _raise_if_any(
        source,
        missing=[shown(name) for name in sorted(expected.keys() - found.keys())],
        unexpected=[shown(name) for name in sorted(found.keys() - expected.keys())],
        misshapen=misshapen,
    )


def check_finite(tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Check that no floating-point tensor holds NaN or infinity.

    Raises:
        CheckpointError: lists the tensors that do, with the number of such values.
    """
    counts = {name: _not_finite(tensor) for name, tensor in sorted(tensors.items())}
    bad = [f"{shown(name)} ({count} of {tensors[name].numel()})" for name, count in counts.items() if count]
    if bad:
        raise CheckpointError(
            f"{source}: NaN or infinite values in {len(bad)} of {len(tensors)} tensors: {_some(bad)}. "
            "The training diverged or the file is damaged; use an earlier checkpoint"
        )


def load_into(module: torch.nn.Module, checkpoint: Checkpoint | Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy the tensors into the parameters and buffers of `module`: exactly its state dict, and all or nothing.

    Floating-point tensors are cast to the dtype that the module has; other dtypes must be equal. If anything does not
    fit, the module keeps the values that it had.

    Raises:
        WeightsMismatchError: other names, shapes or kinds of dtype; a value that overflows in the module's dtype; or
            a module on the "meta" device, which has no memory to load into.
    """
    tensors = checkpoint.tensors if isinstance(checkpoint, Checkpoint) else checkpoint
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    check_tensors({name: tuple(target.shape) for name, target in state.items()}, tensors, source=source)
    misfits = {name: _misfit(tensors[name], target) for name, target in sorted(state.items())}
    _raise_if_any(source, unusable=[f"{shown(name)} {why}" for name, why in misfits.items() if why])
    try:
        # A rehearsal: a tensor that cannot be written fails here, with no value changed.
        _copy({name: target.clone() for name, target in state.items()}, state)
    except RuntimeError as error:
        raise WeightsMismatchError(f"{source}: the module has a tensor that cannot be written: {error}") from error
    _copy(tensors, state)


def _misfit(found: torch.Tensor, target: torch.Tensor) -> str:
    if target.is_meta:
        return "is on the meta device in the model; give it memory first (module.to_empty)"
    if not (found.is_floating_point() and target.is_floating_point()):
        return "" if found.dtype == target.dtype else f"is {found.dtype} and should be {target.dtype}"
    if _not_finite(found.to(target.dtype)) > _not_finite(found):
        return f"has values that overflow in {target.dtype}"
    return ""


@torch.no_grad()
def _copy(sources: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])


def _not_finite(tensor: torch.Tensor) -> int:
    return tensor.numel() - int(tensor.isfinite().sum()) if tensor.is_floating_point() else 0


def _raise_if_any(source: str, **problems: Sequence[str]) -> None:
    if not any(problems.values()):
        return
    counts = ", ".join(f"{len(items)} {what}" for what, items in problems.items() if items)
    lines = [f"\n  {what}: {_some(items)}" for what, items in problems.items() if items]
    raise WeightsMismatchError(f"{source}: its tensors are not those of the model: {counts}{''.join(lines)}")


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
