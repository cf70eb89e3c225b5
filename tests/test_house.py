"""The house's own rules that no linter knows."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

from edgetrack.capabilities import TARGETS
from edgetrack.exporting.recipe import find_recipe, recipe_names

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgetrack"


def _own_files(name: str) -> set[Path]:
    return {p for p in PACKAGE.rglob("*.py") if p.stem == name or name in p.relative_to(PACKAGE).parts[:-1]}


@cache
def _strings(path: Path) -> set[str]:
    """String constants of a file that are not docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, documented) and _is_docstring(n)}
    constants = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings)
    return {n.value for n in constants if isinstance(n.value, str)}


def _is_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


@pytest.mark.parametrize("name", recipe_names())
def test_no_file_but_its_own_names_a_tracker(name: str) -> None:
    others = set(PACKAGE.rglob("*.py")) - _own_files(name) - _own_files(find_recipe(name).family_name)
    assert [p for p in others if name in _strings(p)] == []


# nn.Module networks repeat the field's words (Backbone, Head ...): each lies in its tracker's room.
TORCH_ROOM = PACKAGE / "models"
# Tests of the repository as a whole.
WHOLE = {
    "test_action",
    "test_bundle_spec",
    "test_containers",
    "test_docs",
    "test_examples",
    "test_hostile",
    "test_house",
    "test_imports",
    "test_readme",
}


def _defined(path: Path) -> set[str]:
    """Classes and aliases that a module defines at its top level."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            (target, *_) = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper():
                names.add(target.id)
    return names


def test_no_class_or_alias_has_the_name_of_another() -> None:
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if TORCH_ROOM not in path.parents:
            for name in _defined(path):
                places.setdefault(name, []).append(path.relative_to(PACKAGE).as_posix())
    assert {name: sorted(found) for name, found in places.items() if len(found) > 1} == {}


def test_tests_mirror_the_package() -> None:
    """tests/<room>/test_<module>[_<aspect>].py tests <room>/<module>.py of the package, tests/bench the scripts."""
    strays = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = path.parent.relative_to(ROOT / "tests")
        subjects = ROOT / "bench" if room.parts[:1] == ("bench",) else PACKAGE / room
        known = {one.stem for one in subjects.glob("*") if one.suffix in ("", ".py") and one.stem[0] != "_"}
        name = path.stem.removeprefix("test_")
        if not (any(name == one or name.startswith(f"{one}_") for one in known) or path.stem in WHOLE):
            strays.append(path.relative_to(ROOT).as_posix())
    assert sorted(strays) == []


@cache
def _imports() -> dict[str, set[str]]:
    """What every module imports of the package, also inside functions, but not for types alone."""
    modules = {
        ".".join(("edgetrack", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text("utf-8"))
        typing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        names = set()
        for node in ast.walk(tree):
            if id(node) in typing:
                continue
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {
                    inner if (inner := f"{node.module}.{alias.name}") in modules else node.module
                    for alias in node.names
                }
        found[module] = names & set(modules) - {module}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    list(graphlib.TopologicalSorter(_imports()).static_order())


@pytest.mark.parametrize(
    ("entries", "most"),
    [(("edgetrack.cli.bench", "edgetrack.benchmark.worker"), 78), (("edgetrack.cli.track",), 52)],
    ids=["bench", "track"],
)
def test_a_verb_is_read_in_few_modules(entries: tuple[str, ...], most: int) -> None:
    imports, reached, open_ = _imports(), set(), list(entries)
    while open_:
        module = open_.pop()
        # The way to another machine, and what a Tab offers, are read apart from what runs there and here.
        if module not in reached and module not in ("edgetrack.cli.device", "edgetrack.cli.complete"):
            reached.add(module)
            open_ += imports[module]
    assert len(reached) <= most


TARGET_ROOMS = ("capabilities.py", "runtime/backends/", "exporting/targets/")
TARGET_NAMED = {
    # PyTorch is what trains, whatever target a tracker is exported to afterwards.
    "cli/train.py": {"torch"},
    "training/run.py": {"torch"},
    # What JetPack brings is asked for by the name of its module.
    "system/jetpack.py": {"tensorrt"},
    # Every export starts from PyTorch or from ONNX files, and records the versions of both packages.
    "exporting/pipeline.py": {"torch", "onnx", "onnxruntime"},
}


def test_no_file_outside_the_targets_rooms_names_a_target() -> None:
    # The alias `engine` is a word of its own, such as for what computes a roofline.
    names = {name for target in TARGETS for name in (target.name, *target.aliases)} - {"engine"}
    modules = re.compile(r"edgetrack\.(runtime\.backends|exporting\.targets)\.(?!(base|layers)\b)\w+")
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(TARGET_ROOMS):
            named = names & _strings(path) | {match[0] for match in modules.finditer(path.read_text("utf-8"))}
            if named:
                found[place] = named
    assert found == TARGET_NAMED


def test_every_target_of_the_table_has_its_files() -> None:
    for target in TARGETS:
        module, _, _ = target.backend.partition(":")
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").name == "backend.py"
        if target.exporter is not None:
            assert (PACKAGE / "exporting" / "targets" / f"{target.name}.py").is_file()


def test_wheel_carries_the_data_and_no_tests(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    for recipe in recipe_names():
        assert f"edgetrack/_data/export_recipes/{recipe}.toml" in names
    assert "edgetrack/py.typed" in names
    assert not [n for n in names if n.startswith("tests/")]
    # Weights have other terms than the code and a package of their own.
    assert not [n for n in names if n.endswith((".safetensors", ".pth", ".tar", ".onnx"))]
    assert [n.rpartition("/")[2] for n in names if "/licenses/" in n] == ["LICENSE"]
    assert wheel.stat().st_size < 1 << 20
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    wanted = re.findall(
        r"^Requires-Dist: (opencv[\w-]*).*?(?:; extra == '(\w+)')?$", archive.read(metadata).decode(), re.M
    )
    # Each in an extra of its own, so that pip installs none over another.
    assert sorted(wanted) == [
        ("opencv-python", "dev"),
        ("opencv-python", "opencv"),
        ("opencv-python-headless", "headless"),
    ]


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_take_actions_by_hash_and_packages_by_constraint(workflow: Path) -> None:
    text = workflow.read_text("utf-8")
    for action in re.findall(r"uses: *(\S+)", text):
        assert action.startswith("./") or re.search(r"@[0-9a-f]{40}$", action), action
    assert "INDEX_URL" not in text
    for command in re.findall(r"pip\S* install[^\n]*(?:\\\n[^\n]*)*", text):
        assert "--constraint" in command or "--resolution" in command or "--no-deps" in command, command
