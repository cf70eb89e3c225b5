from __future__ import annotations

import io
from xml.etree import ElementTree as Xml

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.gate import outputs
from edgetrack.gate.outputs import junit
from edgetrack.gate.report import RuleFinding
from tests.gate.conftest import report, side

FAIL = RuleFinding(
    rule="track_p50_ratio", limit=1.05, unit="x", verdict="fail", value=1.15, low=1.12, high=1.17, detail="16 blocks"
)
OPEN = RuleFinding(
    rule="track_p95_ms", limit=30, unit="ms", verdict="undecided", value=29.0, detail="90 frames", more=40,
    more_of="frames", more_s=1.2,
)  # fmt: skip
PASS = RuleFinding(rule="size_mb", limit=18, unit="MB", verdict="pass", value=16.7, detail="the bundle's files")
SKIP = RuleFinding(rule="size_ratio", limit=1.02, unit="x", verdict="skipped", detail="no --baseline was given")


def test_sentences_say_what_was_found_what_was_allowed_and_what_would_decide():
    assert outputs.sentence(FAIL) == "track_p50_ratio fail: 1.150 (1.120 to 1.170), at most 1.05 x; 16 blocks"
    assert outputs.sentence(OPEN).endswith("90 frames; about 40 more frames, about 1 s would probably decide")
    assert outputs.sentence(SKIP) == "size_ratio skipped: at most 1.02 x; no --baseline was given"
    nothing = msgspec.structs.replace(OPEN, more=None)
    assert "no number of samples would decide" in outputs.sentence(nothing)


def test_junit_has_a_case_per_rule_and_counts_them():
    root = Xml.fromstring(junit(report(FAIL, OPEN, PASS, SKIP)))
    (suite,) = root
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    kinds = [(case.get("name"), [child.tag for child in case]) for case in suite.iter("testcase")]
    assert kinds == [
        ("track_p50_ratio", ["failure"]),
        ("track_p95_ms", ["error"]),
        ("size_mb", ["system-out"]),
        ("size_ratio", ["skipped"]),
    ]
    assert "1.150" in suite.find(".//failure").get("message")


def test_what_was_skipped_is_an_error_where_it_costs_the_pass_and_a_note_where_it_was_allowed():
    lost = report(PASS, SKIP, verdict="skipped", exit_code=1)
    assert Xml.fromstring(junit(lost))[0].get("errors") == "1"
    (line,) = outputs.github_commands(lost)
    assert line.startswith("::error title=edgetrack check%3A size_ratio::")
    assert outputs.headline(lost).endswith("(size_ratio); add --baseline, or --allow-skipped to pass without")
    allowed = report(PASS, SKIP, verdict="pass", exit_code=0)
    assert Xml.fromstring(junit(allowed))[0].get("skipped") == "1"
    (line,) = outputs.github_commands(allowed)
    assert line.startswith("::notice ")
    assert line.endswith("; 1 rule of 2 not judged (size_ratio)")


def test_undecided_that_is_let_pass_is_no_error_anywhere():
    found = report(OPEN, verdict="undecided", exit_code=0)
    suite = Xml.fromstring(junit(found))[0]
    assert (suite.get("errors"), suite.get("skipped")) == ("0", "1")
    assert [line.split(" ")[0] for line in outputs.github_commands(found)] == ["::warning"]
    blocking = report(OPEN, verdict="undecided", exit_code=5)
    assert [line.split(" ")[0] for line in outputs.github_commands(blocking)] == ["::error"]


@given(st.text(max_size=60))
def test_whatever_a_bundle_is_called_the_outputs_stay_whole(name):
    hostile = report(FAIL, OPEN, candidate=side(name))
    root = Xml.fromstring(junit(hostile))
    assert len(list(root.iter("testcase"))) == 2
    lines = list(outputs.github_commands(hostile))
    assert len(lines) == 2
    assert all("\n" not in line and "\r" not in line for line in lines)
    text = outputs.markdown(hostile)
    assert sum(line.startswith("| ") for line in text.split("\n")) == 4
    assert len(text.split("\n")) == len(outputs.markdown(report(FAIL, OPEN)).split("\n"))


def test_annotations_cannot_be_broken_out_of():
    nasty = msgspec.structs.replace(FAIL, rule="a:b,c", detail="50 %\n::error::pwned")
    (line,) = outputs.github_commands(report(nasty))
    assert line.startswith("::error title=edgetrack check%3A a%3Ab%2Cc::")
    assert "%25%0A::error::pwned" in line


def test_a_bundle_whose_name_looks_like_markup_is_shown_as_it_is():
    named = report(FAIL, candidate=side("car[a]|b"))
    out = io.StringIO()
    outputs.table(named).show(Console(file=out, width=200))
    assert "candidate: car[a]|b, 16.7 MiB" in out.getvalue()
    assert "FAIL: car\\[a\\]\\|b against base" in outputs.markdown(named)
    assert "- candidate: car\\[a\\]\\|b, 16.7 MiB" in outputs.markdown(named)


def test_the_summary_goes_behind_what_is_there(tmp_path):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    assert outputs.github_summary_file({"GITHUB_STEP_SUMMARY": str(file)}) == file
    outputs.append_github_summary(report(PASS, verdict="pass", exit_code=0), file)
    text = file.read_text()
    assert text.startswith("before\n")
    assert "PASS: head against base" in text
    (line,) = outputs.github_commands(report(PASS, verdict="pass"))
    assert line.startswith("::notice ")


def test_outside_github_there_is_no_summary(tmp_path):
    with pytest.raises(UsageError, match="GITHUB_STEP_SUMMARY"):
        outputs.github_summary_file({})
    with pytest.raises(EdgetrackError, match="cannot be written"):
        outputs.append_github_summary(report(PASS), tmp_path / "none" / "summary.md")


def test_forced_differences_and_open_rules_are_told():
    notes = list(outputs.table(report(OPEN, differences=["threads: 1 against 2"], notes=["a note"])).notes)
    assert any("40 more frames" in note for note in notes)
    assert "conditions differ, accepted by --force: threads: 1 against 2" in notes
    assert notes[-1] == "a note"
