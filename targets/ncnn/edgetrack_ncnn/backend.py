"""ncnn on the processor, in FP32 arithmetic whatever the weights are stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.errors import BackendMissingError, BundleError, BundleIntegrityError
from edgetrack.io import open_regular
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph

MAGIC = b"7767517\n"
"""The first line of every .param file."""
_SHORTER = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_vulkan_compute")


def _import() -> Any:
    try:
        import ncnn
    except ImportError as error:
        raise BackendMissingError(f"ncnn is not installed ({error}); install it with: pip install ncnn") from error
    return ncnn


class NcnnGraph(CompiledGraph):
    """A graph in ncnn. pnnx names inputs and outputs by their order: in0, in1, ..., out0, ..."""

    engine = "ncnn"

    @classmethod
    def import_package(cls) -> None:
        _import()

    def _open(self, path: Path, options: BackendOptions) -> None:
        self._ncnn = _import()
        options.require_cpu("ncnn")
        options.refuse_hint("ncnn", "ncnn")
        weights = path.with_suffix(".bin")
        for file in (path, weights):
            with open_regular(file) as opened:
                start = opened.read(len(MAGIC))
            if file == path and start != MAGIC:
                raise BundleIntegrityError(f"{path.name} is no network of ncnn; export the bundle again")
        self._net = self._ncnn.Net()
        for name in _SHORTER:
            setattr(self._net.opt, name, False)
        self._net.opt.num_threads = options.threads
        # load_model returns 0 for a file that ends early, too: what then lacks its weights does not run.
        if self._net.load_param(str(path)) != 0 or self._net.load_model(str(weights)) != 0:
            raise BundleIntegrityError(f"ncnn cannot read {path.name} and {weights.name}; export the bundle again")
        for prefix, names, buffers in (
            ("in", self._net.input_names(), self.inputs),
            ("out", self._net.output_names(), self.outputs),
        ):
            if set(names) != {f"{prefix}{number}" for number in range(len(buffers))}:
                raise BundleIntegrityError(
                    f"{path.name} has {', '.join(names)} for {', '.join(buffers)}; export the bundle again"
                )

    def _infer(self) -> None:
        extractor, found = self._net.create_extractor(), None
        try:
            for number, buffer in enumerate(self.inputs.values()):
                value = buffer.transpose(2, 0, 1)[None].astype(np.float32) if buffer.dtype == np.uint8 else buffer
                # A copy: ncnn lays channels out with gaps.
                extractor.input(f"in{number}", self._ncnn.Mat(value, batch_index=0).clone())
            for number, (name, buffer) in enumerate(self.outputs.items()):
                code, found = extractor.extract(f"out{number}")
                if code != 0 or found.empty():
                    raise BundleError(f"ncnn cannot compute output {name!r} of graph {self.info.name!r} (code {code})")
                value = np.asarray(found.numpy(batch_index=0))
                if value.shape != buffer.shape:
                    raise BundleError(f"output {name!r}: ncnn gave {value.shape}, the manifest says {buffer.shape}")
                np.copyto(buffer, value)
        finally:
            # An error's traceback would keep them beyond the network, whose memory they lie in: ncnn then aborts.
            found = value = None
            extractor.clear()

    def _close(self) -> None:
        self._net.clear()
