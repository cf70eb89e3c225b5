"""Stages: expressions for the names of nodes, and what the shipped recipes' ones hold."""

from __future__ import annotations

import re

import onnx
import pytest
import torch

from edgetrack.errors import RecipeError, UnknownNameError
from edgetrack.exporting.recipe import find_recipe, shipped_names
from edgetrack.exporting.stages import check_stages, patterns_of, require_stages
from edgetrack.models.base import make_network
from tests.builders import TINY

STAGES = {"a": ("template:/x/.*", "step:/x/.*"), "b": ("step:/y",)}


def test_patterns_are_those_of_the_graph() -> None:
    assert patterns_of(STAGES, ("a", "b"), "step") == ("/x/.*", "/y")
    assert patterns_of(STAGES, ("a",), "template") == ("/x/.*",)
    assert patterns_of(STAGES, (), "step") == ()
    with pytest.raises(UnknownNameError, match=r"'c' is not known; expected one of: a, b"):
        patterns_of(STAGES, ("c",), "step")


@pytest.mark.parametrize("entry", ["step", "step:", ":x", "step:(", "step:[[x]]"])
def test_entries_that_are_not_graph_and_expression_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="stage 'a'"):
        check_stages({"a": (entry,)})


def test_a_tracker_without_stages_says_so() -> None:
    require_stages(STAGES, "mine")
    with pytest.raises(RecipeError, match=r"'mine' has no \[stages\]"):
        require_stages({}, "mine")


@pytest.mark.parametrize("tracker", shipped_names())
def test_every_stage_names_nodes_and_every_large_node_has_a_stage(tracker: str, exported, exported_tiny) -> None:
    recipe = find_recipe(tracker)
    if not recipe.stages:
        pytest.skip(f"{tracker} has no stages")
    with torch.device("meta"):
        try:
            make_network(recipe.family_name, recipe.configuration)
        except UnknownNameError:
            pytest.skip(f"{tracker} has no network here, only the nodes of the user's ONNX file")
    # The trackers that have a small configuration have the same names of nodes in it.
    bundle = exported_tiny(tracker, "onnx") if tracker in TINY else exported("onnx", tracker=tracker)
    named = dict.fromkeys(recipe.stages, 0)
    for path in bundle.glob("*.onnx"):
        graph = path.stem
        for node in onnx.load(str(path)).graph.node:
            owners = [
                stage
                for stage in recipe.stages
                if any(re.fullmatch(p, node.name) for p in patterns_of(recipe.stages, (stage,), graph))
            ]
            assert owners or node.op_type not in ("Conv", "MatMul", "Gemm"), f"{graph}:{node.name} is in no stage"
            for stage in owners:
                named[stage] += 1
    assert all(named.values()), named
