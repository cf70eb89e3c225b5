"""What errors say."""

from __future__ import annotations

import pytest

from edgetrack.errors import UnknownNameError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smatt", "tracker 'smatt' is not known (did you mean 'smat'?); expected one of: smat, DASTM"),
        ("dastm", "tracker 'dastm' is not known (did you mean 'DASTM'?); expected one of: smat, DASTM"),
        ("qqq", "tracker 'qqq' is not known; expected one of: smat, DASTM"),
    ],
)
def test_a_misspelt_name_meets_its_nearest(name: str, said: str) -> None:
    assert str(UnknownNameError.of("tracker", name, ["smat", "DASTM"])) == said


def test_an_empty_list_and_what_to_type() -> None:
    error = UnknownNameError.of("profile", "a", [], "`edgetrack list --devices` shows them")
    assert str(error) == "profile 'a' is not known; there is none; `edgetrack list --devices` shows them"
    assert error.exit_code == 2
