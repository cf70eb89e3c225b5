"""Against what a bundle is held: the same tracker in PyTorch, measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgetrack.benchmark.cautions import Code
from edgetrack.benchmark.lineup import OUTPUT_FOLDER, Contestant, Export, Notify, opened, with_cautions
from edgetrack.benchmark.record import Caution
from edgetrack.bundle import find_bundles
from edgetrack.bundle.manifest import Manifest
from edgetrack.capabilities import Target
from edgetrack.errors import EdgetrackError, UsageError


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
    """Give each contestant its reference, and add those references that do not take part yet.

    A reference is a bundle of the same tracker for the reference target: `given`, or one among the contestants, beside
    them or in `folder`, with the same weights before one with others; or else one that is exported to `workshop`, with
    untrained weights where the contestant's are, else with the tracker's default ones. Where even that cannot be done,
    the contestant gets a warning and no reference.

    Raises:
        UsageError: the given reference is of another target, or of a tracker that does not take part.
    """
    pool = _given(given, contestants, target) if given is not None else _at_hand(contestants, folder, target)
    exported: dict[str, Contestant | Caution] = {}
    matched: list[Contestant] = []
    guests: dict[str, Contestant] = {}
    for contestant in contestants:
        tracker = contestant.manifest.tracker
        reference: Contestant | Caution | None = _best(contestant, pool)
        if reference is None:
            if tracker not in exported:
                exported[tracker] = _export(contestant.manifest, target, export, workshop, notify)
            reference = exported[tracker]
        if isinstance(reference, Caution):
            matched.append(replace(contestant, cautions=(*contestant.cautions, reference)))
        else:
            matched.append(_refer(contestant, reference))
            guests[reference.label] = reference
    taking_part = {contestant.label for contestant in contestants}
    return matched + [
        with_cautions(replace(guest, reference=label)) for label, guest in guests.items() if label not in taking_part
    ]


def _given(path: str, contestants: Sequence[Contestant], target: Target) -> list[Contestant]:
    reference = opened(path)
    manifest = reference.manifest
    if manifest.target != target.name:
        raise UsageError(f"--reference {path} is a bundle for {manifest.target!r}; expected one for {target.name!r}")
    trackers = {contestant.manifest.tracker for contestant in contestants}
    if manifest.tracker not in trackers:
        raise UsageError(f"--reference {path} is of {manifest.tracker!r}, measured are {', '.join(sorted(trackers))}")
    return [reference]


def _at_hand(contestants: Sequence[Contestant], folder: Path, target: Target) -> list[Contestant]:
    """Bundles for the reference target; of two with one name the one that takes part, or is nearer, counts."""
    pool = {c.label: c for c in contestants if c.manifest.target == target.name}
    places = dict.fromkeys([*(contestant.path.parent for contestant in contestants), folder.absolute()])
    for place in places:
        for listed in find_bundles(place):
            if listed.manifest is not None and listed.manifest.target == target.name:
                pool.setdefault(listed.manifest.name, Contestant(listed.path.absolute(), listed.manifest))
    return list(pool.values())


def _best(contestant: Contestant, pool: Sequence[Contestant]) -> Contestant | None:
    if any(candidate.label == contestant.label for candidate in pool):
        return contestant
    able = [candidate for candidate in pool if candidate.manifest.tracker == contestant.manifest.tracker]
    same = [candidate for candidate in able if _same_weights(contestant, candidate)]
    return next(iter(same or able), None)


def _same_weights(one: Contestant, other: Contestant) -> bool:
    a, b = one.manifest.weights, other.manifest.weights
    return (a.origin, a.sha256) == (b.origin, b.sha256)


def _export(manifest: Manifest, target: Target, export: Export, workshop: Path, notify: Notify) -> Contestant | Caution:
    tracker, weights = manifest.tracker, "untrained" if manifest.weights.origin == "untrained" else None
    if not target.installed:
        return Code.NO_REFERENCE.caution(f"{target.name} is not installed")
    notify(f"exporting {tracker} to {target.name}, to be held against")
    try:
        return opened(export(tracker, target.name, workshop / f"{tracker}-{target.name}-fp32", weights))
    except EdgetrackError as error:
        return Code.NO_REFERENCE.caution(f"{tracker} cannot be exported to {target.name}: {error}")


def _refer(contestant: Contestant, reference: Contestant) -> Contestant:
    cautions = contestant.cautions
    if not _same_weights(contestant, reference):
        ours, theirs = contestant.manifest.weights.origin, reference.manifest.weights.origin
        detail = f"this bundle's weights are {ours}, those of {reference.label} are {theirs}"
        if ours == theirs:
            detail = f"the weights of {reference.label} are other ones"
        cautions = (*cautions, Code.REFERENCE_WEIGHTS_DIFFER.caution(detail))
    return replace(contestant, reference=reference.label, cautions=cautions)
