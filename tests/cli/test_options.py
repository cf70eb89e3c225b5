from __future__ import annotations

import pytest

from edgetrack.cli.options import split_names


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
