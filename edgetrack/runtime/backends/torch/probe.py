"""The peak rate of 1x1 convolutions, as linear layers over the pixels, in eager PyTorch on the CPU."""

from __future__ import annotations

from collections.abc import Callable

from edgetrack.errors import DeviceUnavailableError
from edgetrack.runtime.backends.base import RooflineProbe
from edgetrack.runtime.backends.torch.backend import import_torch


class TorchProbe(RooflineProbe):
    """A chain as PyTorch linear layers over the pixels; FP32 everywhere, BF16 where the processor computes in it."""

    engine = "torch"
    _BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

    def _build(self) -> Callable[[], object]:
        torch = import_torch()
        if self.precision not in ("fp32", "bf16"):
            raise DeviceUnavailableError(f"torch has no {self.precision} convolution on this processor's CPU backend")
        if self.precision == "bf16" and not self._BF16_FLAGS & set(self._cpu_flags):
            raise DeviceUnavailableError("this processor has no BF16 arithmetic; torch would only imitate it")
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float32
        layers = [
            (torch.from_numpy(kernel.T.copy()).to(kind), torch.zeros(kernel.shape[1], dtype=kind))
            for kernel in self.chain.kernels()
        ]
        image = torch.from_numpy(self.chain.pixels()).to(kind)

        def compute() -> None:
            flow = image
            for weights, bias in layers:
                flow = torch.nn.functional.linear(flow, weights, bias)

        return compute

    def run_once(self) -> tuple[int, float]:
        """Run the chain once: its FLOPs and seconds. The process's thread count is put back afterwards."""
        torch = import_torch()
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return super().run_once()
        finally:
            torch.set_num_threads(before)
