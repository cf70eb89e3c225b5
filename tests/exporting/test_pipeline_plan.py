"""What `plan` resolves, and what it refuses before anything is computed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgetrack.bundle.manifest import bundle_name
from edgetrack.errors import BackendMissingError, RecipeError, UnknownNameError, UsageError
from edgetrack.exporting.pipeline import ExportRequest, plan
from edgetrack.exporting.recipe import find_recipe, recipe_names
from tests.builders import as_toml


def test_names_and_defaults_are_resolved_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    work = plan(ExportRequest("smat", "ov"))
    assert (work.name, work.target.name, work.output) == (
        "smat-openvino-fp32",
        "openvino",
        Path("out/smat-openvino-fp32"),
    )
    assert work.tolerance == work.recipe.tolerance("fp32")
    assert not any(tmp_path.iterdir())


def test_given_values_win(tmp_path: Path) -> None:
    work = plan(ExportRequest("smat", "onnx", output=tmp_path / "b", atol=0.5, rtol=0.0))
    assert work.output == tmp_path / "b"
    assert (work.tolerance.atol, work.tolerance.rtol) == (0.5, 0.0)


def test_values_given_for_a_lower_precision_are_its_own(tmp_path: Path) -> None:
    """`--atol` with `--precision int8` did nothing to INT8's comparison, and loosened FP32's."""
    work = plan(ExportRequest("smat", "onnx", "int8", output=tmp_path / "b", atol=0.5))
    assert work.tolerance == work.recipe.tolerance("fp32")
    assert work.allowed == msgspec.structs.replace(work.recipe.tolerance("int8"), atol=0.5)


@pytest.mark.parametrize("kept", ["atol", "rtol"])
def test_one_given_tolerance_leaves_the_other_to_the_recipe(kept: str) -> None:
    given = {"atol": 0.5, "rtol": 0.5}
    del given[kept]
    work = plan(ExportRequest("smat", "onnx", **given))
    assert getattr(work.tolerance, kept) == getattr(work.recipe.tolerance("fp32"), kept)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tracker": "nothing"}, UnknownNameError, r"tracker 'nothing' is not known; expected one of: .*smat"),
        ({"tracker": "absent.toml"}, RecipeError, "cannot be read"),
        ({"target": "nothing"}, UnknownNameError, "target 'nothing' is not known; expected one of: .*openvino.*onnx"),
        ({"target": "fake"}, UsageError, "nothing is exported to target 'fake'"),
        (
            {"precision": "int4"},
            UsageError,
            r"for target 'onnx' the precision 'int4' is not known.*; expected one of: fp32",
        ),
        ({"opset": 16}, UsageError, "opset 16 is not supported; expected 17 or 18"),
        ({"opset": 19}, UsageError, "opset 19"),
        ({"atol": -1.0}, UsageError, "--atol is -1.0; expected a finite number"),
        ({"atol": float("nan")}, UsageError, "--atol is nan"),
        ({"rtol": float("inf")}, UsageError, "--rtol is inf"),
    ],
)
def test_what_cannot_be_exported_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    request = ExportRequest(**({"tracker": "smat", "target": "onnx"} | change))
    with pytest.raises(error, match=words) as caught:
        plan(request)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("torch", r"exporting needs torch, which is not installed; type: pip install 'edgetrack\[export\]'"),
        ("onnx", r"exporting needs onnx, which is not installed; type: pip install 'edgetrack\[export\]'"),
        ("safetensors", "exporting needs safetensors"),
        ("openvino", r"target 'openvino' needs its package; .*'edgetrack\[openvino\]'"),
    ],
)
def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, missing: str, words: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    with pytest.raises(BackendMissingError, match=words) as caught:
        plan(ExportRequest("smat", "openvino"))
    assert caught.value.exit_code == 3


def test_overrides_stand_in_the_name_and_the_recipe() -> None:
    work = plan(ExportRequest("dastm", "onnx", overrides=("gate=hard", "temperature=0.5")))
    assert work.name == "dastm-gate-hard-temperature-0-5-onnx-fp32"
    assert work.output == Path("out") / work.name
    assert work.overrides == {"gate": "hard", "temperature": 0.5}
    assert work.recipe.configuration["gate"] == "hard"
    assert plan(ExportRequest("dastm", "onnx", overrides=("gate=soft",))).name == "dastm-onnx-fp32"


@pytest.mark.parametrize(
    ("tracker", "section", "key", "value", "words"),
    [
        ("spmtrack_b", "procedure", "schedule", "uniform:1", "expected one of always as many entries, fixed or spread"),
        ("spmtrack_b", "procedure", "schedule", "fixed:2", r"graph 'step'|do not suit"),
        ("spmtrack_b", "procedure", "template_size", 200, "template_size 200 is no multiple of cell"),
        ("dastm", "procedure", "memory", "forever", "expected exact"),
        ("nanotrack_v2", "procedure", "cells", 16, "do not suit each other"),
        ("smat", "training", "backbone", "spine.", r"\[training\] backbone 'spine\.' begins no name"),
        ("smat", "training", "schedules", {}, "schedules"),
        (
            "smat",
            "stages",
            "first",
            ("stpe:.*",),
            r"\[stages\] first names graph stpe; expected one of template, step",
        ),
        ("smat", "keep", "int9", (), r"\[keep\] has 'int9'; expected one of bf16, fp16, fp32, int8"),
        ("smat", "parity", "fp33", {"atol": 1.0}, r"\[parity\] has 'fp33'; expected one of"),
    ],
)
def test_a_plan_holds_every_section_against_the_family(
    tmp_path: Path, tracker: str, section: str, key: str, value: object, words: str
) -> None:
    tables = msgspec.to_builtins(find_recipe(tracker))
    tables[section] = {**tables[section], key: value}
    path = tmp_path / "mine.toml"
    path.write_text(as_toml(tables))
    with pytest.raises(RecipeError, match=words):
        plan(ExportRequest(str(path), "onnx"))


@pytest.mark.parametrize("tracker", [name for name in recipe_names() if not find_recipe(name).given])
def test_every_recipe_suits_its_family(tracker: str) -> None:
    assert plan(ExportRequest(tracker, "onnx")).recipe.name == tracker


def test_a_long_name_is_told_by_a_hash() -> None:
    long = {"configuration_of_a_long_name": "with a long value, and more of it"}
    one, other = (bundle_name("dastm", {**long, "n": n}, "openvino", "fp32") for n in (1, 2))
    assert re.fullmatch("dastm-[0-9a-f]{8}-openvino-fp32", one)
    assert one != other


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("temperature=-1", "temperature is -1.0, expected a number above 0; correct --set"),
        ("memory=forever", "--set gives tracker 'dastm' a value that it does not take: .*expected exact"),
    ],
)
def test_the_family_judges_overrides(setting: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(ExportRequest("dastm", "onnx", overrides=(setting,)))
