"""The options of a benchmark, put back into arguments: what the device is asked to do is what was typed here."""

from __future__ import annotations

from edgetrack.benchmark.measure import Options
from edgetrack.errors import UsageError

_SCENE = "synthetic:"


def arguments(options: Options, profile: str) -> list[str]:
    """Arguments of `edgetrack bench` on the device, without its bundles, reference and output.

    Args:
        options: what was asked for; `device` is not looked at.
        profile: the device's profile, which the device is told to take itself for.

    Raises:
        UsageError: frames that are on this machine alone.
    """
    if not options.source.startswith(_SCENE):
        raise UsageError(
            f"--source {options.source}: over SSH only built-in scenes are measured on, such as synthetic:drift; to "
            "use a video, copy it to the device and run edgetrack bench there"
        )
    given: dict[str, object] = {
        "--device": profile,
        "--scenario": options.scenario,
        "--fps": options.fps,
        "--streams": options.streams,
        "--threads": options.threads,
        "--warmup": options.warmup_s,
        "--duration": f"{options.duration_s:.9f}".rstrip("0").rstrip("."),
        "--iterations": options.iterations,
        "--rounds": options.rounds,
        "--source": options.source,
        "--box": None if options.box is None else ",".join(repr(float(value)) for value in options.box),
        "--precision-hint": options.hint,
        "--timeout": options.timeout_s,
    }
    # `=` keeps a value that begins with a dash from being taken for an option.
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*words, "--here", *([] if options.with_reference else ["--no-reference"])]
