"""Trackers of other packages: docs/plugins.md as it stands, built, installed and run; and packages that are broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetrack.capabilities import find_target
from edgetrack.errors import RecipeError, UnknownNameError, UsageError
from edgetrack.exporting.recipe import default_tracker, find_recipe, recipe_names
from edgetrack.models.base import find_model
from edgetrack.plugins import load_plugin, plugin_names
from edgetrack.runtime.trackers.base import find_family
from tests.pages import install_page, page_files, run_edgetrack

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the page's package installed."""
    target = tmp_path_factory.mktemp("site")
    install_page(PAGE, tmp_path_factory.mktemp("source"), target)
    return target


def test_page_holds_the_files_it_speaks_of() -> None:
    assert list(page_files(PAGE)) == [
        "pyproject.toml",
        "cosine_tracker/__init__.py",
        "cosine_tracker/cosine.toml",
        "cosine_tracker/model.py",
        "cosine_tracker/procedure.py",
    ]


def test_example_is_listed_exported_verified_and_tracks(site: Path, tmp_path: Path) -> None:
    listed = json.loads(run_edgetrack(site, tmp_path, "list", "--trackers", "--json"))["items"]
    assert "Cosine of one convolution's features" in {row["title"] for row in listed}
    run_edgetrack(site, tmp_path, "export", "cosine", "--target", "onnx")
    assert (tmp_path / "out" / "cosine-onnx-fp32").is_dir()
    run_edgetrack(site, tmp_path, "verify", "cosine-onnx-fp32")
    found = run_edgetrack(site, tmp_path, "track", "cosine-onnx-fp32", "synthetic:drift", "--frames", "30", "--json")
    summary = json.loads(found)
    assert summary["frames"] == 30
    # Features of random filters are features; a box that never moves gets 0.376.
    assert summary["mean_iou"] > 0.4


def test_target_that_is_no_row_is_refused_and_own_names_win(path: Path) -> None:
    entries = "[edgetrack.targets]\nmine = mine_l:T\nonnx = mine_l:T\n"
    install(path, "mine", entries, mine_l="T = 7")
    with pytest.raises(UsageError, match="the plug-in for target 'mine' gives 7, expected a Target of that name"):
        find_target("mine")
    assert find_target("onnx").name == "onnx"
    with pytest.raises(UnknownNameError, match="target 'nothing' is not known"):
        find_target("nothing")


def install(site: Path, name: str, entries: str, **files: str) -> None:
    """A distribution as installers leave it: metadata beside modules."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    for module, text in files.items():
        (site / f"{module}.py").write_text(text)


RECIPE = """
schema = 1
name = "{name}"
title = "Mine"
default = true
checkpoint = {{ file = "mine.pth" }}
procedure = {{}}
parity = {{}}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plug-ins on this process's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_no_plugin_no_names() -> None:
    assert plugin_names("edgetrack.nothing") == []
    assert load_plugin("edgetrack.nothing", "mine") is None


def test_recipe_is_found_by_a_plain_path_and_is_never_the_default(path: Path) -> None:
    (path / "mine.toml").write_text(RECIPE.format(name="a_mine"))
    install(path, "mine", "[edgetrack.recipes]\na_mine = mine_a:R\n", mine_a=f"R = {str(path / 'mine.toml')!r}")
    assert "a_mine" in recipe_names()
    assert find_recipe("a_mine").title == "Mine"
    assert default_tracker() != "a_mine"


def test_recipe_of_another_name_is_refused(path: Path) -> None:
    (path / "mine.toml").write_text(RECIPE.format(name="other"))
    install(path, "mine", "[edgetrack.recipes]\nmine = mine_b:R\n", mine_b=f"R = {str(path / 'mine.toml')!r}")
    with pytest.raises(RecipeError, match="plug-in for tracker 'mine' is named 'other'; give both the same name"):
        find_recipe("mine")


def test_recipe_that_is_no_path_is_refused(path: Path) -> None:
    install(path, "mine", "[edgetrack.recipes]\nmine = mine_c:R\n", mine_c="R = 7")
    with pytest.raises(RecipeError, match="gives 7, expected the path of a TOML file"):
        find_recipe("mine")


def test_plugin_that_cannot_be_imported_is_named(path: Path) -> None:
    install(path, "mine-package", "[edgetrack.trackers]\nmine = mine_d:P\n", mine_d="raise RuntimeError('no luck')")
    with pytest.raises(
        UsageError, match=r"package mine-package cannot be used for tracker 'mine': .*RuntimeError: no luck"
    ):
        find_family("mine")


def test_two_packages_with_one_tracker_are_refused(path: Path) -> None:
    install(path, "first", "[edgetrack.trackers]\nmine = mine_e:P\n", mine_e="P = 1")
    install(path, "second", "[edgetrack.trackers]\nmine = mine_f:P\n", mine_f="P = 1")
    with pytest.raises(UsageError, match=r"comes from more than one package: .*first.*uninstall all but one") as caught:
        find_family("mine")
    assert "second" in str(caught.value)


def test_procedure_of_another_kind_is_refused(path: Path) -> None:
    install(path, "mine", "[edgetrack.trackers]\nmine = mine_g:P\n", mine_g="P = dict")
    with pytest.raises(UsageError, match=r"expected a subclass of .*Procedure"):
        find_family("mine")


def test_module_that_lacks_a_part_is_refused(path: Path) -> None:
    install(path, "mine", "[edgetrack.models]\nmine = mine_h\n", mine_h="Network = object")
    with pytest.raises(UsageError, match="without deploy, reference; expected a module with"):
        find_model("mine")


def test_own_names_win(path: Path) -> None:
    entries = "".join(f"[edgetrack.{group}]\nsmat = mine_i:X\n" for group in ("trackers", "models", "recipes"))
    install(path, "mine", entries, mine_i="raise RuntimeError")
    assert find_family("smat").__module__.startswith("edgetrack.")
    assert find_recipe("smat").name == "smat"
    assert find_model("smat").Network.__module__.startswith("edgetrack.")


def test_unknown_tracker_is_still_unknown(path: Path) -> None:
    install(path, "mine", "[edgetrack.recipes]\nmine = mine_j:R\n", mine_j="R = 7")
    for find in (find_recipe, find_model, find_family):
        with pytest.raises(UnknownNameError):
            find("nothing")


def test_broken_recipe_does_not_hide_the_other_trackers(path: Path) -> None:
    from edgetrack.cli.list import _trackers

    install(path, "mine", "[edgetrack.recipes]\nmine = mine_k:R\n", mine_k="R = 7")
    rows = {row["tracker"]: row for row in _trackers()}
    assert "expected the path" in rows["mine"]["title"]
    assert rows["smat"]["title"] == find_recipe("smat").title
