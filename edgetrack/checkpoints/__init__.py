"""Weights files: read without running anything they contain, checked against a model, loaded, saved.

    read_checkpoint    a torch.save file (zip or legacy) or a safetensors file -> named tensors
    check_tensors      names and shapes against what the model needs
    unwrapped          names without the prefixes of trainers
    check_finite       no NaN and no infinity
    load_into          into a torch module: all of it or nothing
    save_safetensors   named tensors -> one file, written whole or not at all

The pickle inside a torch.save file is never given to Python's unpickler: `interpreter` replays its opcodes on
values of its own, so nothing that the file names is imported, looked up or called. `policy` says which names
stand for tensors, which are refused as code and that all others become inert placeholders.
"""

from __future__ import annotations

from edgetrack.checkpoints.reading import (
    MAX_BYTES,
    Checkpoint,
    check_finite,
    check_tensors,
    load_into,
    read_checkpoint,
    resemblance,
    unwrapped,
    with_counters,
    without_wrapper,
)
from edgetrack.checkpoints.saving import save_safetensors

__all__ = [
    "MAX_BYTES",
    "Checkpoint",
    "check_finite",
    "check_tensors",
    "load_into",
    "read_checkpoint",
    "resemblance",
    "save_safetensors",
    "unwrapped",
    "with_counters",
    "without_wrapper",
]
