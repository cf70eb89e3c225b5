"""A bundle's label and hint, and what bundles of one name are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.bundle.reader import BundleRef, bundle_label, path_aliases, split_label
from tests.builders import scripted_manifest


@pytest.mark.parametrize("hint", [None, "bf16"])
def test_a_label_is_read_as_it_is_written(hint: str | None) -> None:
    assert split_label(bundle_label("smat-openvino-fp32", hint)) == ("smat-openvino-fp32", hint, None)
    manifest = scripted_manifest()
    assert BundleRef(Path("x"), manifest, hint).label == bundle_label(manifest.name, hint)
    assert BundleRef(Path("x"), manifest, hint, "other").label == bundle_label("other", hint)


def test_a_path_that_exists_is_taken_with_its_at_sign(tmp_path: Path) -> None:
    folder = tmp_path / "odd@bf16"
    assert split_label(str(folder)) == (str(tmp_path / "odd"), "bf16", None)
    folder.mkdir()
    assert split_label(str(folder)) == (str(folder), None, None)


@pytest.mark.parametrize("text", ["a@bf16@cuda:0", "a@cuda:0@bf16"])
def test_a_label_may_name_a_device_too(text: str) -> None:
    assert split_label(text) == ("a", "bf16", "cuda:0")
    assert split_label("a@cpu") == ("a", None, "cpu")
    assert split_label("a@bf16@fp16") == ("a@bf16", "fp16", None)


PARTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_aliases_tell_all_different_places_apart(places: list[list[str]]) -> None:
    paths = [Path("/nowhere", *place) for place in places]
    aliases = path_aliases([("same", path) for path in paths])
    assert len(set(aliases)) == len(set(paths))
    assert all(alias is None or str(path).endswith(alias) for alias, path in zip(aliases, paths, strict=True))
    assert path_aliases([(str(path), path) for path in paths]) == [None] * len(paths)
