"""Bundles as commands take them."""

from __future__ import annotations

import pytest

from edgetrack.errors import UsageError
from edgetrack.runtime.named import open_named


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
