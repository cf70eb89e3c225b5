"""Calls into a real environment: arrays there and back, progress, errors by their class, and workers that die."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from edgetrack.environments.process import open_environment, worker_file
from edgetrack.environments.serve import read_arrays, write_arrays
from edgetrack.environments.setup import EnvironmentState
from edgetrack.errors import BackendMissingError, BundleIntegrityError, UsageError, WorkerError
from tests.toy import toy_environment


def test_arrays_go_there_and_come_back_and_progress_is_told(toy: EnvironmentState) -> None:
    said: list[str] = []
    given = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2], "y": np.uint8(200), "none": np.zeros((0, 4))}
    with open_environment(toy.environment) as process:
        answer = process.call("twice", given, say=said.append, note="here")
        assert process.call("nothing").arrays == {}
    assert said == ["doubling here"]
    assert answer.values["python"] == str(toy.folder)  # not this Python
    assert not answer.values["folder"].startswith(str(toy.folder))
    np.testing.assert_array_equal(answer.arrays["x"], [[0, 4], [6, 10]])
    assert {name: (value.dtype.name, value.shape) for name, value in answer.arrays.items()} == {
        "x": ("float32", (2, 2)),
        "y": ("uint8", ()),
        "none": ("float64", (0, 4)),
    }


def test_errors_keep_their_class_and_the_worker_lives_on(toy: EnvironmentState) -> None:
    with open_environment(toy.environment) as process:
        with pytest.raises(BundleIntegrityError, match="no such graph"):
            process.call("refuse")
        with pytest.raises(WorkerError, match="ZeroDivisionError: by nought"):
            process.call("fail")
        with pytest.raises(WorkerError, match="the worker has no function 'system'"):
            process.call("system")
        with pytest.raises(WorkerError, match=r"TypeError.*unknown"):
            process.call("twice", unknown=1)
        with pytest.raises(WorkerError, match="read-only"):
            process.call("write_to", {"x": np.ones(3)})
        with pytest.raises(
            WorkerError, match=r"TypeError.*array 'object' is of object; expected numbers or truth values"
        ):
            process.call("many")
        assert process.call("nothing").values == {}


def test_a_worker_that_dies_is_reported_and_of_no_more_use(toy: EnvironmentState) -> None:
    with open_environment(toy.environment) as process:
        with pytest.raises(WorkerError, match="exit code 9"):
            process.call("die")
        with pytest.raises(WorkerError, match="asked again"):
            process.call("nothing")


def test_an_environment_that_is_not_set_up_says_what_to_type(toy: EnvironmentState) -> None:
    with pytest.raises(BackendMissingError, match=r"'other' in .* is not set up; type: edgetrack target setup other"):
        open_environment(toy_environment(name="other"))
    with pytest.raises(
        BackendMissingError, match=r"outdated: the target has changed; type: edgetrack target setup toy"
    ):
        open_environment(toy_environment(imports=()))


def test_a_worker_that_is_not_there_is_named() -> None:
    for module in ("no_such_module", "no_such_package.worker"):
        with pytest.raises(UsageError, match=module.partition(".")[0]):
            worker_file(toy_environment(module))


KINDS = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64))
)


@settings(max_examples=40)
@given(st.data())
def test_written_arrays_are_read_as_they_were(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = str(tmp_path_factory.getbasetemp() / "arrays.bin")
    one = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3))
    written = data.draw(st.dictionaries(st.text(max_size=3), one, max_size=3))
    found = read_arrays(file, write_arrays(file, written))
    assert list(found) == list(written)
    for name, value in written.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "layout", [("x", "<f4", [3], 0), ("x", "<f4", [1], 1 << 40), ("x", "O", [1], 0), ("x", "<f4", [-1], 0)]
)
def test_arrays_that_the_file_does_not_hold_are_refused(
    tmp_path: Path, layout: tuple[str, str, list[int], int]
) -> None:
    file = str(tmp_path / "arrays.bin")
    write_arrays(file, {"x": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match=r"buffer|offset|stated"):
        read_arrays(file, [layout])
