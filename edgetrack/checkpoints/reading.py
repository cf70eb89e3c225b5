"""From a weights file to named tensors, with no code of the file run, and from those into a model."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors
import safetensors.torch
import torch

from edgetrack.checkpoints.containers import (
    HEAD_BYTES,
    LegacyStorages,
    Storages,
    ZipStorages,
    read_legacy_head,
    recognise,
)
from edgetrack.checkpoints.interpreter import Interpreter, StorageRef, TensorRef, describe, malformed
from edgetrack.checkpoints.policy import shown
from edgetrack.errors import CheckpointError, WeightsMismatchError
from edgetrack.io import open_regular

MAX_BYTES = 16 * 2**30
"""Largest file, and largest total of tensor bytes, that `read_checkpoint` accepts by default."""

_SHOWN_KEYS = 20

# What zipfile, struct, torch and the file system raise on a file that is damaged or made to harm.
_DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Named tensors of a weights file, on the CPU, as they were saved (dtype, shape).

    Attributes:
        tensors: name -> tensor, in the order of the file. Tensors that shared a storage in the file share it here.
        sha256: of the whole file, 64 lower-case hexadecimal digits.
        format: "torch-zip", "torch-legacy" or "safetensors".
        placeholders: unknown classes and functions that the file names, as `module.name`, in order of appearance.
            Inert placeholders stood in for them, and nothing of them is in `tensors`.
        other_keys: what the file holds at its top level beside the state dict that was asked for.
        key: where the state dict lay in the file, with dots between the levels; empty for a bare one.
    """

    tensors: dict[str, torch.Tensor]
    sha256: str
    format: str
    placeholders: tuple[str, ...] = ()
    other_keys: tuple[str, ...] = ()
    key: str = ""


def read_checkpoint(path: str | Path, *, key: str | None = None, max_bytes: int = MAX_BYTES) -> Checkpoint:
    """Read the tensors of a weights file without running, importing or calling anything that the file names.

    Only the state dict is read; optimizer state and the like are skipped, whatever their size.

    Args:
        path: a torch.save file (zip or legacy format) or a safetensors file, told apart by their first bytes.
        key: the top-level entry that holds the state dict ("net" in checkpoints of the OSTrack family). None, or a file
            without that entry: the file is the state dict itself, or the only one in it is taken; `Checkpoint.key`
            says which. A safetensors file has no levels, so `key` does not apply to it.
        max_bytes: largest file, and largest total size of the tensors, in bytes.

    Raises:
        UnsafeCheckpointError: the file asks to run code; nothing of it was run.
        CheckpointError: no file, not a weights file, damaged, too large, or not a state dict under `key`.
    """
    try:
        with _opened(Path(path)) as file:
            return _read(file, key, max_bytes)
    except CheckpointError as error:
        raise type(error)(f"{shown(str(path), 1000)}: {error}") from error
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise CheckpointError(
            f"{shown(str(path), 1000)}: cannot be read, so probably damaged or cut short ({reason}). "
            "Download or copy it again, and compare its size and checksum with the source's"
        ) from error


def _opened(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise CheckpointError("a directory; give the weights file inside it")
        if not path.exists():
            raise CheckpointError("there is no such file; check the path, or download the weights first")
        if not path.is_file():
            raise CheckpointError("not a regular file; give the path of a weights file")
        return open_regular(path)
    except OSError as error:
        raise CheckpointError(f"cannot be opened: {error.strerror}") from error


def _read(file: BinaryIO, key: str | None, max_bytes: int) -> Checkpoint:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise CheckpointError(f"the file has {size} bytes, more than the limit of {max_bytes}")
    kind = recognise(file.read(HEAD_BYTES), size)
    sha256 = _sha256(file)
    file.seek(0)
    if kind == "safetensors":
        return Checkpoint(_read_safetensors(file.read()), sha256, "safetensors")
    storages: Storages
    if kind == "torch-zip":
        storages = ZipStorages(file, size)
        machine = Interpreter(io.BytesIO(storages.pickle()))
        top = machine.run()
    else:
        machine = Interpreter(file)
        read_legacy_head(machine)
        top = machine.run()
        storages = LegacyStorages(file, machine)
    refs, others, found = _select(top, key)
    name = "torch-zip" if kind == "torch-zip" else "torch-legacy"
    return Checkpoint(_materialise(refs, storages, max_bytes), sha256, name, tuple(machine.unknown), others, found)


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def _read_safetensors(data: bytes) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    if not tensors:
        raise CheckpointError("a safetensors file without tensors. Download or save it again")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: tensors[name] for name in sorted(tensors, key=lambda name: header[name]["data_offsets"])}


