"""Named tensors to a safetensors file, whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from edgetrack.io import replace_whole

_ALIGNMENT = 8


def save_safetensors(tensors: Mapping[str, torch.Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write `tensors` and `metadata` to `path`, replacing what is there only once all of it is on the disk.

    Views and shared storages are written as tensors of their own. The bytes depend on the content alone.

    Raises:
        OSError: the folder does not exist, cannot be written to, or is full; `path` is then as it was.
        ValueError: a metadata key or value is not text.
    """
    path = Path(path)
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ValueError(f"the metadata of a safetensors file is text to text, not {dict(metadata)!r}")
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    data = safetensors.torch.save(plain)
    end = 8 + int.from_bytes(data[:8], "little")
    header = _header(json.loads(data[8:end]), metadata)
    replace_whole(path, len(header).to_bytes(8, "little"), header, memoryview(data)[end:])


def _header(entries: dict[str, object], metadata: Mapping[str, str]) -> bytes:
    # The library writes metadata in an order that changes from run to run; sorted, equal content has an equal sha256.
    described = {"__metadata__": dict(sorted(metadata.items())), **entries} if metadata else entries
    header = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    return header + b" " * (-len(header) % _ALIGNMENT)
