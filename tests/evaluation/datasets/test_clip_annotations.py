"""Files of boxes and flags as people write them."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrack.errors import SequenceError
from edgetrack.evaluation.datasets.clip import read_boxes, read_flags

NAN = [np.nan] * 4


@pytest.mark.parametrize("row", ["1,2,3,4", "1\t2\t3\t4", "1 2 3 4", "1;2;3;4", " 1.0, 2.0,\t3 ,4 ", "1e0,2,3,4,"])
def test_every_separator_gives_the_same_box(tmp_path, row) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(f"\ufeff{row}\r\n{row}\r\n\n")
    assert read_boxes(path).tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]


@pytest.mark.parametrize("row", ["nan,nan,nan,nan", "NaN NaN NaN NaN", "0,0,0,0", "5,5,0,9", "5,5,9,-1"])
def test_nan_and_boxes_without_area_are_absent(tmp_path, row) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(f"1,2,3,4\n{row}\n")
    np.testing.assert_array_equal(read_boxes(path), [[1, 2, 3, 4], NAN])


@pytest.mark.parametrize("row", ["1,2,3", "1,2,3,4,5", "1,2,three,4", "nan,2,3,4", "inf,2,3,4", "m10,20,5", ""])
def test_a_corrupt_row_is_named_by_its_line(tmp_path, row) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(f"1,2,3,4\n{row}\n1,2,3,4\n")
    with pytest.raises(SequenceError, match=r"line 2 of .*boxes\.txt .* expected four numbers"):
        read_boxes(path)


def test_corners_of_nfs_follow_a_number_and_precede_a_label(tmp_path) -> None:
    path = tmp_path / "airplane.txt"
    path.write_text('0 10 20 40 60 0 0 0 0 "airplane 2"\n0 11 20 40 60 1 0 0 0 "airplane"\n')
    assert read_boxes(path, "corners").tolist() == [[10, 20, 30, 40], [11, 20, 29, 40]]


def test_a_polygon_becomes_its_axis_aligned_bounds(tmp_path) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text("10,5,20,15,10,25,0,15\n1,2,3,4\n")
    assert read_boxes(path, "region").tolist() == [[0, 5, 20, 20], [1, 2, 3, 4]]


def test_an_empty_a_missing_and_a_binary_file_are_errors(tmp_path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x01")
    for name, words in (
        ("empty.txt", "is empty"),
        ("none.txt", "cannot be read"),
        ("binary.txt", "is UTF-16 or no text"),
    ):
        with pytest.raises(SequenceError, match=words):
            read_boxes(tmp_path / name)


@pytest.mark.parametrize("text", ["0,1,0,1", "0\n1\n0\n8\n", "0 1\n0 1"])
def test_flags_in_a_row_or_in_a_column(tmp_path, text) -> None:
    path = tmp_path / "flags.txt"
    path.write_text(text)
    assert read_flags(path).tolist() == [False, True, False, True]


def test_flags_that_are_no_numbers_are_an_error(tmp_path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("0,yes,0")
    with pytest.raises(SequenceError, match="expected 0 or 1"):
        read_flags(path)
