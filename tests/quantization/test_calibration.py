"""Calibration sets as files: what is written is read again, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import CalibrationError, UnknownNameError
from edgetrack.quantization.calibration import (
    DEFAULT,
    Item,
    Part,
    find_set,
    make_set,
    read_set,
    set_names,
    to_toml,
)

SIDE = st.floats(1e-3, 1e4)
PLACE = st.floats(-1e4, 1e4)
BOXES = st.tuples(PLACE, PLACE, SIDE, SIDE)
# TOML holds every Unicode text but lone surrogates.
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ITEMS = st.builds(
    lambda clip, start, template, gap, box: Item(clip, start, template, start + gap, box),
    NAMES, st.integers(0, 99), BOXES, st.integers(1, 99), BOXES,
)  # fmt: skip
ONE = Item("a", 0, (1.0, 2.0, 3.0, 4.0), 5, (6.0, 7.0, 8.0, 9.0))


def written(folder: Path, text: str) -> Path:
    path = folder / "set.toml"
    path.write_text(text, "utf-8")
    return path


@given(items=st.lists(ITEMS, min_size=1, max_size=5), dataset=NAMES, layout=st.none() | NAMES, about=NAMES)
def test_what_is_written_is_read(
    items: list[Item], dataset: str, layout: str | None, about: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = make_set("mine", (Part(dataset=dataset, layout=layout, items=tuple(items)),), about)
    path = written(tmp_path_factory.mktemp("set"), to_toml(made))
    assert read_set(path) == made


def test_a_list_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    text = to_toml(make_set("mine", (Part(dataset="d", items=(ONE,)),)))
    with pytest.raises(CalibrationError, match=r"changed after it was made.*calibrate collect"):
        read_set(written(tmp_path, text.replace("8.0", "8.5")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema 2, expected 1"),
        ("schema = 1", "schema = ", "is not TOML"),
        ('name = "mine"', 'name = "../mine"', "not a calibration set"),
        ('about = ""', "others = 1", "unknown field"),
        ("3.0, 4.0]", "3.0, 0.0]", "no area"),
        ("3.0, 4.0]", "3.0, nan]", "not finite"),
        ("5, [6.0", "0, [6.0", "does not follow"),
        ("5, [6.0", "-5, [6.0", "not a calibration set"),
        ("8.0, 9.0]],", "8.0, 9.0], 1],", "not a calibration set"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = to_toml(make_set("mine", (Part(dataset="d", items=(ONE,)),)))
    assert old in text
    with pytest.raises(CalibrationError, match=said):
        read_set(written(tmp_path, text.replace(old, new)))


def test_an_empty_set_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="lists 0 items"):
        read_set(written(tmp_path, to_toml(make_set("mine", (Part(dataset="d", items=()),)))))
    with pytest.raises(CalibrationError, match="cannot be read"):
        find_set(str(tmp_path / "none.toml"))


def test_the_shipped_sets_are_sound() -> None:
    assert DEFAULT in set_names()
    for name in set_names():
        assert find_set(name).size >= 300
    with pytest.raises(UnknownNameError, match=r"'nothing' is not known.*synthetic"):
        find_set("nothing")
