"""The peak rate on OpenVINO's CPU plugin."""

from __future__ import annotations

import os

import pytest

from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import Chain
from edgetrack.runtime.backends.openvino.probe import OpenVinoProbe
from edgetrack.system.clock import ManualClock, MonotonicClock

pytest.importorskip("openvino")
USABLE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
SMALL = Chain(4, (8, 16, 8))


def test_probe_that_was_not_prepared_says_what_to_do():
    with pytest.raises(UsageError, match="call prepare first"):
        OpenVinoProbe(SMALL, "fp32", 1, now_ns=ManualClock().now_ns).run_once()


def test_openvino_fp32_is_always_measured():
    probe = OpenVinoProbe(SMALL, "fp32", 1, now_ns=ManualClock(step_ns=500).now_ns)
    probe.prepare()
    assert probe.run_once() == (SMALL.flops, 500 / 1e9)


def test_openvino_refuses_more_threads_than_it_would_run():
    probe = OpenVinoProbe(SMALL, "fp32", USABLE + 500, now_ns=MonotonicClock().now_ns)
    with pytest.raises(DeviceUnavailableError, match="threads here where"):
        probe.prepare()
