from __future__ import annotations

from dataclasses import replace

import pytest

from edgetrack.capabilities import find_target
from edgetrack.runtime.found import FoundHere, find_here


@pytest.mark.full
def test_a_package_is_asked_in_a_process_of_its_own():
    found = find_here([find_target("openvino"), replace(find_target("fake"), packages=("no-such-package",))])
    assert found.keys() == {"openvino"}
    assert "cpu" in found["openvino"].devices
    assert found["openvino"].problem is None


def test_one_that_finds_nothing_says_so():
    assert find_here([find_target("fake")]) == {"fake": FoundHere()}
