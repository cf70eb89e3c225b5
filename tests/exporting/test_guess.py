"""Public files by their signatures: the family that they suggest, and a recipe that is one."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import UsageError
from edgetrack.exporting.guess import FileSignature, FileTensor, guess, recipe_text
from edgetrack.exporting.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def file(name: str, inputs: dict[str, tuple[object, ...]], outputs: dict[str, tuple[object, ...]]) -> FileSignature:
    sides = (
        tuple(FileTensor(n, "bool" if n.startswith("mask") else "float32", shape) for n, shape in side.items())
        for side in (inputs, outputs)
    )
    return FileSignature(Path(f"{name}.onnx"), 13, *sides)


def maps(cells: int, *names: str) -> dict[str, tuple[object, ...]]:
    return dict(zip(names, ((1, 1, cells, cells), (1, 2, cells, cells), (1, 2, cells, cells)), strict=True))


OSTRACK = file(
    "ostrack", {"z": (1, 3, 128, 128), "x": (1, 3, 256, 256)}, maps(16, "score_map", "size_map", "offset_map")
)
MIXFORMER = file(
    "mixformer",
    {"img_t": (1, 3, 112, 112), "img_ot": (1, 3, 112, 112), "img_search": (1, 3, 224, 224)},
    {"pred_boxes": (1, 1, 4), "pred_scores": (1,)},
)
HIT = file("hit", {"search": (1, 3, 256, 256), "template": (1, 3, 128, 128)}, {"outputs_coord_new": (1, 1, 4)})
SUTRACK = file(
    "sutrack",
    {"template": (1, 2, 6, 112, 112), "search": (1, 1, 6, 224, 224), "template_anno": (1, 2, 4)},
    maps(14, "a", "b", "c"),
)
STARK = file(
    "stark", {"img_x": (1, 3, 320, 320), "mask_x": (1, 320, 320), "img_z": (1, 3, 128, 128)}, {"coord": (1, 4)}
)
OPEN = file("open", {"z": ("n", 3, "h", "w"), "x": ("n", 3, "h2", "w2")}, maps(16, "score", "size", "offset"))


@pytest.mark.parametrize(
    ("signature", "family", "roles"),
    [
        (OSTRACK, "center", {"template": "z", "search": "x", "score": "score_map", "size": "size_map"}),
        (MIXFORMER, "box", {"template": "img_t", "online_template": "img_ot", "search": "img_search"}),
        (HIT, "box", {"template": "template", "search": "search", "box": "outputs_coord_new"}),
        (SUTRACK, "center", {"templates": "template", "search": "search", "target_box": "template_anno", "size": "b"}),
        (STARK, "box", {"template": "img_z", "search": "img_x", "search_mask": "mask_x", "box": "coord"}),
        (OPEN, "center", {"template": "z", "search": "x"}),
    ],
)
def test_public_files_are_recognised(signature: FileSignature, family: str, roles: dict[str, str]) -> None:
    found = guess([signature])
    assert found.family == family
    stem = signature.path.stem
    named = {role: tensor.name for role, tensor in (found.inputs[stem] | found.outputs[stem]).items()}
    assert named.items() >= roles.items()
    recipe = msgspec.convert(tomllib.loads(recipe_text("mine", [signature])), Recipe)
    assert recipe.family == family
    assert {given_.source for given_ in recipe.given["step"].inputs.values()} >= set(roles.values()) & {
        t.name for t in signature.inputs
    }


BACKBONE = file("backbone", {"input": (1, 3, 255, 255)}, {"output": (1, 48, 16, 16)})
HEAD = file(
    "head",
    {"input1": (1, 48, 8, 8), "input2": (1, 48, 16, 16)},
    {"output1": (1, 2, 16, 16), "output2": (1, 4, 16, 16)},
)


def test_backbone_and_head_are_joined() -> None:
    recipe = msgspec.convert(tomllib.loads(recipe_text("mine", [BACKBONE, HEAD])), Recipe)
    assert recipe.family == "distances"
    assert recipe.given["template"].inputs["template"].reshape
    assert recipe.given["step"].files == ("backbone", "head")
    assert recipe.given["step"].links == {"head/input2": "backbone/output"}
    assert recipe.given["step"].outputs["score"].activation == "softmax"


def test_template_graph_feeds_the_other_one() -> None:
    template = file("t", {"z": (1, 3, 127, 127)}, {"zf": (1, 96, 8, 8)})
    step = file("s", {"zf": (1, 96, 8, 8), "x": (1, 3, 255, 255)}, {"cls": (1, 1, 16, 16), "reg": (1, 4, 16, 16)})
    recipe = msgspec.convert(tomllib.loads(recipe_text("mine", [template, step])), Recipe)
    assert set(recipe.given) == {"template", "step"}
    assert recipe.given["step"].inputs["zf"].source == "zf"
    assert recipe.given["template"].outputs["zf"].source == "zf"
    assert recipe.procedure["template_size"] == 127


def test_what_looks_like_no_family_says_what_it_has() -> None:
    with pytest.raises(UsageError, match=r'suggest none of the families center, box, distances .x\.onnx: "f" float32'):
        recipe_text("mine", [file("x", {"x": (1, 3, 64, 64)}, {"f": (1, 1000)})])
    with pytest.raises(UsageError, match="look like family 'box', not 'center'"):
        recipe_text("mine", [HIT], "center")


@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=5, max_size=5, unique=True
    )
)
def test_any_names_give_a_recipe(names: list[str]) -> None:
    z, x, *outputs = names
    signature = file("file", {z: (1, 3, 128, 128), x: (1, 3, 256, 256)}, maps(16, *outputs))
    recipe = msgspec.convert(tomllib.loads(recipe_text("mine", [signature])), Recipe)
    sources = {item.source for side in (recipe.inputs, recipe.outputs) for item in side.values()}
    assert sources <= set(names)