def _select(top: object, key: str | None) -> tuple[dict[str, TensorRef], tuple[str, ...], str]:
    """The state dict in the value of the file, the names of what lies beside it, and where it lay."""
    if not isinstance(top, dict):
        raise CheckpointError(f"it holds {describe(top)} at its top level, not a dict of tensors. Save its state dict")
    if key is not None and key in top:
        found = {key: top[key]} if _is_state_dict(top[key]) else dict(_state_dicts(top[key], f"{key}."))
        if not found:
            raise CheckpointError(f"under the key {key!r} is no state dict: {_why_not(top[key])}")
    else:
        found = {"": top} if _is_state_dict(top) else dict(_state_dicts(top))
        if not found:
            asked = "" if key is None else f"no key {key!r} and "
            raise CheckpointError(f"{asked}no state dict at its top level: {_why_not(top)}. Its keys: {_listed(top)}")
    if len(found) > 1:
        raise CheckpointError(
            f"it holds several state dicts: {_listed(found)}. Say which is meant: copy the tracker's recipe to a file "
            'of yours, set `key = "..."` in its section [checkpoint], and give that file as the tracker'
        )
    ((where, state),) = found.items()
    return state, tuple(_key_text(other) for other in top if where and other != where.partition(".")[0]), where


_LEVELS = 3


def _state_dicts(top: object, prefix: str = "") -> Iterator[tuple[str, dict[str, TensorRef]]]:
    """The state dicts inside a dict, `_LEVELS` deep at most, each once: a file may refer to one a million times.

    A dict with tensors of its own is not searched: what lies below would be a part of the weights.
    """
    pending, seen = [(prefix, top)], {id(top)}
    for where, value in pending:
        if isinstance(value, dict) and any(isinstance(entry, TensorRef) for entry in value.values()):
            continue
        for name, entry in value.items() if isinstance(value, dict) else ():
            if not isinstance(name, str) or not isinstance(entry, dict) or name == "optimizer" or id(entry) in seen:
                continue
            seen.add(id(entry))
            if _is_state_dict(entry):
                yield f"{where}{name}", entry
            elif where.count(".") + 1 < _LEVELS:
                pending.append((f"{where}{name}.", entry))


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(ref, TensorRef) for name, ref in value.items())
    )


def _why_not(value: object) -> str:
    if not isinstance(value, dict):
        return f"it is {describe(value)}"
    if not value:
        return "it is empty"
    name, entry = next((n, e) for n, e in value.items() if not (isinstance(n, str) and isinstance(e, TensorRef)))
    return f"its entry {_key_text(name)!r} is {describe(entry)}, not a tensor with a name"


def _listed(keys: Iterable[object]) -> str:
    names = [repr(_key_text(key)) for key in keys]
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return (", ".join(names[:_SHOWN_KEYS]) or "none") + more


def _key_text(key: object) -> str:
    return shown(key) if isinstance(key, (str, int, float, bytes)) else describe(key)


def _materialise(refs: Mapping[str, TensorRef], storages: Storages, max_bytes: int) -> dict[str, torch.Tensor]:
    spread = sum(_checked_bytes(name, ref) for name, ref in refs.items())
    stored = sum({ref.storage.key: ref.storage.nbytes for ref in refs.values()}.values())
    if max(stored, spread) > max_bytes:
        raise CheckpointError(f"its tensors have {max(stored, spread)} bytes, more than the limit of {max_bytes}")
    loaded: dict[StorageRef, torch.Tensor] = {}
    tensors = {}
    for name, ref in refs.items():
        if ref.storage not in loaded:
            loaded[ref.storage] = _flat(ref.storage, storages.read(ref.storage))
        tensors[name] = loaded[ref.storage].as_strided(ref.size, ref.stride, ref.offset)
    return tensors


