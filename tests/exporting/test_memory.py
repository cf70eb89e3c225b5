"""What an export says of memory before it computes anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgetrack.errors import UsageError
from edgetrack.exporting import memory, pipeline
from edgetrack.exporting.memory import BASE_MIB, COPIES, needed_mib, require_memory
from edgetrack.exporting.pipeline import ExportRequest, plan

GIB = 2**30
Machine = Callable[[int, int, int], list[str]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """machine(total, available, swap) in MiB -> what an export of 1 GiB of weights is told there."""

    def ask(total: int | None, available: int | None, swap: int) -> list[str]:
        monkeypatch.setattr(memory, "memory_mib", lambda: (total, available))
        monkeypatch.setattr(memory.psutil, "swap_memory", lambda: SimpleNamespace(total=swap * 2**20))
        told: list[str] = []
        require_memory(GIB, told.append)
        return told

    return ask


def test_the_need_is_that_of_the_copies_that_are_held_at_once() -> None:
    assert needed_mib(GIB) == BASE_MIB + COPIES * 1024
    # SPMTrack's L, measured: 7.8 GiB.
    assert needed_mib(1_524_000_000) == pytest.approx(7.8 * 1024, rel=0.03)


def test_enough_memory_is_not_spoken_of(machine: Machine) -> None:
    assert machine(8000, 7000, 0) == []
    assert machine(None, None, 0) == [], "what is not known is in nobody's way"


def test_too_little_free_memory_is_a_doubt(machine: Machine) -> None:
    (doubt,) = machine(8000, 4096, 0)
    assert doubt == (
        "doubt: 1.0 GiB of weights: about 5.6 GiB of memory are needed, and 4.0 GiB are free; end other programs, or "
        "this one may be killed"
    )


def test_a_machine_that_is_too_small_is_refused_and_swap_counts(machine: Machine) -> None:
    with pytest.raises(
        UsageError, match=r"about 5.6 GiB of memory are needed, and this machine has 4.0 GiB; export on"
    ):
        machine(4096, 4000, 1000)
    assert len(machine(4096, 4000, 2000)) == 1


def test_an_export_asks_before_it_computes(
    small: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = plan(small("onnx"))
    assert 0 < work.weight_bytes < 1_000_000
    monkeypatch.setattr(memory, "memory_mib", lambda: (4096, 4096))
    monkeypatch.setattr(memory.psutil, "swap_memory", lambda: SimpleNamespace(total=0))
    monkeypatch.setattr(pipeline, "_start", None)
    with pytest.raises(UsageError, match=r"this machine has 4\.0 GiB"):
        pipeline.export(replace(work, weight_bytes=50 * GIB))
    assert not work.output.exists()
