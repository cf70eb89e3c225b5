from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgetrack.bundle import find_bundles
from edgetrack.errors import UsageError


def test_sound_and_broken_bundles_are_listed(bundle: Path, packed: Path, tmp_path: Path, tools: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(bundle, out / "b-sound")
    shutil.copy(packed, out / "c-packed.zip")
    shutil.copytree(bundle, out / "a-broken")
    (out / "a-broken" / "template.xml").unlink()
    (out / "d-not.zip").write_text("x")
    (out / "e-empty").mkdir()
    (out / "e-empty" / "manifest.json").write_text("{}")
    shutil.copytree(bundle, out / ".b-sound.1-0.partial")
    (out / "data").mkdir()
    (out / "notes.txt").write_text("")
    os.mkfifo(out / "pipe.zip")
    (out / "loop.zip").symlink_to("loop.zip")

    broken, sound, zipped, no_zip, empty = find_bundles(out)
    assert [sound.path, zipped.path] == [out / "b-sound", out / "c-packed.zip"]
    for found in (sound, zipped):
        assert found.error is None
        assert found.manifest is not None
        assert found.manifest.tracker == "smat"
    assert sound.size_bytes == sum(map(len, tools.contents(bundle).values()))
    assert zipped.size_bytes == packed.stat().st_size
    for found, message in ((broken, "template.xml"), (no_zip, "cannot be read as a zip"), (empty, "not one of schema")):
        assert found.manifest is None
        assert message in str(found.error)
    assert no_zip.size_bytes == 1


def test_hashes_are_not_checked(bundle: Path) -> None:
    (bundle / "parity.json").write_text('{"max_abs": 0.1}')
    assert [found.error for found in find_bundles(bundle.parent)] == [None]


def test_a_bundle_lists_itself(bundle: Path) -> None:
    assert [found.path for found in find_bundles(bundle)] == [bundle]


def test_a_linked_bundle_is_listed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "linked").symlink_to(bundle)
    assert [found.error for found in find_bundles(tmp_path / "links")] == [None]


def test_folders_without_bundles(tmp_path: Path) -> None:
    assert find_bundles(tmp_path) == []
    assert find_bundles(tmp_path / "absent") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be listed"):
        find_bundles(tmp_path / "file")
