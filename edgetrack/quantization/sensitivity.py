"""What accuracy control found: what each stage costs in points of AO and brings in milliseconds."""

from __future__ import annotations

import msgspec

from edgetrack.evaluation.protocols.anchored import POINTS, Difference

REPORT_FILE = "sensitivity.json"


class StageFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, kept in FP32 while all others are lowered.

    Attributes:
        stage: its name in the recipe.
        gained: AO of keeping it, against lowering all: above 0 the stage suffers from the lower precision.
        ms: milliseconds a frame that keeping it costs; what lowering it saves.
    """

    stage: str
    gained: Difference
    ms: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an accuracy control, in a bundle as `sensitivity.json`.

    Attributes:
        precision, dataset: what was lowered to, and measured on.
        max_drop: the AO that it may cost, 0..1.
        spacing, length: of the anchored runs.
        first: the lowered bundle against FP32, before any stage was reverted; `last`: as it ships.
        stages: by what keeping each one gains, largest first; empty where nothing had to be found out.
        kept: stages that stay in FP32.
        fp32_ms, first_ms, last_ms: milliseconds of the graphs a frame, medians of one interleaved run.
        hints_ms: the same of FP32 graphs under a run-time hint, such as `bf16`, where the processor has it.
        met: whether `last` costs at most `max_drop`.
        advice: the precision to use, and why.
    """

    schema: int = 1
    precision: str
    dataset: str
    max_drop: float
    spacing: int
    length: int
    first: Difference
    last: Difference
    stages: list[StageFinding]
    kept: list[str]
    fp32_ms: float
    first_ms: float
    last_ms: float
    hints_ms: dict[str, float]
    met: bool
    advice: str


def lines(found: Sensitivity) -> list[str]:
    """The findings for people."""
    said = [
        f"{found.precision} against fp32 on {found.dataset}, runs of {found.length} frames from every "
        f"{found.spacing}th: {found.first.describe()}; {found.first_ms:.2f} against {found.fp32_ms:.2f} ms a frame"
    ]
    if found.stages:
        said.append("stage kept in fp32      AO gained (points)         costs ms")
        for each in found.stages:
            value, low, high = (POINTS * v for v in (each.gained.value, each.gained.low, each.gained.high))
            said.append(f"  {each.stage:<20}{value:+7.2f} ({low:+.2f} to {high:+.2f}){each.ms:12.2f}")
    if found.kept:
        said.append(
            f"kept in fp32: {', '.join(found.kept)}; then {found.last.describe()}; {found.last_ms:.2f} ms a frame"
        )
    return [*said, found.advice]


def markdown(found: Sensitivity) -> str:
    """The same as a Markdown table."""
    head = ["| stage kept in fp32 | AO gained (points) | 95 % interval | costs ms |", "|---|---|---|---|"]
    rows = [
        f"| {each.stage} | {POINTS * each.gained.value:+.2f} | {POINTS * each.gained.low:+.2f} to "
        f"{POINTS * each.gained.high:+.2f} | {each.ms:.2f} |"
        for each in found.stages
    ]
    return "\n".join([*head, *rows])
