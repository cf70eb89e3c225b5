"""The plug-in costs nothing where no target is named, and brings the suite where one is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetrack.conformance.plugin import RECIPE, SUITE, pytest_configure
from tests.pages import ROOT

HEAVY = ("numpy", "msgspec", "torch", "psutil", "typer", "edgetrack.capabilities", "edgetrack.conformance.suite")


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "-p", "edgetrack.conformance.plugin", "-p", "no:edgetrack", "-q"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


PROGRAM = f"""
import sys, pytest
code = pytest.main(sys.argv[1:])
print("imported:", [name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    return tmp_path


def test_nothing_is_imported_where_no_target_is_named(folder: Path) -> None:
    done = pytest_in(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "imported: []" in done.stdout


def configured(target: str, source: pytest.Config.ArgsSource, precision: str = "fp32") -> list[str]:
    """What is collected."""
    options = {"--edgetrack-target": [target], "--edgetrack-precision": [precision]}
    config = SimpleNamespace(
        args=["tests"], args_source=source, ArgsSource=pytest.Config.ArgsSource, getoption=options.get
    )
    for _ in range(2):  # as where xdist hands the arguments on
        pytest_configure(config)  # type: ignore[arg-type]
    return config.args


def test_the_suite_is_collected_in_place_of_nothing_and_beside_what_is_named() -> None:
    assert configured("fake", pytest.Config.ArgsSource.ARGS) == ["tests", str(SUITE)]
    for source in (pytest.Config.ArgsSource.TESTPATHS, pytest.Config.ArgsSource.INVOCATION_DIR):
        assert configured("fake", source) == [str(SUITE)]


@pytest.mark.full
def test_a_check_for_each_precision_is_collected(folder: Path) -> None:
    done = pytest_in(folder, "--edgetrack-target=fake", "--collect-only", "test_own.py")
    assert "test_own.py::test_own" in done.stdout, done.stdout + done.stderr
    assert "test_bench_measures_it[fake-fp32]" in done.stdout


def test_names_that_are_none_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = pytest_in(folder, "--edgetrack-target=nothing")
    assert (done.returncode, "target 'nothing' is not known" in done.stderr) == (pytest.ExitCode.USAGE_ERROR, True)
    with pytest.raises(pytest.UsageError, match="'fp7' is not known; expected one of: fp32"):
        configured("fake", pytest.Config.ArgsSource.ARGS, "fp7")
    about = folder / "lacking-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lacking\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[edgetrack.targets]\nlacking = lacking_row:ROW\n")
    (folder / "lacking_row.py").write_text(
        "from edgetrack.capabilities import Target\n"
        "ROW = Target('lacking', 'x:X', None, ('no-such-package',), '', ('fp32',), 'lacking')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(pytest.UsageError, match="'lacking' is not installed; type: pip install no-such-package"):
        configured("lacking", pytest.Config.ArgsSource.ARGS)


def test_what_it_needs_is_in_the_package() -> None:
    assert SUITE.is_file()
    assert RECIPE.is_file()
