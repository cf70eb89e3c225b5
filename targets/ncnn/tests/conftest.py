"""The package as it is installed; ncnn and pnnx where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(folder) for folder in (PACKAGE,) if str(folder) not in sys.path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path that holds the package's metadata, as an installer leaves it."""
    site = tmp_path / "site"
    info = site / "edgetrack_ncnn-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgetrack-ncnn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgetrack.targets]\nncnn = edgetrack_ncnn:TARGET\n")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture(scope="session")
def engine() -> None:
    """ncnn and pnnx; whoever asks for them is skipped where they are not installed."""
    for name in ("ncnn", "pnnx"):
        if __import__("importlib.util").util.find_spec(name) is None:
            pytest.skip(f"{name.upper()} ABSENT: pip install ncnn pnnx")
