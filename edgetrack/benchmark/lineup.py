"""Who takes part: the bundles that were asked for, those at hand, or one that is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetrack.benchmark.cautions import Code
from edgetrack.benchmark.record import Caution
from edgetrack.bundle import find_bundles, open_bundle
from edgetrack.bundle.manifest import Manifest
from edgetrack.bundle.ref import BundleRef, path_aliases
from edgetrack.capabilities import Target, find_target, open_ref
from edgetrack.errors import UnknownNameError, UsageError

OUTPUT_FOLDER = Path("out")
Notify = Callable[[str], None]
"""Tells people one line."""
Export = Callable[[str | None, str, Path | None, str | None], Path]
"""Exports a tracker to a target, into a folder, with weights; returns the bundle's path.

None is the default tracker, the folder `./out` and the weights that the tracker is exported with by default.
"""


@dataclass(frozen=True)
class Contestant(BundleRef):
    """A bundle that is measured.

    Attributes:
        reference: the label of its PyTorch reference; its own label where it is one.
        cautions: what is known before anything is measured.
    """

    reference: str | None = None
    cautions: tuple[Caution, ...] = ()

    @classmethod
    def of(cls, ref: BundleRef) -> Contestant:
        """A bundle that was named, without a reference yet."""
        return cls(ref.path, ref.manifest, ref.hint, ref.alias)

    @property
    def size_mb(self) -> float:
        """The bundle's files in MB of 2**20 bytes."""
        return sum(file.size for file in self.manifest.files.values()) / 2**20


def choose(
    given: Sequence[str],
    hint: str | None,
    *,
    export: Export,
    best_target: Callable[[], Target],
    notify: Notify,
    folder: Path = OUTPUT_FOLDER,
    device: str = "cpu",
) -> list[Contestant]:
    """The bundles to measure.

    Args:
        given: bundles, each with an optional `@hint` behind it; none takes those in `folder`, and where there are none
            the default tracker is exported to the best target first.
        hint: is put on each bundle whose target takes it and that has none yet.
        export: makes a bundle.
        best_target: says which target suits this machine.
        notify: is told what was decided without being asked.
        folder: where bundles are looked for.
        device: where they are measured; of those in `folder`, what does not run there is left out.

    Raises:
        UsageError: a hint that no bundle takes, or a bundle that was given twice.
        EdgetrackError: a bundle that cannot be opened or made.
    """
    contestants = [Contestant.of(open_ref(text)) for text in given] or _found(folder, notify, device)
    if not contestants:
        target = best_target().name
        notify(f"no bundle was given and none is in ./{folder}: exporting the default tracker to {target} first")
        contestants = [opened(export(None, target, None, None))]
    if hint is not None:
        contestants = _hinted(contestants, hint, notify)
    aliases = path_aliases([(one.manifest.name, one.path) for one in contestants])
    contestants = [replace(one, alias=alias) for one, alias in zip(contestants, aliases, strict=True)]
    labels = [contestant.label for contestant in contestants]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"{twice[0]} takes part twice; give each bundle once")
    return [with_cautions(contestant) for contestant in contestants]


def opened(path: str | Path) -> Contestant:
    """A bundle as a contestant, without a hint.

    Raises:
        BundleError: it cannot be opened.
    """
    with open_bundle(path) as bundle:
        return Contestant(bundle.source.absolute(), bundle.manifest)


def _found(folder: Path, notify: Notify, device: str) -> list[Contestant]:
    found = []
    for listed in find_bundles(folder):
        if listed.manifest is None:
            notify(f"left out: {listed.error}")
        elif not _runs_on(listed.manifest, device):
            notify(f"left out: {listed.manifest.name} does not run on {device}")
        else:
            found.append(Contestant(listed.path.absolute(), listed.manifest))
    return found


def _runs_on(manifest: Manifest, device: str) -> bool:
    try:
        return find_target(manifest.target).runs_on(device)
    except UnknownNameError:
        return True  # its own process says what is wrong with it


def _hinted(contestants: list[Contestant], hint: str, notify: Notify) -> list[Contestant]:
    able = [hint in find_target(contestant.manifest.target).hints for contestant in contestants]
    if not any(able):
        raise UsageError(f"none of the bundles takes the precision hint {hint!r}")
    hinted = []
    for contestant, can in zip(contestants, able, strict=True):
        if not can:
            notify(f"{contestant.label} takes no hint {hint!r}: it is measured as exported")
        hinted.append(replace(contestant, hint=hint) if can and contestant.hint is None else contestant)
    return hinted


def with_cautions(contestant: Contestant) -> Contestant:
    """The contestant, with the warnings that its manifest calls for."""
    if contestant.manifest.weights.origin != "untrained":
        return contestant
    caution = Code.UNTRAINED_WEIGHTS.caution("the weights are random")
    return replace(contestant, cautions=(*contestant.cautions, caution))
