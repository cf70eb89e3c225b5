"""The peak rate of 1x1 convolutions on OpenVINO's CPU plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np

from edgetrack.errors import DeviceUnavailableError
from edgetrack.runtime.backends.base import RooflineProbe
from edgetrack.runtime.backends.openvino.backend import import_openvino, shared_core


class OpenVinoProbe(RooflineProbe):
    """A chain on OpenVINO's CPU plugin; "int8" is unsigned activations and signed per-channel weights.

    Where the processor lacks the hinted precision the plugin runs another without a word (BF16 for FP16, FP32 for
    BF16), and it caps the threads, so `prepare` reads both back from the compiled model.
    """

    engine = "openvino"
    _HINTS: ClassVar = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
    _RUNTIME: ClassVar = {"fp32": {"f32"}, "fp16": {"f16"}, "bf16": {"bf16"}, "int8": {"u8", "i8"}}

    def _build(self) -> Callable[[], object]:
        ov = import_openvino()
        config = {
            "INFERENCE_PRECISION_HINT": self._HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }
        try:
            compiled = shared_core().compile_model(self._model(ov), "CPU", config)
        except RuntimeError as error:
            raise DeviceUnavailableError(f"openvino does not compile {self.precision} here: {error}") from error
        threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        if threads != self.threads:
            raise DeviceUnavailableError(f"openvino runs {threads} threads here where {self.threads} were asked for")
        ran = {
            node.get_rt_info()["runtimePrecision"].astype(str)
            for node in compiled.get_runtime_model().get_ordered_ops()
            if node.get_rt_info()["layerType"].astype(str) == "Convolution"
        }
        if not ran or not ran <= self._RUNTIME[self.precision]:
            kinds = ", ".join(sorted(ran)) or "something else"
            raise DeviceUnavailableError(f"openvino runs {self.precision} convolutions as {kinds} on this processor")
        image = self.chain.pixels().T.reshape(1, -1, self.chain.size, self.chain.size).copy()
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(image))
        return cast("Callable[[], object]", request.infer)

    def _model(self, ov: Any) -> object:
        op = ov.opset13
        image = op.parameter([1, self.chain.widths[0], self.chain.size, self.chain.size], np.float32, name="image")
        flow = image
        low, high = np.float32(0), np.float32(4)
        for kernel in self.chain.kernels():
            weights = op.constant(kernel.T[:, :, None, None].copy())
            if self.precision == "int8":
                flow = op.fake_quantize(flow, low, high, low, high, 256)
                bound = np.abs(kernel.T).max(axis=1).reshape(-1, 1, 1, 1)
                weights = op.fake_quantize(weights, -bound, bound, -bound, bound, 255)
            flow = op.convolution(flow, weights, [1, 1], [0, 0], [0, 0], [1, 1])
            flow = op.relu(op.add(flow, np.zeros((1, kernel.shape[1], 1, 1), np.float32)))
        mean = op.reduce_mean(flow, np.array([2, 3]), keep_dims=False)  # a small output: its copy is not the chain's
        return ov.Model([mean], [image], "roofline")
