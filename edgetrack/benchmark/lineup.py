"""Who takes part: the bundles that were asked for, and the PyTorch reference of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetrack.benchmark.cautions import Code
from edgetrack.benchmark.record import Caution
from edgetrack.bundle import ListedBundle, find_bundles, open_bundle
from edgetrack.bundle.manifest import Manifest
from edgetrack.capabilities import Target, find_target
from edgetrack.errors import EdgetrackError, UsageError

OUTPUT_FOLDER = Path("out")
Notify = Callable[[str], None]
"""Tells people one line."""
Export = Callable[[str | None, str, Path | None], Path]
"""Exports a tracker (None: the default one) with untrained weights to a target, into a folder (None: `./out`).

Returns the bundle's path.
"""


@dataclass(frozen=True)
class Contestant:
    """A bundle that is measured.

    Attributes:
        path: as `edgetrack.load` takes it.
        manifest: what the bundle says of itself.
        hint: the precision hint that it is loaded with.
        reference: the label of its PyTorch reference; its own label where it is one.
        cautions: what is known before anything is measured.
    """

    path: Path
    manifest: Manifest
    hint: str | None = None
    reference: str | None = None
    cautions: tuple[Caution, ...] = ()

    @property
    def label(self) -> str:
        """The bundle's name, with its hint where it has one."""
        return self.manifest.name if self.hint is None else f"{self.manifest.name}@{self.hint}"

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in."""
        return self.hint or self.manifest.precision

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

    Raises:
        UsageError: a hint that no bundle takes, or a bundle that was given twice.
        EdgetrackError: a bundle that cannot be opened or made.
    """
    contestants = [_given(text) for text in given] or _found(folder, notify)
    if not contestants:
        target = best_target().name
        notify(f"no bundle was given and none is in ./{folder}: exporting the default tracker to {target} first")
        contestants = [_opened(export(None, target, None))]
    if hint is not None:
        contestants = _hinted(contestants, hint, notify)
    labels = [contestant.label for contestant in contestants]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"{twice[0]} takes part twice; give each bundle once, and bundles of different names")
    return [_with_cautions(contestant) for contestant in contestants]


def _given(text: str) -> Contestant:
    path, at, hint = text.rpartition("@")
    if not at or Path(text).exists():
        return _opened(text)
    contestant = _opened(path)
    target = find_target(contestant.manifest.target)
    if hint not in target.hints:
        raise UsageError(
            f"{text}: target {target.name!r} takes no precision hint {hint!r}; "
            f"expected one of: {', '.join(target.hints) or 'none'}"
        )
    return replace(contestant, hint=hint)


def _opened(path: str | Path) -> Contestant:
    bundle = open_bundle(path)
    try:
        return Contestant(_lasting(path, bundle.folder), bundle.manifest)
    finally:
        bundle.close()


def _lasting(path: str | Path, folder: Path) -> Path:
    """Where the bundle is after it was closed: a bare name may have been found elsewhere, a zip was unpacked."""
    return Path(path).absolute() if Path(path).exists() else folder.absolute()


def _found(folder: Path, notify: Notify) -> list[Contestant]:
    found = []
    for listed in find_bundles(folder):
        if listed.manifest is None:
            notify(f"left out: {listed.error}")
        else:
            found.append(Contestant(listed.path.absolute(), listed.manifest))
    return found


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


def _with_cautions(contestant: Contestant) -> Contestant:
    if contestant.manifest.weights.origin != "untrained":
        return contestant
    caution = Code.UNTRAINED_WEIGHTS.caution("the weights are random")
    return replace(contestant, cautions=(*contestant.cautions, caution))


def add_references(
    contestants: Sequence[Contestant],
    target: Target,
    *,
    given: str | None,
    export: Export,
    workshop: Path,
    notify: Notify,
    folder: Path = OUTPUT_FOLDER,
) -> list[Contestant]:
    """Give each contestant its reference: a bundle of the same tracker and weights for the reference target.

    It is `given`, or among the contestants, beside one of them or in `folder`; or else exported to `workshop` with
    untrained weights. Where even that cannot be done, the contestant gets a warning and no reference.

    Raises:
        UsageError: the given reference is of another target, or of a tracker that does not take part.
    """
    pool = [contestant for contestant in contestants if contestant.manifest.target == target.name]
    if given is not None:
        pool = [_given_reference(given, contestants, target)]
    else:
        pool += _beside(contestants, folder, target)
    made: dict[str, Contestant] = {}
    matched = []
    for contestant in contestants:
        reference = _match(contestant, pool, exact=given is None) or made.get(contestant.manifest.tracker)
        if reference is None:
            reference = _made(contestant, target, export, workshop, notify)
        if isinstance(reference, Caution):
            matched.append(replace(contestant, cautions=(*contestant.cautions, reference)))
            continue
        if reference not in pool:
            made[contestant.manifest.tracker] = reference
        matched.append(_referred(contestant, reference))
        made.setdefault(reference.label, reference)
    joined = {contestant.label for contestant in matched}
    wanted = dict.fromkeys(contestant.reference for contestant in matched)
    extra = {reference.label: reference for reference in made.values() if reference.label in wanted}
    return matched + [
        _with_cautions(replace(extra[label], reference=label)) for label in extra if label not in joined
    ]
