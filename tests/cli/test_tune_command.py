from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import edgetrack
from edgetrack.bundle import open_bundle
from edgetrack.cli.doctor import tuned_here
from edgetrack.cli.main import app
from edgetrack.errors import UsageError
from edgetrack.runtime.tuned import TunedChoice, keep_choice, read_choices
from edgetrack.system.machine import collect
from tests.builders import scripted_manifest, write_scripted


def invoke(*words):
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.full  # processes start, and load NumPy and OpenCV
def test_a_race_of_real_processes_ends_with_a_choice_that_is_kept(home):
    write_scripted(home / "out" / "a", scripted_manifest("a"))
    options = ("--max-time", "6s", "--source", "synthetic:drift?frames=6&size=96x64")
    done = invoke("tune", "a", *options, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["recommended"] is not None
    assert {one["target"] for one in record["entries"]} == {"fake"}
    (choice,) = read_choices(home / "config" / "edgetrack" / "tuned.toml")
    assert choice.bundle == str(home / "out" / "a")


def test_what_was_tuned_is_taken_where_it_is_asked_for_and_refused_where_it_is_stale(home):
    path = write_scripted(home / "out" / "a", scripted_manifest("a"))
    with open_bundle(path) as bundle:
        digest = bundle.manifest.digest
    found = {"bundle": str(path), "digest": digest, "device": "cpu", "threads": 1, "versions": {}, "measured": "now"}
    keep_choice(TunedChoice(tracker="smat", machine=collect().kind, **found))
    with edgetrack.load("smat", tuned=True) as tracker:
        assert tracker.tuned.bundle == str(path)
        assert tracker.options.threads == 1
    with edgetrack.load(path) as tracker:
        assert tracker.tuned is None
    with pytest.raises(UsageError, match="leave those out"):
        edgetrack.load("smat", tuned=True, threads=2)
    source = ("synthetic:drift?frames=4&size=96x64", "--json")
    done = invoke("track", "smat", *source, "--tuned")
    assert done.exit_code == 0
    assert "tuned: a on cpu, threads 1 (now)" in done.stderr
    assert json.loads(done.stdout)["frames"] == 4
    assert invoke("track", "smat", *source, "--tuned", "--threads", "2").exit_code == 2
    (listed,) = tuned_here(collect())
    assert (listed["tracker"], listed["stale"]) == ("smat", "")
    write_scripted(path, scripted_manifest("a"), overwrite=True, score=0.25)
    assert "exported again since" in tuned_here(collect())[0]["stale"]
    with pytest.raises(UsageError, match="stale"):
        edgetrack.load("smat", tuned=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-drop", "1"], "add --val"),
        (["--fps", "0"], "--fps 0: expected a number above 0"),
        (["--max-memory", "much"], "such as 200M or 1.5G"),
        (["--max-time", "soon"], "--max-time is 'soon'"),
        (["--json", "--markdown"], "exclude each other"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(home, options, words):
    done = invoke("tune", "a", *options)
    assert done.exit_code == 2
    assert words in done.stderr
