"""How frames arrive: back to back, at a camera's rate, for several trackers at once, or for a long time.

Each scenario is a class in a file of its own. To add one, write its file and name its class in `SCENARIOS`.
"""

from __future__ import annotations

import msgspec

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.scenarios.base import Scenario
from edgetrack.benchmark.scenarios.burst import Burst
from edgetrack.benchmark.scenarios.paced import Paced
from edgetrack.benchmark.scenarios.soak import Soak
from edgetrack.benchmark.scenarios.stream import Stream
from edgetrack.errors import UnknownNameError
from edgetrack.resources import usable_cores

SCENARIOS: dict[str, type[Scenario]] = {scenario.name: scenario for scenario in (Stream, Paced, Burst, Soak)}


def find_scenario(name: str) -> type[Scenario]:
    """The scenario of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SCENARIOS:
        raise UnknownNameError.of("scenario", name, SCENARIOS)
    return SCENARIOS[name]


def scenario_of(config: BenchConfig) -> Scenario:
    """The scenario of a config that `resolve` has returned."""
    return find_scenario(config.scenario)(config)


def resolve(config: BenchConfig) -> BenchConfig:
    """The config with a value for everything that it leaves to its scenario or to the machine.

    Raises:
        DeviceUnavailableError: a device that cannot be measured.
        UsageError: no such scenario, a number outside its range, or one that the scenario has no use for.
    """
    scenario = find_scenario(config.scenario)
    config.check()
    scenario.check(config)
    return msgspec.structs.replace(
        config,
        threads=config.threads or usable_cores(),
        rounds=config.rounds or scenario.default_rounds(config.duration_s),
        fps=config.fps or scenario.default_fps,
        streams=config.streams or scenario.default_streams,
    )
