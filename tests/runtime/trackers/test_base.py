"""How a procedure is found, and what its settings may be."""

from __future__ import annotations

import pytest

from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError, UnknownNameError
from edgetrack.runtime.trackers.base import find_family, find_procedure, read_settings
from edgetrack.runtime.trackers.center import CenterFamily, CenterSettings
from edgetrack.runtime.trackers.nanotrack import NanoTrackProcedure
from tests.builders import scripted_manifest

SETTINGS = {
    "template_factor": 2.0,
    "template_size": 128,
    "search_factor": 4,
    "search_size": 256,
    "clip_margin": 10.0,
    "lost_below": 0.1,
}


def test_smat_is_found() -> None:
    assert find_family("smat") is CenterFamily


@pytest.mark.parametrize("name", ["nanotrack_v2", "nanotrack_v3", "nanotrack_mine"])
def test_members_of_a_family_share_its_procedure(name: str) -> None:
    assert find_procedure(scripted_manifest(tracker=name, family="nanotrack")) is NanoTrackProcedure


@pytest.mark.parametrize("name", ["nanotrack_v2", "nanotrack_v3"])
def test_bundle_that_names_no_family_is_one_from_before_there_were_any(name: str) -> None:
    manifest = scripted_manifest(tracker=name)
    assert b"family" not in manifest.to_json()
    assert find_procedure(Manifest.from_json(manifest.to_json(), source="old")) is NanoTrackProcedure


@pytest.mark.parametrize("name", ["", "base", "nothing", "smat.x", "../smat", "os", "smat_x", "nanotrack_v9"])
def test_unknown_tracker_is_named(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"tracker {name!r} is not known"):
        find_family(name)


def test_settings_are_read() -> None:
    assert read_settings(SETTINGS, CenterSettings).search_factor == 4.0


@pytest.mark.parametrize(
    "change",
    [
        {"search_size": None},
        {"search_size": 25.5},
        {"search_size": "big"},
        {"colour": 1},
        {"search_size": 0},
        {"search_factor": -4.0},
        {"search_factor": float("nan")},
        {"template_factor": float("inf")},
        {"clip_margin": 0.0},
        {"lost_below": float("nan")},
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="procedure section does not suit CenterSettings"):
        read_settings(SETTINGS | change, CenterSettings)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_must_be_stated(name: str) -> None:
    with pytest.raises(BundleError, match=f"lacks the key '{name}'"):
        read_settings({key: value for key, value in SETTINGS.items() if key != name}, CenterSettings)
