from __future__ import annotations

import msgspec
import pytest

from edgetrack.benchmark.config import SourceNote
from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.gate.evidence import conditions_of, differences, require_comparable
from edgetrack.system.machine import Gpu, MachineRecord

MACHINE = MachineRecord(
    os="Debian 12",
    kernel="6.1",
    architecture="x86_64",
    python="CPython 3.11.7",
    cpu_model="a processor",
    usable_cores=2,
    packages={"numpy": "2.3.5", "edgetrack": "0.1.0", "torch": "2.13.0"},
)
SOURCE = SourceNote(spec="synthetic:drift", size=(96, 64), box=Box(1, 2, 3, 4), camera="decoded")
GIVEN = {
    "tracker": "smat",
    "device": "cpu",
    "threads": 2,
    "scenario": "stream",
    "source": SOURCE,
    "versions": {"openvino": "2026.4.1"},
}


def seen(machine=None, **changes):
    return conditions_of(msgspec.structs.replace(MACHINE, **(machine or {})), **{**GIVEN, **changes})


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"machine": {"cpu_model": "another"}}, "machine: cpu_model"),
        ({"machine": {"usable_cores": 4}}, "machine: usable_cores"),
        ({"machine": {"cpu_flags": ("avx2",)}}, "machine: cpu_flags"),
        ({"machine": {"governor": "powersave"}}, "machine: governor"),
        ({"machine": {"max_mhz": 3000.0}}, "machine: max_mhz"),
        ({"machine": {"gpus": (Gpu("a card", None, None),)}}, "machine: gpus"),
        ({"machine": {"python": "CPython 3.12.1"}}, "machine: python"),
        ({"machine": {"packages": {"numpy": "2.4.0"}}}, "version: numpy"),
        ({"versions": {"openvino": "2026.5.0"}}, "version: openvino"),
        ({"versions": {}}, "version: openvino"),
        ({"threads": 1}, "threads"),
        ({"device": "cuda:0"}, "device"),
        ({"scenario": "paced"}, "scenario"),
        ({"source": msgspec.structs.replace(SOURCE, spec="clip.mp4")}, "frames"),
        ({"source": msgspec.structs.replace(SOURCE, size=(1280, 720))}, "frames"),
        ({"source": msgspec.structs.replace(SOURCE, box=Box(1, 2, 3, 5))}, "box"),
        ({"tracker": "another"}, "tracker"),
    ],
)
def test_each_of_these_makes_two_measurements_incomparable(changed, name):
    (line,) = differences(seen(), seen(**changed))
    assert line.startswith(f"{name}: ")
    with pytest.raises(UsageError, match=f"(?s){name}.*--force"):
        require_comparable([line], force=False)
    require_comparable([line], force=True)


@pytest.mark.parametrize(
    "moment",
    [
        {"load_average": (9.0, 9.0, 9.0)},
        {"current_mhz": 2000.0},
        {"memory_available_mib": 100},
        {"packages": {"numpy": "2.3.5", "edgetrack": "0.2.0"}},
    ],
)
def test_what_changes_by_the_minute_or_is_itself_compared_does_not(moment):
    assert differences(seen(), seen(machine=moment)) == []
