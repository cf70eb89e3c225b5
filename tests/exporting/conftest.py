"""A proof that is short, for tests of everything around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetrack.exporting.pipeline import ExportRequest


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that wait for one another on busy cores take many times as long."""
    torch.set_num_threads(1)
    monkeypatch.setattr("edgetrack.exporting.pipeline.usable_cores", lambda: 1)


@pytest.fixture
def short_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of this test are proved on two samples instead of seven."""
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))


@pytest.fixture
def small(tiny_recipe: Callable[..., Path]) -> Callable[..., ExportRequest]:
    """small("onnx", output=...) -> to export SMAT: the same code in a quarter of its width, on small crops."""

    def request(target: str, **changes: Any) -> ExportRequest:
        return ExportRequest(str(tiny_recipe("smat")), target, weights="untrained", **changes)

    return request
