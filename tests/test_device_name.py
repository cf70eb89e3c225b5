from __future__ import annotations

import pytest

from edgetrack.device_name import cuda_index, device_kind, is_cuda, is_device


@pytest.mark.parametrize(
    ("name", "kind", "index"),
    [("cpu", "cpu", None), ("gpu", "gpu", None), ("ane", "ane", None), ("all", "all", None), ("cuda", "cuda", 0),
     ("cuda:0", "cuda", 0), ("cuda:12", "cuda", 12)],
)  # fmt: skip
def test_devices_of_one_machine(name, kind, index):
    assert is_device(name)
    assert (device_kind(name), cuda_index(name)) == (kind, index)
    assert is_cuda(name) == (kind == "cuda")


@pytest.mark.parametrize(
    "name", ["", "CPU", "cpu\n", "cudax", "cuda:", "cuda:x", "cuda:-1", "cuda:100", "cuda:\u0663", "jetson"]
)
def test_everything_else_is_a_profiles_name_or_none(name):
    assert not is_device(name)
    assert cuda_index(name) is None
    assert not is_cuda(name)
