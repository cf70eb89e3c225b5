"""The options of a benchmark, put back into arguments: what the device is asked to do is what was typed here."""

from __future__ import annotations

from edgetrack.benchmark.config import BenchRequest
from edgetrack.errors import UsageError

_SCENE = "synthetic:"


def arguments(request: BenchRequest, profile: str) -> list[str]:
    """Arguments of `edgetrack bench` on the device, without its bundles, reference and output.

    Args:
        request: what was asked for; its device is replaced by the profile.
        profile: the device's profile, which the device is told to take itself for.

    Raises:
        UsageError: frames that are on this machine alone.
    """
    if not request.source.startswith(_SCENE):
        raise UsageError(
            f"--source {request.source}: over SSH only built-in scenes are measured on, such as synthetic:drift; to "
            "use a video, copy it to the device and run edgetrack bench there"
        )
    config = request.config
    given: dict[str, object] = {
        "--device": profile,
        "--scenario": config.scenario,
        "--fps": config.fps,
        "--streams": config.streams or None,
        "--threads": config.threads or None,
        "--warmup": config.warmup_s,
        "--duration": f"{config.duration_s:.9f}".rstrip("0").rstrip("."),
        "--iterations": config.iterations,
        "--rounds": config.rounds or None,
        "--source": request.source,
        "--box": None if request.box is None else ",".join(repr(float(value)) for value in request.box),
        "--precision-hint": request.hint,
        "--timeout": request.timeout_s,
    }
    # `=` keeps a value that begins with a dash from being taken for an option.
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*words, "--here", *([] if request.with_reference else ["--no-reference"])]
