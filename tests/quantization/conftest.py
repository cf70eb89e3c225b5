"""What exports and runs of the tracker need in tests of quantization."""

from __future__ import annotations

from tests.evaluation.conftest import plain_dataset, write_images, write_rows
from tests.export.conftest import one_thread, short_proof

__all__ = ["one_thread", "plain_dataset", "short_proof", "write_images", "write_rows"]
