from __future__ import annotations

import pytest

from edgetrack.benchmark.scenario import SCENARIOS, Scenario, choose_scenario, parse_duration
from edgetrack.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("45s", 45.0), ("2", 2.0), ("1.5h", 5400.0), ("0", 0.0), (" 7 ", 7.0)]
)
def test_durations(text, seconds):
    assert parse_duration(text, "stream") == seconds


@pytest.mark.parametrize("text", ["", "m", "-3", "1d", "nan", "inf", "1e9", "1 2", "30m30s", "٣"])
def test_durations_that_are_none(text):
    with pytest.raises(UsageError, match="--duration"):
        parse_duration(text, "stream")


def test_a_soak_is_longer_where_nothing_is_said():
    assert [parse_duration(None, name) for name in SCENARIOS] == [6.0, 6.0, 6.0, 600.0]


def test_defaults():
    assert choose_scenario("stream") == Scenario()
    assert choose_scenario("paced").fps == 30.0
    assert choose_scenario("burst").streams == 2
    assert choose_scenario("soak").fps is None


@pytest.mark.parametrize(
    "wrong",
    [
        ("streams", None, None),
        ("stream", 30.0, None),
        ("burst", 30.0, None),
        ("paced", None, 2),
        ("paced", -1.0, None),
        ("paced", float("nan"), None),
        ("burst", None, 65),
    ],
)
def test_options_that_a_scenario_has_no_use_for(wrong):
    with pytest.raises(UsageError):
        choose_scenario(*wrong)


def test_a_soaks_windows_are_at_most_a_minute():
    soak = choose_scenario("soak")
    assert soak.rounds(600.0) == 20
    assert soak.rounds(3600.0) == 60
    assert choose_scenario("paced").rounds(3600.0) == 6
