"""The peak rate of eager PyTorch on the processor."""

from __future__ import annotations

import pytest

from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import Chain
from edgetrack.runtime.backends.torch.probe import TorchProbe
from edgetrack.system.clock import ManualClock

torch = pytest.importorskip("torch")
SMALL = Chain(4, (8, 16, 8))


def test_probe_that_was_not_prepared_says_what_to_do():
    with pytest.raises(UsageError, match="call prepare first"):
        TorchProbe(SMALL, "fp32", 1, now_ns=ManualClock().now_ns).run_once()


def test_torch_measures_and_puts_the_thread_count_back():
    before = torch.get_num_threads()
    probe = TorchProbe(SMALL, "fp32", before + 1, now_ns=ManualClock(step_ns=500).now_ns)
    probe.prepare()
    assert probe.run_once() == (SMALL.flops, 500 / 1e9)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("flags", "works"), [((), False), (("avx512_bf16",), True), (("bf16",), True)])
def test_torch_bf16_needs_a_processor_that_has_it(flags, works):
    probe = TorchProbe(SMALL, "bf16", 1, now_ns=ManualClock(step_ns=1).now_ns, cpu_flags=flags)
    if works:
        probe.prepare()
        assert probe.run_once()[0] == SMALL.flops
    else:
        with pytest.raises(DeviceUnavailableError, match="BF16"):
            probe.prepare()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_torch_has_no_rate_for_the_others(precision):
    with pytest.raises(DeviceUnavailableError, match=precision):
        TorchProbe(SMALL, precision, 1, now_ns=ManualClock().now_ns).prepare()
