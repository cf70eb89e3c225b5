"""Bundles as commands take them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import UsageError
from edgetrack.runtime.named import open_named, open_together, tell_apart


def test_a_bundle_with_and_without_a_hint(scripted) -> None:
    folder = scripted()
    plain = open_named(str(folder))
    assert (plain.path, plain.hint, plain.label) == (folder, None, plain.manifest.name)
    assert plain.arithmetic == plain.manifest.precision


def test_a_path_that_exists_is_taken_with_its_at_sign(scripted) -> None:
    folder = scripted()
    renamed = folder.rename(folder.with_name("odd@bf16"))
    assert open_named(str(renamed)).hint is None


def test_a_hint_that_the_target_does_not_take_is_refused(scripted) -> None:
    with pytest.raises(UsageError, match="takes no precision hint 'fp4'"):
        open_named(f"{scripted()}@fp4")


def test_bundles_of_one_name_are_told_apart_by_the_ends_of_their_paths(scripted) -> None:
    renamed = scripted()
    renamed = renamed.rename(renamed.with_name("other"))
    folder = scripted()
    plain, other = open_together([str(folder), str(renamed)])
    assert {plain.label, other.label} == {folder.name, "other"}
    assert [one.alias for one in open_together([str(folder), str(folder)])] == [None, None]


PARTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_aliases_tell_all_different_places_apart(places: list[list[str]]) -> None:
    paths = [Path("/nowhere", *place) for place in places]
    aliases = tell_apart([("same", path) for path in paths])
    assert len(set(aliases)) == len(set(paths))
    assert all(alias is None or str(path).endswith(alias) for alias, path in zip(aliases, paths, strict=True))
    assert tell_apart([(str(path), path) for path in paths]) == [None] * len(paths)
