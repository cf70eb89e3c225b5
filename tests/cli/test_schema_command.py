"""The schemas under docs/schemas are those of the code, and another reader of JSON Schema takes and refuses by them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from edgetrack.cli.schema import PLACES, json_schema
from tests.builders import bench_json, scripted_manifest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "schemas"


def _kept(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text("utf-8"))
    return found


def test_every_schema_is_kept_and_no_other() -> None:
    assert sorted(path.stem for path in KEPT.iterdir()) == sorted(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_the_kept_schema_is_the_codes(name: str) -> None:
    made = msgspec.json.decode(msgspec.json.encode(json_schema(name)))
    assert made == _kept(name), f"type: edgetrack schema {name} > docs/schemas/{name}.json"


@pytest.mark.parametrize("name", PLACES)
def test_a_schema_is_one_by_the_standard_and_its_patterns_are_not_pythons(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(_kept(name))
    assert r"\\Z" not in (KEPT / f"{name}.json").read_text("utf-8")


def test_the_command_prints_what_is_kept() -> None:
    done = CliRunner().invoke(app, ["schema", "budget"])
    assert done.stdout == (KEPT / "budget.json").read_text("utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "export_recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text("utf-8")), _kept("recipe"))


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "budgets").glob("*.toml")), ids=lambda path: path.stem)
def test_budgets_are_valid(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text("utf-8")), _kept("budget"))


def _manifest() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(scripted_manifest().to_json())
    return found


def test_a_manifest_and_a_benchmarks_record_are_valid() -> None:
    jsonschema.validate(_manifest(), _kept("manifest"))
    jsonschema.validate(bench_json(("a", None, [[1.0]])), _kept("bench"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("name", "Not a name", "does not match"),
        ("precision", "fp64", "is not one of"),
        ("surplus", 1, "Additional properties are not allowed"),
        ("schema", 2, "is not one of"),
    ],
)
def test_a_manifest_that_edgetrack_refuses_is_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=re.escape(words)):
        jsonschema.validate({**_manifest(), key: value}, _kept("manifest"))
