"""What exports and runs of the tracker need in tests of quantization."""

from __future__ import annotations

import pytest

from tests.evaluation.conftest import plain_dataset, write_images, write_rows
from tests.exporting.conftest import one_thread, short_proof

__all__ = ["one_thread", "plain_dataset", "short_proof", "write_images", "write_rows"]


@pytest.fixture(autouse=True)
def one_core(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers and proofs of lowered graphs take one thread, too."""
    monkeypatch.setattr("edgetrack.runtime.session.usable_cores", lambda: 1)
    monkeypatch.setattr("edgetrack.quantization.lower.usable_cores", lambda: 1)
