from __future__ import annotations

import pytest

from edgetrack.cli.options import parse_duration, split_names
from edgetrack.errors import UsageError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ([], ()),
        (["a"], ("a",)),
        (["a,b"], ("a", "b")),
        (["a", "b , c", ""], ("a", "b", "c")),
    ],
)
def test_names_by_comma_and_by_repeating(given: list[str] | None, expected: tuple[str, ...] | None) -> None:
    assert split_names(given) == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("45s", 45.0), ("2", 2.0), ("1.5h", 5400.0), ("0", 0.0), (" 7 ", 7.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--duration") == seconds


@pytest.mark.parametrize("text", ["", "m", "-3", "1d", "nan", "inf", "1e9", "1 2", "30m30s", "٣"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--duration"):
        parse_duration(text, "--duration")
