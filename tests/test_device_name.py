from __future__ import annotations

import pytest

from edgetrack.capabilities import is_device
from edgetrack.device_name import cuda_index, is_cuda


@pytest.mark.parametrize(
    ("name", "index"),
    [("cpu", None), ("gpu", None), ("gpu:1", None), ("npu", None), ("ane", None), ("all", None), ("cuda", 0),
     ("cuda:0", 0), ("cuda:12", 12), ("tensorrt:1", 1), ("auto", None), ("auto:gpu.1,cpu", None),
     ("hetero:xnnpack,cpu", None), ("openvino:gpu", None), ("qnn", None)],
)  # fmt: skip
def test_devices_of_one_machine(name, index):
    assert is_device(name)
    assert cuda_index(name) == index
    assert is_cuda(name) == (index is not None)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "CPU",
        "cpu\n",
        "cudax",
        "cuda:",
        "cuda:x",
        "cuda:-1",
        "cuda:100",
        "cuda:\u0663",
        "jetson",
        "cpu:0",
        "npu:x",
        "hetero:",
        "hetero:gpu,",
        "auto:gpu;cpu",
    ],
)
def test_everything_else_is_a_profiles_name_or_none(name):
    assert not is_device(name)
    assert cuda_index(name) is None
    assert not is_cuda(name)
