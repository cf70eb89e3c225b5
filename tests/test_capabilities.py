"""The table of targets: names, packages, what may be asked of which."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

from edgetrack import capabilities
from edgetrack.capabilities import (
    TARGETS,
    Target,
    backend_of,
    best_target,
    find_target,
    full_target,
    open_ref,
    open_refs,
    proof_target,
    reference_target,
    require_precision,
    target_names,
)
from edgetrack.errors import BackendMissingError, UnknownNameError, UsageError
from edgetrack.exporting.targets.base import Exporter, exporter_of
from edgetrack.runtime.backends.base import CompiledGraph
from tests.builders import write_scripted


def test_names_and_aliases_are_unique() -> None:
    names = [name for target in TARGETS for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_row_has_a_backend_and_an_exporter_that_are_there(target: capabilities.Target) -> None:
    assert issubclass(backend_of(target.name), CompiledGraph)
    if target.exporter is not None:
        exporter = exporter_of(target)
        assert issubclass(exporter, Exporter)
        assert set(exporter.calibrated) <= {"fp16", "int8", "int8-bf16"}
    assert target.about


@pytest.mark.parametrize(
    ("given", "name"), [("openvino", "openvino"), ("ov", "openvino"), ("ort", "onnx"), ("pytorch", "torch")]
)
def test_target_is_found_by_name_and_alias(given: str, name: str) -> None:
    assert find_target(given).name == name


@pytest.mark.parametrize("name", ["", "nothing", "OpenVINO"])
def test_unknown_target_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_target(name)
    assert f"target {name!r} is not known" in str(caught.value)
    assert ", ".join(target_names()) in str(caught.value)


def test_scripted_target_is_not_offered() -> None:
    assert "fake" not in target_names()


def test_precision_that_is_only_a_hint_says_so() -> None:
    hinted = dataclasses.replace(find_target("openvino"), precisions=("fp32",))
    require_precision(hinted, "fp32")
    with pytest.raises(UsageError, match="at run time it also takes the hint bf16"):
        require_precision(hinted, "bf16")
    with pytest.raises(UsageError, match="for target 'onnx' the precision 'bf16' is not known") as caught:
        require_precision(find_target("onnx"), "bf16")
    assert "hint" not in str(caught.value)


def test_installed_looks_for_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    target = find_target("openvino")
    assert target.install_command == "pip install 'edgetrack[openvino]'"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not target.installed


def test_best_target_is_the_first_installed_one_but_never_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent: set[str] = set()

    def remove(target: Target) -> None:
        for name in (name for group in target.packages for name in group.split(" | ")):
            absent.add(capabilities._MODULES.get(name, name))

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    first, *others = [t for t in TARGETS if t.exporter is not None and not t.reference]
    assert best_target() is first
    remove(first)
    assert best_target() in others
    for target in others:
        remove(target)
    with pytest.raises(BackendMissingError, match="no target's package is installed; type one of: pip install"):
        best_target()


def test_the_best_target_of_a_device_is_one_whose_package_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: dataclasses.replace(find_target(name), packages=()) for name in ("onnx", "tensorrt")}
    monkeypatch.setattr(capabilities, "TARGETS", tuple(rows.values()))
    lacking = BackendMissingError("has no such provider")

    def refuse(device: str) -> None:
        raise lacking

    monkeypatch.setattr(capabilities.backend_of("onnx"), "require_device_here", refuse)
    assert best_target("cuda:0").name == "tensorrt"
    assert best_target("cpu").name == "onnx"
    monkeypatch.setattr(capabilities, "TARGETS", (rows["onnx"],))
    with pytest.raises(BackendMissingError, match="has no such provider"):
        best_target("cuda:0")


def test_one_of_several_packages_is_enough() -> None:
    target = dataclasses.replace(find_target("onnx"), packages=("nothing_a | json", "msgspec"))
    assert target.installed
    assert list(target.versions()) == ["msgspec"]
    assert not dataclasses.replace(target, packages=("nothing_a | nothing_b",)).installed


def test_every_target_is_proven_by_a_backend_that_computes_its_files() -> None:
    for target in TARGETS:
        assert not proof_target(target.name).proof
        assert bool(target.proof) == bool(target.device_needed)


def test_one_target_is_the_reference() -> None:
    assert [t for t in TARGETS if t.reference] == [reference_target()]


def test_a_bundle_with_and_without_a_hint(tmp_path: Path) -> None:
    folder = write_scripted(tmp_path / "scripted")
    plain = open_ref(str(folder))
    assert (plain.path, plain.hint, plain.label) == (folder, None, plain.manifest.name)
    assert plain.arithmetic == plain.manifest.precision


def test_a_bundle_whose_name_has_an_at_sign_is_opened(tmp_path: Path) -> None:
    renamed = write_scripted(tmp_path / "scripted").rename(tmp_path / "odd@bf16")
    assert open_ref(str(renamed)).hint is None


def test_a_hint_that_the_target_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="precision hint 'fp4' is not known"):
        open_ref(f"{write_scripted(tmp_path / 'scripted')}@fp4")


def test_bundles_of_one_name_are_told_apart_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    renamed = write_scripted(tmp_path / "scripted").rename(tmp_path / "other")
    folder = write_scripted(tmp_path / "scripted")
    plain, other = open_refs([str(folder), str(renamed)])
    assert {plain.label, other.label} == {folder.name, "other"}
    assert [one.alias for one in open_refs([str(folder), str(folder)])] == [None, None]


def test_target_without_fp32_is_made_from_the_bundle_of_another() -> None:
    onnx = find_target("onnx")
    board = dataclasses.replace(onnx, name="board", precisions=("int8",), made_from="onnx")
    assert full_target(board) is onnx
    assert full_target(onnx) is onnx
