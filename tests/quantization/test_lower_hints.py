from __future__ import annotations

import pytest

from edgetrack.errors import DeviceUnavailableError
from edgetrack.exporting.pipeline import ExportRequest, plan
from edgetrack.quantization.calibration import DEFAULT, CalibrationSources
from edgetrack.quantization.lower import LoweringRequest
from edgetrack.runtime.backends.openvino.backend import OpenVinoGraph


@pytest.mark.parametrize(("precision", "refused"), [("fp16", False), ("int8", False), ("bf16", True)])
def test_only_what_is_loaded_with_a_hint_needs_the_arithmetic_of_it(monkeypatch, tmp_path, precision, refused):
    """FP16 files are computed in FP32 unless asked otherwise: a processor without half precision makes them, too."""

    def none(hint):
        raise DeviceUnavailableError(f"no {hint}")

    monkeypatch.setattr(OpenVinoGraph, "require_hint", none)
    work = plan(ExportRequest("smat", "openvino", precision, weights="untrained", output=tmp_path / "a"))
    request = LoweringRequest(calibration=CalibrationSources((DEFAULT,)))
    if refused:
        with pytest.raises(DeviceUnavailableError, match="no bf16"):
            request.check(work)
    else:
        request.check(work)
