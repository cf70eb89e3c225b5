"""pytest's side: options, and the suite among what is collected. Nothing is imported unless a target is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SUITE = Path(__file__).with_name("suite.py")
RECIPE = Path(__file__).with_name("small.toml")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the suite."""
    group = parser.getgroup("edgetrack", "conformance of targets for edgetrack")
    group.addoption(
        "--edgetrack-target",
        action="append",
        default=[],
        metavar="NAME",
        help="Run the conformance suite on this target. May be repeated.",
    )
    group.addoption(
        "--edgetrack-precision",
        action="append",
        default=[],
        metavar="PRECISION",
        help="Check this precision only. May be repeated. Default: all that the target exports.",
    )
    group.addoption(
        "--edgetrack-tracker",
        default=str(RECIPE),
        metavar="TRACKER",
        help="Tracker to export, a name or a recipe's file, with untrained weights. Default: a small one of the suite.",
    )
    group.addoption(
        "--edgetrack-device",
        default="",
        metavar="DEVICE",
        help="Where bundles are run, as --device takes it. Default: cpu, or the first device of the target.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the suite: beside the files that were named, in place of those that were not.

    Raises:
        pytest.UsageError: there is no such target or precision, or the target is not installed.
    """
    names = config.getoption("--edgetrack-target")
    if names:
        _check(names, config.getoption("--edgetrack-precision"))
        if str(SUITE) not in config.args:
            named = config.args if config.args_source is config.ArgsSource.ARGS else []
            config.args = [*named, str(SUITE)]


def _check(names: list[str], precisions: list[str]) -> None:
    import pytest

    from edgetrack.capabilities import find_target, require_precision
    from edgetrack.errors import EdgetrackError

    try:
        for row in map(find_target, names):
            for precision in precisions:
                require_precision(row, precision)
            if not row.installed:
                raise pytest.UsageError(f"target {row.name!r} is not installed; type: {row.install_command}")
    except EdgetrackError as error:
        raise pytest.UsageError(str(error)) from None
