"""What a Tab offers, asked as bash asks: by the environment of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetrack.bundle import find_bundles
from edgetrack.cli import complete
from tests.builders import write_scripted

PROGRAM = """
import sys
sys.argv = ["edgetrack"]
from edgetrack.cli.main import main
try:
    main()
finally:
    print(*sorted({"torch", "onnx", "openvino", "cv2", "rich"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, another user's device and a data set that the file of defaults leads to."""
    place = tmp_path_factory.mktemp("place")
    write_scripted(place / "out" / "smat-mine")
    (place / "out" / "smat-notes").mkdir()
    (place / "sets" / "otb_Car").mkdir(parents=True)
    (place / "sets" / "otb_notes.txt").touch()
    (place / "edgetrack").mkdir()
    (place / "edgetrack" / "devices.toml").write_text('[jacks]\nhost = "jack.example"\nprofile = "jetson"\n')
    (place / "edgetrack.toml").write_text('data = "sets"\n')
    return place


def _offered(place: Path, *words: str) -> tuple[list[str], str]:
    """What stands in bash's COMPREPLY after these words and a Tab, and which heavy packages were imported."""
    line = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_EDGETRACK_COMPLETE": "complete_bash"}
    environment = {**os.environ, **line, "XDG_CONFIG_HOME": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr.strip()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("export", "sm"), ["smat"]),
        (("train", "dmt"), ["dmtrack"]),
        (("export", "smat", "--target", "op"), ["openvino"]),
        (("export", "smat", "--target", "onnx,op"), ["onnx,openvino"]),
        (("verify", "sm"), ["smat-mine"]),
        (("eval", "smat-mine", "otb"), ["otb_Car"]),
        (("compare", "a", "b", "--dataset", "otb"), ["otb_Car"]),
    ],
    ids=lambda value: "-".join(value),
)
def test_names_that_are_there_are_offered_and_nothing_heavy_is_imported(
    place: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    found, heavy = _offered(place, "edgetrack", *words)
    assert found == expected
    assert heavy == ""


def test_devices_are_profiles_and_the_users_own(place: Path) -> None:
    found, heavy = _offered(place, "edgetrack", "bench", "--device", "j")
    assert {"jetson", "jacks"} <= set(found)
    assert all(name.startswith("j") for name in found)
    assert "torch" not in heavy


def test_scenes_are_data_sets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "synthetic:drift" in complete.datasets("syn")
    assert complete.datasets("synthetic:dr") == ["synthetic:drift"]


def test_what_is_offered_as_a_bundle_is_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert complete.bundles("") == [found.path.name for found in find_bundles(place / "out")]
    assert complete.bundles("out/s") == ["out/smat-mine"]


def test_a_fault_offers_nothing_and_says_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edgetrack").mkdir()
    (tmp_path / "edgetrack" / "devices.toml").write_text("not TOML [")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert complete.devices("c") == []
    assert capfd.readouterr() == ("", "")
    (tmp_path / "edgetrack.toml").write_text("neither [")
    found, _ = _offered(tmp_path, "edgetrack", "export", "sm")
    assert found == ["smat"]
