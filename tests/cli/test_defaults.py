from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner, Result

from edgetrack.cli import defaults
from edgetrack.cli.main import app
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.resources import DATA_VARIABLE
from tests.builders import write_scripted
from tests.evaluation.conftest import plain_dataset, write_images, write_rows

__all__ = ["plain_dataset", "write_images", "write_rows"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a project, which is the current one."""
    folder = tmp_path / "project" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv(defaults.VARIABLE, raising=False)
    monkeypatch.setenv(DATA_VARIABLE, "")
    monkeypatch.delenv(DATA_VARIABLE)
    return folder


@pytest.fixture
def evaluated(here: Path, plain_dataset: Any) -> Callable[..., Result]:
    """evaluated(...) runs `edgetrack eval` there on a data set of two sequences."""
    bundle = write_scripted(here / "out" / "scripted")
    root = plain_dataset("a", "b", frames=6, root=here.parent / "sets" / "mine")
    return lambda *words, data=str(root): CliRunner().invoke(app, ["eval", str(bundle), data, *words, "--json"])


def _sequences(done: Result) -> list[tuple[str, int]]:
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    return [(one["name"], one["frames"]) for one in result["sequences"]]


def test_a_verbs_table_and_general_keys_hold_and_what_is_typed_wins(
    here: Path, evaluated: Callable[..., Result]
) -> None:
    (here.parent / "edgetrack.toml").write_text('threads = 1\n[eval]\nframes = 3\nsequences = ["b"]\n')
    assert _sequences(evaluated()) == [("b", 3)]
    (folder,) = (here / "out" / "eval" / "scripted").iterdir()
    assert json.loads((folder / "results.json").read_text())["results"][0]["threads"] == 1
    assert _sequences(evaluated("--frames", "5", "--sequences", "a,b")) == [("a", 5), ("b", 5)]


def test_data_sets_are_found_by_name(here: Path, evaluated: Callable[..., Result]) -> None:
    (here.parent / "edgetrack.toml").write_text('data = ["sets", "nowhere"]\n')
    assert _sequences(evaluated(data="mine")) == [("a", 6), ("b", 6)]
    done = evaluated(data="mime")
    assert done.exit_code == 2
    assert "data set mime does not exist, neither here nor in" in done.stderr
    assert "did you mean 'mine'" in done.stderr


def test_a_data_set_here_comes_before_one_of_that_name_elsewhere(
    here: Path, plain_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_dataset("there", root=here.parent / "sets" / "x")
    plain_dataset("near", root=here / "x")
    monkeypatch.setenv(DATA_VARIABLE, str(here.parent / "sets"))
    assert open_dataset("x").names == ["near"]


def test_the_nearest_file_counts_and_foreign_projects_are_left_alone(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert defaults.nearest(here) is None
    (tmp_path / "pyproject.toml").write_text("[tool.edgetrack]\nthreads = 2\n")
    assert defaults.nearest(here) == tmp_path / "pyproject.toml"
    (here.parent / "edgetrack.toml").write_text("threads = 1\n")
    assert defaults.nearest(here) == here.parent / "edgetrack.toml"
    (here / "pyproject.toml").write_text("[project]\nname = 'other'\nbroken\n")
    assert defaults.nearest(here) == here.parent / "edgetrack.toml"
    monkeypatch.setenv(defaults.VARIABLE, "off")
    assert defaults.nearest(here) is None
    monkeypatch.setenv(defaults.VARIABLE, str(tmp_path / "pyproject.toml"))
    assert defaults.nearest(here) == tmp_path / "pyproject.toml"
    monkeypatch.setenv(defaults.VARIABLE, "gone.toml")
    with pytest.raises(UsageError, match="there is no such file"):
        defaults.nearest(here)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("thread = 1", UnknownNameError, "did you mean 'threads'"),
        ("[evel]\njobs = 1", UnknownNameError, "did you mean 'eval'"),
        ("[eval]\nframe = 1", UnknownNameError, r"eval has the key 'frame' is not known \(did you mean 'frames'"),
        ("[export]\nopsett = 17", UnknownNameError, "did you mean 'opset'"),
        ("[calibrate.lots]\njobs = 1", UnknownNameError, "did you mean 'lost'"),
        ("[eval]\nframes = 'ten'", UsageError, "eval: frames is 'ten': .*integer"),
        ("[eval]\nframes = 0", UsageError, "eval: frames is 0: .*1"),
        ("[eval]\nframes = [1]", UsageError, r"frames is \[1\]; expected a text or number"),
        ("[eval]\nrestart = 1", UsageError, "restart is 1; expected true or false"),
        ("[eval]\nthreads = true", UsageError, "threads is True; expected a text or number"),
        ("[eval]\nresults = ['got10k']", UsageError, "expected 2 of them"),
        ("eval = 3", UsageError, "eval is 3; expected a table"),
        ("data = 3", UsageError, "data is 3; expected a folder"),
        ("calibrate = 3", UsageError, "calibrate is 3; expected a table"),
        ("data = [", UsageError, "is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_name(
    here: Path, text: str, kind: type[Exception], message: str
) -> None:
    path = here / "edgetrack.toml"
    path.write_text(text)
    with pytest.raises(kind, match=message) as caught:
        defaults.read(path, typer.main.get_command(app))
    assert str(path) in str(caught.value)
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 2
    assert str(path) in done.stderr
    assert CliRunner().invoke(app, ["list", "--help"]).exit_code == 0


def test_a_device_is_for_verbs_that_go_there_and_a_budget_keeps_its_own(here: Path) -> None:
    path = here / "edgetrack.toml"
    path.write_text('device = "jetson"\nthreads = 2\njobs = 3\n[check]\nthreads = 4\n[calibrate.lost]\njobs = 1\n')
    found = defaults.read(path, typer.main.get_command(app)).options
    assert found["bench"] == {"device": "jetson", "threads": 2}
    assert found["eval"] == {"device": "jetson", "threads": 2, "jobs": 3}
    assert found["check"] == {"threads": 4}
    assert found["calibrate"]["lost"] == {"jobs": 1, "threads": 2}
    assert found["export"] == {"jobs": 3}


def test_debug_and_doctor_say_which_file_it_was(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.edgetrack]\nthreads = 2\n")
    done = CliRunner().invoke(app, ["list", "--debug"])
    assert f"defaults of {here / 'pyproject.toml'} (threads = 2)" in done.stderr
    assert "defaults" not in CliRunner().invoke(app, ["list"]).stderr
    found = CliRunner().invoke(app, ["doctor", "--target", "torch"])
    assert found.exit_code == 0, found.output
    assert str(here / "pyproject.toml") in " ".join(found.stdout.split())
    asked = json.loads(CliRunner().invoke(app, ["doctor", "--target", "torch", "--json"]).stdout)
    assert asked["defaults"] == str(here / "pyproject.toml")


def test_the_pages_file_is_one(here: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
    (text,) = re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    (here / "edgetrack.toml").write_text(text)
    found = defaults.read(here / "edgetrack.toml", typer.main.get_command(app))
    assert found.options["eval"] == {"device": "jetson", "threads": 2, "jobs": 2, "anchors": 25}
    assert found.folders == (Path("~/data").expanduser(), here / "sets")
