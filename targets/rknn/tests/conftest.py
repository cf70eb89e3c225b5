"""The package as it is installed, and the toolkit's environment where it is set up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
# The package, and what these tests share.
sys.path[:0] = [str(folder) for folder in (PACKAGE, PACKAGE / "tests") if str(folder) not in sys.path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for PYTHONPATH that holds the package's metadata, as an installer leaves it."""
    site = tmp_path / "site"
    info = site / "edgetrack_rknn-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgetrack-rknn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgetrack.targets]\nrknn = edgetrack_rknn:TARGET\n")
    (site / "edgetrack_rknn").symlink_to(PACKAGE / "edgetrack_rknn")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture(scope="session")
def toolkit() -> None:
    """The environment of rknn-toolkit2; whoever asks for it is skipped where it is not set up."""
    from edgetrack_rknn import ENVIRONMENT

    from edgetrack.environments.setup import state_of

    state = state_of(ENVIRONMENT)
    if not state.ready:
        pytest.skip(f"rknn-toolkit2's environment is {state}: edgetrack target setup rknn --yes")
