"""What to evaluate and to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetrack.capabilities import open_ref, open_refs
from edgetrack.errors import UsageError
from edgetrack.evaluation import ANCHOR_LENGTH
from edgetrack.evaluation.comparison import CompareConfig
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import POINTS, Anchored
from edgetrack.evaluation.protocols.streaming import Streaming, read_latencies
from edgetrack.evaluation.submission import check_kind
from edgetrack.evaluation.text_noise import TextNoise, with_noise
from edgetrack.requests import folder_or_file
from edgetrack.runtime.prompt import parse_text
from edgetrack.runtime.trackers.base import find_procedure

if TYPE_CHECKING:
    from edgetrack.bundle.reader import BundleRef
    from edgetrack.devices.profiles import DeviceChoice


@dataclass(frozen=True)
class EvalWork:
    """A bundle, how it is evaluated, and the file for the record."""

    ref: BundleRef
    config: EvalConfig
    file: Path | None


def eval_work(
    bundle: str,
    dataset: str,
    choice: DeviceChoice,
    *,
    jobs: int,
    threads: int | None,
    layout: str | None,
    sequences: Sequence[str] | None,
    frames: int | None,
    precision_hint: str | None,
    output: Path | None,
    restart: bool,
    results: tuple[str, Path] | None,
    anchors: int | None,
    anchor_length: int | None,
    fps: float | None,
    latencies: str | None,
    text: Sequence[str],
    text_noise: str | None,
    recover: bool,
    scheduler: str | None,
) -> EvalWork:
    """What to evaluate; see `edgetrack.api.evaluate`."""
    if results is not None:
        check_kind(results[0])
        if frames is not None:
            raise UsageError("--results wants whole sequences; leave --frames out")
    opened = replace(open_dataset(dataset, layout).select(sequences), text=parse_text(text))
    ref = choice.placed(open_ref(bundle if precision_hint is None else f"{bundle}@{precision_hint}"))
    folder, file = folder_or_file(output)
    noise = None
    if text_noise is not None:
        prompt = find_procedure(ref.manifest).prompt_of(ref.manifest)
        opened, noise = with_noise(opened, TextNoise.parse(text_noise), prompt)
    config = EvalConfig(
        dataset=opened,
        jobs=jobs,
        threads=threads,
        frames=frames,
        device=choice.device,
        profile=choice.profile_name,
        output=folder,
        restart=restart,
        anchors=_anchored(anchors, anchor_length),
        streaming=_streaming(fps, latencies, ref),
        text_noise=noise,
        recover="expand" if recover else None,
        scheduler=scheduler,
    )
    return EvalWork(ref, config, file)


def _anchored(spacing: int | None, length: int | None) -> Anchored | None:
    if spacing is not None:
        return Anchored(spacing, ANCHOR_LENGTH if length is None else length)
    if length is not None:
        raise UsageError("--anchor-length is for anchored runs; add --anchors, such as --anchors 25")
    return None


def _streaming(fps: float | None, latencies: str | None, ref: BundleRef) -> Streaming | None:
    if fps is not None:
        task = Streaming(fps)
        return task if latencies is None else replace(task, recorded=read_latencies(latencies, ref.label))
    if latencies is not None:
        raise UsageError("--latencies are for a frame rate; add --fps, such as --fps 30")
    return None


def compare_config(
    a: str,
    b: str,
    choice: DeviceChoice,
    *,
    dataset: str,
    layout: str | None,
    sequences: Sequence[str] | None,
    frames: int | None,
    anchors: int,
    anchor_length: int,
    margin: float,
    jobs: int,
    threads: int | None,
    output: Path | None,
    restart: bool,
) -> CompareConfig:
    """What to compare; `output` is a folder. See `edgetrack.api.compare`."""
    runs = EvalConfig(
        dataset=open_dataset(dataset, layout).select(sequences),
        jobs=jobs,
        threads=threads,
        frames=frames,
        device=choice.device,
        profile=choice.profile_name,
        output=output,
        restart=restart,
        anchors=Anchored(anchors, anchor_length),
    )
    one, other = map(choice.placed, open_refs([a, b]))
    return CompareConfig(one, other, runs, margin / POINTS)
