"""ncnn on the processor, in FP32 arithmetic whatever the weights are stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.errors import BackendMissingError, BundleError, BundleIntegrityError
from edgetrack.io import read_bytes
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack_ncnn.network import MAGIC, crop_shape, is_crop, sizes, stated_inputs

_LARGEST_TEXT = 16 << 20
_SHORTER = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_vulkan_compute")


def _import() -> Any:
    try:
        import ncnn
    except ImportError as error:
        raise BackendMissingError(f"ncnn is not installed ({error}); install it with: pip install ncnn") from error
    return ncnn


class NcnnGraph(CompiledGraph):
    """A graph in ncnn, whose inputs and outputs have the manifest's names."""

    engine = "ncnn"

    @classmethod
    def import_package(cls) -> None:
        _import()

    def _open(self, path: Path, options: BackendOptions) -> None:
        self._ncnn = _import()
        options.require_cpu("ncnn")
        options.refuse_hint("ncnn", "ncnn")
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise BundleIntegrityError(f"graph {self.info.name!r} has no {weights.name}; export the bundle again")
        self._require_stated(path)
        self._net = self._ncnn.Net()
        for name in _SHORTER:
            setattr(self._net.opt, name, False)
        self._net.opt.num_threads = options.threads
        # load_model returns 0 for a file that ends early, too: what then lacks its weights does not run.
        if self._net.load_param(str(path)) != 0 or self._net.load_model(str(weights)) != 0:
            raise BundleIntegrityError(f"ncnn cannot read {path.name} and {weights.name}; export the bundle again")
        if set(self._net.output_names()) != set(self.outputs):
            found, wanted = sorted(self._net.output_names()), sorted(self.outputs)
            raise BundleIntegrityError(
                f"{path.name} gives {found}, the manifest says {wanted}; export the bundle again"
            )

    def _require_stated(self, path: Path) -> None:
        """The network's inputs are the manifest's. ncnn would run whatever it is fed, beyond its buffers too."""
        text = read_bytes(path, _LARGEST_TEXT)
        if not text.startswith(MAGIC):
            raise BundleIntegrityError(f"{path.name} is no network of ncnn; export the bundle again")
        for tensor in (*self.info.inputs, *self.info.outputs):
            if tensor.dtype != "float32" and not (is_crop(tensor) and tensor in self.info.inputs):
                raise BundleIntegrityError(
                    f"tensor {tensor.name!r} of graph {self.info.name!r} is {tensor.dtype} {tensor.shape}; ncnn takes "
                    "uint8 crops (height, width, 3) and gives float32"
                )
        wanted = {one.name: sizes(crop_shape(one) if is_crop(one) else one.shape) for one in self.info.inputs}
        try:
            found = stated_inputs(text.decode("utf-8"))
        except ValueError as error:
            raise BundleIntegrityError(f"{path.name} is no network of ncnn: {error}; export the bundle again") from None
        if found != wanted:
            raise BundleIntegrityError(
                f"{path.name} takes {found}, the manifest says {wanted}; export the bundle again"
            )

    def _infer(self) -> None:
        extractor, found = self._net.create_extractor(), None
        try:
            for name, buffer in self.inputs.items():
                value = buffer.transpose(2, 0, 1)[None].astype(np.float32) if buffer.dtype == np.uint8 else buffer
                # A copy: ncnn lays channels out with gaps.
                extractor.input(name, self._ncnn.Mat(value, batch_index=0).clone())
            for name, buffer in self.outputs.items():
                code, found = extractor.extract(name)
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