def _checked_bytes(name: str, ref: TensorRef) -> int:
    """Bytes of the tensor once it is contiguous; CheckpointError unless every element lies in its storage."""
    numel = ref.storage.numel
    last = ref.offset + sum((size - 1) * stride for size, stride in zip(ref.size, ref.stride, strict=True))
    if not (ref.offset <= numel if 0 in ref.size else last < numel):
        raise malformed(
            f"tensor {shown(name)} of sizes {ref.size} and strides {ref.stride} from element {ref.offset} on leaves "
            f"its storage of {numel} elements"
        )
    try:
        return math.prod(ref.size) * ref.storage.element.itemsize
    except CheckpointError as error:
        raise CheckpointError(f"tensor {shown(name)}: {error}") from error


def _flat(ref: StorageRef, data: bytearray) -> torch.Tensor:
    """The storage as a tensor (numel,) of its dtype, on the memory of `data`."""
    if not data:
        return torch.empty(0, dtype=ref.element)
    if ref.element == torch.bool:
        return torch.frombuffer(data, dtype=torch.uint8) != 0  # a bool byte other than 0 and 1 is undefined
    return torch.frombuffer(data, dtype=ref.element)


_SHOWN = 5
_WRAPPERS = frozenset({"module", "_orig_mod", "model", "net", "network", "ema", "ema_model", "model_ema", "student"})
_COUNTERS = ".num_batches_tracked"


def unwrapped(
    tensors: Mapping[str, torch.Tensor], fits: Callable[[str], bool], source: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors without the prefixes that trainers put before names: DataParallel, torch.compile, Lightning, ...

    Args:
        tensors: by the names of the file; a name that does not fit, with or without its prefixes, is kept as it is.
        fits: whether a name is one of the network's.
        source: names the weights in the message.

    Returns:
        The tensors, and the prefixes that were left out.

    Raises:
        WeightsMismatchError: two tensors have the same name without their prefixes.
    """
    found: dict[str, torch.Tensor] = {}
    origins: dict[str, str] = {}
    left_out: dict[str, None] = {}
    for name, tensor in tensors.items():
        bare = _bare(name, fits)
        if bare in found:
            raise WeightsMismatchError(
                f"{source}: {shown(origins[bare])} and {shown(name)} are the same tensor of the model. Save the one "
                "state dict that is meant with torch.save, and give that file"
            )
        found[bare], origins[bare] = tensor, name
        if bare != name:
            left_out[shown(name.removesuffix(bare) if name.endswith(bare) else "module. or _orig_mod. inside")] = None
    return found, list(left_out)


def _bare(name: str, fits: Callable[[str], bool]) -> str:
    rest = name
    while True:
        inner = ".".join(part for part in rest.split(".") if part not in ("module", "_orig_mod"))
        for candidate in (rest, inner):
            if fits(candidate):
                return candidate
        first, _, rest = rest.partition(".")
        if first not in _WRAPPERS or not rest:
            return name


def without_wrapper(name: str) -> bool:
    """Whether a name starts with none of the prefixes; for `unwrapped`, where the network's names are not known."""
    return name.partition(".")[0] not in _WRAPPERS


def with_counters(tensors: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with exactly the batch counters that `state` has: no inference uses them, many savers drop them."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTERS) or name in state}
    return kept | {name: value for name, value in state.items() if name.endswith(_COUNTERS) and name not in kept}


def resemblance(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, torch.Tensor]) -> float:
    """Which share of all names, expected or found, both have with the same shape: 1.0 for the model's own weights."""
    same = sum(name in found and tuple(found[name].shape) == shape for name, shape in expected.items())
    return same / max(len(expected.keys() | found.keys()), 1)


def check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Check that `found` has exactly the names and shapes of `expected`; `source` names the weights in the message.

    Raises:
        WeightsMismatchError: lists missing, unexpected and misshapen tensors, sorted by name, 5 of each at most.
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
