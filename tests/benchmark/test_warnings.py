from __future__ import annotations

import msgspec
import pytest

from edgetrack.benchmark.warnings import WarningCode, of_machine
from tests.benchmark.conftest import MACHINE


@pytest.mark.parametrize(
    ("changes", "threads", "code"),
    [
        ({"load_average": (1.5, 0.0, 0.0)}, 2, "busy-machine"),
        ({"governor": "performance, powersave"}, 2, "governor"),
        ({}, 3, "too-many-threads"),
        ({"load_average": (0.9, 9.0, 9.0), "governor": "performance"}, 2, None),
        ({"usable_cores": None, "load_average": None}, 99, None),
    ],
)
def test_what_the_machine_warns_of(changes, threads, code):
    found = [c.code for c in of_machine(msgspec.structs.replace(MACHINE, **changes), threads)]
    assert found == ([code] if code else [])


def test_codes_are_what_scripts_know_and_each_has_its_own_advice():
    made = {code.warning("a case") for code in WarningCode}
    assert {warning.code for warning in made} == {
        "few-samples", "noisy", "busy-machine", "governor", "too-many-threads", "untrained-weights",
        "reference-weights-differ", "no-reference", "no-roofline", "gpu-shared", "no-gpu-memory", "never-rested",
        "throttled", "clock-changed", "clock-below-profile", "power-mode", "clocks-not-fixed", "telemetry-missing",
        "deadlines-missed", "memory-grows",
    }  # fmt: skip
    assert {warning.detail for warning in made} == {"a case"}
    assert len({warning.advice for warning in made}) == len(WarningCode)
