from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.gate.budget import LIMITS, REGRESSIONS, find_budget, read_budget
from edgetrack.resources import data_folder

GOOD = 'schema = 1\nname = "mine"\n[limits]\ntrack_p95_ms = 30\n[regressions]\ntrack_p50_ratio = 1.05\n'


@pytest.fixture
def write(tmp_path):
    def file(text):
        path = tmp_path / "budget.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


def test_rules_come_limits_first_with_what_their_names_say(write):
    first, second = read_budget(write(GOOD)).rules
    assert (first.name, first.kind, first.speed, first.quantile, first.limit) == (
        "track_p95_ms",
        "latency",
        "track",
        0.95,
        30,
    )
    assert (second.kind, second.quantile, second.limit, second.needs_baseline) == ("latency ratio", 0.5, 1.05, True)


def test_every_shipped_budget_is_found_by_name_and_by_path():
    folder = data_folder("bench") / "budgets"
    names = sorted(path.stem for path in folder.glob("*.toml"))
    assert {"smat-cpu", "jetson-orin-nano"} <= set(names)
    for name in names:
        assert find_budget(name) == find_budget(str(folder / f"{name}.toml"))
        assert find_budget(name).name == name
    assert "NOT MEASURED" in find_budget("jetson-orin-nano").note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("schema = 1", "schema = 2"), "schema"),
        (GOOD.replace("track_p95_ms", "track_p95"), "it may have: model_p50_ms"),
        (GOOD.replace("track_p95_ms", "track_p50_ratio"), "unknown key 'track_p50_ratio'"),
        (GOOD.replace("track_p50_ratio", "track_p95_ms"), "unknown key 'track_p95_ms'"),
        (GOOD.replace("30", "nan"), "finite number above 0"),
        (GOOD.replace("30", "inf"), "finite number above 0"),
        (GOOD.replace("30", "0"), "finite number above 0"),
        (GOOD.replace("30", '"30"'), "expected a number"),
        (GOOD.replace("track_p95_ms = 30", "delta_ao_points = 0.5"), "from -100 to 0"),
        (GOOD.replace('"mine"', '"../mine"'), "lower-case letters"),
        (GOOD + "[measure]\nthreads = 0\n", "threads"),
        (GOOD + "[measures]\nthreads = 1\n", "measures"),
        ('schema = 1\nname = "empty"\n', "neither"),
        ("[" * 1000, "not TOML"),
        (b"\xff", "line 1 of .* is not UTF-8"),
        ("#" * 70_000, "larger than 64 KiB"),
    ],
)
def test_what_is_no_budget_is_refused(write, text, said):
    with pytest.raises(UsageError, match=said):
        read_budget(write(text))


def test_a_name_that_does_not_ship_lists_those_that_do():
    with pytest.raises(UnknownNameError, match="smat-cpu"):
        find_budget("nothing")


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        find_budget(str(tmp_path / "none.toml"))


@given(st.text(max_size=200))
def test_any_text_is_a_budget_or_a_usage_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, "utf-8", errors="replace")
    with pytest.raises(UsageError):
        read_budget(path)


@given(st.sampled_from([*LIMITS, *REGRESSIONS]), st.floats(1e-3, 1e8))
def test_every_rule_can_be_written(tmp_path_factory, name, limit):
    limit = -min(limit, 100.0) if name == "delta_ao_points" else limit
    section = "limits" if name in LIMITS else "regressions"
    path = tmp_path_factory.getbasetemp() / "one.toml"
    path.write_text(f'schema = 1\nname = "one"\n[{section}]\n{name} = {limit!r}\n')
    (rule,) = read_budget(path).rules
    assert (rule.name, rule.limit) == (name, limit)
