"""Recipes: the one that ships, and whatever else a file may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgetrack.bundle import open_bundle
from edgetrack.cli.main import app
from edgetrack.errors import RecipeError, UnknownNameError, UsageError
from edgetrack.exporting import recipe as module
from edgetrack.exporting.recipe import (
    Recipe,
    default_tracker,
    find_recipe,
    read_recipe,
    recipe_names,
    shipped_names,
)
from edgetrack.models.base import find_model, make_network
from edgetrack.resources import data_folder
from edgetrack.runtime.trackers.base import find_family, read_settings
from tests.builders import as_toml

SMAT = (data_folder("export_recipes") / "smat.toml").read_text("utf-8")


@pytest.fixture
def write(tmp_path: Path):
    def put(text: str | bytes) -> Path:
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return path

    return put


def test_smat_is_known_and_the_default() -> None:
    assert "smat" in recipe_names()
    assert default_tracker() == "smat"
    smat = find_recipe("smat")
    assert (smat.name, smat.checkpoint.key) == ("smat", "net")
    assert smat.tolerance("fp32").atol > 0


def test_alias_gives_the_recipe_that_states_it() -> None:
    assert "nanotrack" not in recipe_names()
    assert find_recipe("nanotrack") == find_recipe("nanotrack_v2")


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_of_its_own_name(name: str) -> None:
    assert find_recipe(name).name == name


@pytest.mark.parametrize("name", ["nothing", "SMAT", "", "../smat", "smat.tom"])
def test_unknown_tracker_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_recipe(name)
    assert str(caught.value).startswith(f"tracker {name!r} is not known")
    assert "; expected one of: " in str(caught.value)
    assert "smat" in str(caught.value)
    assert caught.value.exit_code == 2


def test_file_is_read_by_its_path(write) -> None:
    assert find_recipe(str(write(SMAT))) == find_recipe("smat")


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        find_recipe(str(tmp_path / "absent.toml"))


def test_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match="cannot be read"):
        find_recipe(str(tmp_path / "folder.toml"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 2", "schema 1"),
        ("schema = 1", 'schema = 1\naliases = ["Smat!"]', r"\baliases"),
        ("schema = 1", 'schema = 1\ngraphs = { step = "often" }', r"\bgraphs"),
        ("schema = 1", "", "lacks the key 'schema'"),
        ('name = "smat"', 'name = "Smat!"', r"\bname"),
        ('name = "smat"', "name = 7", r"\bname"),
        ("default = true", 'default = "yes"', r"\bdefault"),
        ("[paper]", "[papers]", "unknown key 'papers'"),
        ('key = "net"', "key = 7", r"\bcheckpoint\.key"),
        ('key = "net"', 'unused = [""]', r"\bcheckpoint\.unused"),
        ("cpu_fps = 37.0", 'cpu_fps = "fast"', r"\bpaper\.cpu_fps"),
        ("search_factor = 4.0", "search_factor = [4.0]", r"\bprocedure"),
        ("atol = 2e-4", "atoll = 2e-4", "unknown key 'atoll'"),
        ("atol = 2e-4", "atol = inf", "finite and at least 0"),
        ("atol = 2e-4", "atol = nan", "finite and at least 0"),
        ("rtol = 1e-4", "rtol = -1e-4", "finite and at least 0"),
    ],
)
def test_wrong_field_is_named(write, old: str, new: str, words: str) -> None:
    assert old in SMAT
    with pytest.raises(RecipeError, match=words) as caught:
        read_recipe(write(SMAT.replace(old, new, 1)))
    assert "mine.toml is not a recipe of schema 1" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "schema = ",
        "[a\n",
        "a = 1\na = 2",
        "\x00",
        b"\xff\xfe",
        "a = " + "[" * 50_000,
        "a = " + "{a=" * 15_000,
        "a = " + "1" * 5000,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_file_that_is_not_toml_is_refused(write, text: str | bytes) -> None:
    with pytest.raises(RecipeError, match=r"mine\.toml is (not TOML|UTF-16 or no text)"):
        read_recipe(write(text))


PIECES = st.sampled_from(
    [
        "",
        "=",
        "\n",
        "[",
        "]",
        '"',
        "0",
        "-1",
        "nan",
        "inf",
        "1e400",
        "true",
        "[[x]]",
        "9" * 30,
        "1979-05-27",
        "é",
        "\x00",
    ]
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.tuples(st.integers(0, len(SMAT)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
def test_mutated_recipe_is_a_recipe_or_a_clear_error(write, cuts: list[tuple[int, int, str]]) -> None:
    text = SMAT
    for at, length, piece in cuts:
        text = text[:at] + piece + text[at + length :]
    try:
        found = read_recipe(write(text))
    except RecipeError:
        return
    assert isinstance(found, Recipe)
    assert all(0 <= t.atol < float("inf") for t in found.parity.values())


def test_precision_without_a_tolerance_is_refused_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no \[parity\.int8\] section; it has: fp32"):
        msgspec.structs.replace(find_recipe("smat"), parity={"fp32": find_recipe("smat").parity["fp32"]}).tolerance(
            "int8"
        )


def test_no_default_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shipped_names", list)
    with pytest.raises(RecipeError, match="no recipe is marked"):
        default_tracker()


def test_tracker_of_a_known_family_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = msgspec.to_builtins(find_recipe("nanotrack_v3"))
    changes = {"name": "nanotrack_mine", "title": "Mine", "aliases": [], "default_weights": None}
    recipe = tmp_path / "mine.toml"
    recipe.write_text(as_toml({**tables, **changes, "procedure": tables["procedure"] | {"size_rate": 0.2}}))
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    export = ["export", str(recipe), "--weights", "untrained"]
    for target in ("torch", "onnx"):
        assert run.invoke(app, [*export, "--target", target]).exit_code == 0
        bundle = f"nanotrack_mine-{target}-fp32"
        assert run.invoke(app, ["verify", bundle]).exit_code == 0
        tracked = run.invoke(app, ["track", bundle, "synthetic:drift", "--frames", "5", "--json"])
        assert json.loads(tracked.stdout)["frames"] == 5
    with open_bundle("nanotrack_mine-onnx-fp32") as opened:
        assert (opened.manifest.tracker, opened.manifest.family) == ("nanotrack_mine", "nanotrack")
        graphs = [str(opened.path(graph.file)) for graph in opened.manifest.graphs]
        given = [word for graph in graphs for word in ("--onnx", graph)]
        done = run.invoke(app, ["export", str(recipe), "--target", "onnx", *given, "-o", "given"])
    assert done.exit_code == 0
    assert run.invoke(app, ["verify", "given"]).exit_code == 0


def test_family_is_the_tracker_itself_unless_the_recipe_says_otherwise() -> None:
    assert [find_recipe(name).family_name for name in ("smat", "spmtrack_b")] == ["smat", "spmtrack"]


def test_overrides_are_read_as_the_recipes_own_values_are() -> None:
    recipe = find_recipe("dastm")
    changed, overrides = recipe.overridden(["gate=hard", "temperature=2", "memory = exact", "cells=25"])
    assert overrides == {"gate": "hard", "temperature": 2.0, "memory": "exact"}  # 25 is the recipe's own
    assert (changed.configuration["gate"], changed.procedure["memory"]) == ("hard", "exact")
    assert changed.configuration["dim"] == recipe.configuration["dim"]
    assert recipe.configuration["gate"] == "soft"


def test_a_key_of_both_tables_is_one_value() -> None:
    changed, overrides = find_recipe("dmtrack").overridden(["search_size=128"])
    assert overrides == {"search_size": 128}
    assert changed.configuration["search_size"] == changed.procedure["search_size"] == 128


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gate", "--set 'gate' is not KEY=VALUE, such as memory=exact"),
        ("=hard", "is not KEY=VALUE"),
        ("gat=hard", r"setting 'gat' is not known \(did you mean 'gate'\?\); there are .*these are the keys of"),
        ("gate=har", r"gate 'har' is not known \(did you mean 'hard'\?\); expected one of: soft, hard"),
        ("temperature=warm", "--set temperature=warm: expected a number, as the recipe's 1.0"),
        ("dim=1.5", "--set dim=1.5: expected a whole number"),
        ("dim=512,", "expected a whole number"),
    ],
)
def test_an_override_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_recipe("dastm").overridden([text])


def test_a_key_is_set_once() -> None:
    with pytest.raises(UsageError, match="gives gate twice"):
        find_recipe("dastm").overridden(["gate=hard", "gate=soft"])


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ('absent = ["a"]', "names 'absent', which neither"),
        ("search_size = [128]", "search_size: the recipe's own value 256 is not among them"),
    ],
)
def test_choices_are_of_the_recipes_own_keys(write, choices: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_recipe(write(SMAT.replace("[choices]\n", f"[choices]\n{choices}\n")))


@pytest.mark.parametrize("name", shipped_names())
def test_the_choices_are_all_that_the_family_takes(name: str) -> None:
    """Where the network's or the procedure's own types say which values there are, a recipe lists all or none."""
    recipe = find_recipe(name)
    settings_type = find_family(recipe.family_name).settings_type
    try:
        has_network = bool(find_model(recipe.family_name))
    except UnknownNameError:  # given as ONNX
        has_network = False
    networks = [find_model(recipe.family_name).Network.__init__] if has_network else []
    stated = {
        key: get_args(kind)
        for source in (*networks, settings_type)
        for key, kind in get_type_hints(source).items()
        if get_origin(kind) is Literal and key in recipe.choices
    }
    assert {key: recipe.choices[key] for key in stated} == stated
    with torch.device("meta"):
        for key, values in recipe.choices.items():
            for value in values:
                changed, _ = recipe.overridden([f"{key}={value}"])
                if has_network:
                    make_network(recipe.family_name, changed.configuration)
                if value != "opencv":  # which wants its numbers set with it
                    read_settings(changed.procedure, settings_type)


def test_the_default_tracker_has_a_word_of_its_own() -> None:
    assert find_recipe("default").name == default_tracker() == "smat"
