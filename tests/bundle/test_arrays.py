"""Arrays are written to the same bytes every time and read back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as arrays

from edgetrack.bundle import read_npz
from edgetrack.bundle.arrays import write_npz


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=5)))
def test_arrays_come_back_as_they_were(tmp_path, array) -> None:
    write_npz(tmp_path / "a.npz", {"0/step/in/search": array})
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["0/step/in/search"], array)
    with np.load(tmp_path / "a.npz") as numpys:
        np.testing.assert_array_equal(numpys["0/step/in/search"], array)


def test_same_arrays_give_the_same_bytes(tmp_path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, {"x": np.arange(5), "y": np.zeros((2, 2), np.float32)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_objects_are_not_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(tmp_path / "a.npz", {"x": np.array([{}], dtype=object)})
