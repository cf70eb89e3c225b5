"""The candidates of a benchmark: the bundles that were given, those at hand, or one that is made; their references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from edgetrack.benchmark.warnings import BenchWarning, WarningCode
from edgetrack.bundle.manifest import Manifest, bundle_name
from edgetrack.bundle.reader import BundleRef, find_bundles, open_bundle, path_aliases
from edgetrack.capabilities import Target, find_target, open_ref, place_of, require_device, require_device_here
from edgetrack.device_name import is_cuda
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UnknownNameError, UsageError
from edgetrack.system.gpu import GpuWatch, Watch

OUTPUT_FOLDER = Path("out")
_BUSY_PERCENT = 5
FAST_HINT = "fp16"
"""The hint of the reference that is PyTorch's best: half precision, channels last, one CUDA graph."""
Notify = Callable[[str], None]
"""Prints one line for people."""
Export = Callable[[str | None, str, Path | None, str | None, Sequence[str]], Path]
"""Exports a tracker to a target, into a folder, with weights; returns the bundle's path.

None stands for the default tracker, a folder in `./out` and the tracker's default weights.
"""


@dataclass(frozen=True)
class Candidate(BundleRef):
    """A bundle that is measured.

    Attributes:
        reference: the label of its PyTorch reference; its own label where it is one.
        warnings: what is known before anything is measured.
    """

    reference: str | None = None
    warnings: tuple[BenchWarning, ...] = ()

    @classmethod
    def of(cls, ref: BundleRef) -> Candidate:
        """A bundle that was named, without a reference yet."""
        return cls(ref.path, ref.manifest, ref.hint, ref.alias, ref.device)

    @property
    def size_mb(self) -> float:
        """The bundle's files in MiB."""
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
    places: Mapping[str, str] = MappingProxyType({}),
    profile: str | None = None,
    here: bool = True,
) -> list[Candidate]:
    """The bundles to measure, each with the device that it runs on.

    Args:
        given: bundles, each with an optional `@hint` behind it; none takes those in `folder`, and where there are none
            the default tracker is exported to the best target first.
        hint: is put on each bundle whose target takes it and that has none yet.
        export: makes a bundle.
        best_target: says which target suits this machine.
        notify: is told what was decided without being asked.
        folder: where bundles are looked for.
        device: where they are measured; of those in `folder`, what does not run there is left out.
        places: where each target is measured, in place of `device`.
        profile: the device's name, for messages.
        here: whether this machine is the device, so that what its packages do not reach is left out, too.

    Raises:
        UsageError: a hint that no bundle takes, or a bundle that was given twice.
        DeviceUnavailableError: no bundle runs on such a device.
        EdgetrackError: a bundle that cannot be opened or made.
    """

    def placed(one: Candidate) -> Candidate:
        if one.device is not None:
            return one
        return replace(one, device=place_of(one.manifest, places, profile or device) if places else device)

    candidates = [placed(Candidate.of(open_ref(text))) for text in given] or [
        one for one in _found(folder, notify, placed) if _runs(one, notify, here=here)
    ]
    if not candidates:
        target = best_target().name
        notify(f"no bundle was given and none is in ./{folder}: exporting the default tracker to {target} first")
        candidates = [placed(opened(export(None, target, None, None, ())))]
    if not any(map(_is_offered, candidates)):
        require_device(candidates[0].manifest.target, candidates[0].device or device)
    if hint is not None:
        candidates = _hinted(candidates, hint, notify)
    aliases = path_aliases([(one.manifest.name, one.path) for one in candidates])
    candidates = [replace(one, alias=alias) for one, alias in zip(candidates, aliases, strict=True)]
    candidates = _told_apart(candidates)
    labels = [candidate.label for candidate in candidates]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is given twice; give each bundle once")
    return [with_warnings(candidate) for candidate in candidates]


def opened(path: str | Path) -> Candidate:
    """A bundle as a candidate, without a hint.

    Raises:
        BundleError: it cannot be opened.
    """
    with open_bundle(path) as bundle:
        return Candidate(bundle.source.absolute(), bundle.manifest)


def _found(folder: Path, notify: Notify, placed: Callable[[Candidate], Candidate]) -> list[Candidate]:
    found = []
    for listed in find_bundles(folder):
        if listed.manifest is None:
            notify(f"left out: {listed.error}")
            continue
        try:
            found.append(placed(Candidate(listed.path.absolute(), listed.manifest)))
        except UsageError as error:
            notify(f"left out: {error}")
    return found


def _is_offered(candidate: Candidate) -> bool:
    """Whether bundles of its target run on its device, where a machine has it."""
    try:
        return candidate.device is None or find_target(candidate.manifest.target).runs_on(candidate.device)
    except UnknownNameError:
        return True  # its own process says what is wrong with it


def _runs(candidate: Candidate, notify: Notify, *, here: bool) -> bool:
    """Whether it can be measured on its device; why not is told."""
    name, device = candidate.manifest.name, candidate.device
    if not _is_offered(candidate):
        notify(f"left out: {name} does not run on {device}")
        return False
    if here and device is not None:
        try:
            require_device_here(candidate.manifest.target, device)
        except UnknownNameError:
            pass
        except (BackendMissingError, DeviceUnavailableError) as error:
            notify(f"left out: {name}: {error}")
            return False
    return True


def _told_apart(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that differ in their device alone are named after it."""
    devices: dict[str, set[str | None]] = {}
    for one in candidates:
        devices.setdefault(one.label, set()).add(one.device)
    return [
        replace(one, alias=f"{one.name}@{one.device}") if len(devices[one.label]) > 1 else one for one in candidates
    ]


def _hinted(candidates: list[Candidate], hint: str, notify: Notify) -> list[Candidate]:
    able = [hint in find_target(candidate.manifest.target).hints for candidate in candidates]
    if not any(able):
        raise UsageError(f"none of the bundles takes the precision hint {hint!r}")
    hinted = []
    for candidate, can in zip(candidates, able, strict=True):
        if not can:
            notify(f"{candidate.label} takes no hint {hint!r}: it is measured as exported")
        hinted.append(replace(candidate, hint=hint) if can and candidate.hint is None else candidate)
    return hinted


def with_warnings(candidate: Candidate) -> Candidate:
    """The candidate, with the warnings that its manifest calls for."""
    if candidate.manifest.weights.origin != "untrained":
        return candidate
    warning = WarningCode.UNTRAINED_WEIGHTS.warning("the weights are random")
    return replace(candidate, warnings=(*candidate.warnings, warning))


def add_references(
    candidates: Sequence[Candidate],
    target: Target,
    *,
    given: str | None,
    export: Export,
    scratch: Path,
    notify: Notify,
    folder: Path = OUTPUT_FOLDER,
    device: str = "cpu",
) -> list[Candidate]:
    """Give each candidate its reference, and add those references that are not candidates yet.

    A reference is a bundle of the same tracker, with the same overrides, for the reference target: `given`, or one
    among the candidates, beside them or in `folder`, with the same weights before one with others; or else one that is
    exported to `scratch`, with untrained weights where the candidate's are, else with the tracker's default ones. Where
    even that cannot be done, the candidate gets a warning and no reference. Added ones run on `device`.

    Raises:
        UsageError: the given reference is of another target, or of a tracker that no candidate has.
    """
    pool = _given(given, candidates, target) if given is not None else _at_hand(candidates, folder, target)
    exported: dict[str, Candidate | BenchWarning] = {}
    matched: list[Candidate] = []
    added: dict[str, Candidate] = {}
    for candidate in candidates:
        system = candidate.manifest.system
        reference: Candidate | BenchWarning | None = _best(candidate, pool)
        if reference is None:
            if system not in exported:
                exported[system] = _export(candidate.manifest, target, export, scratch, notify)
            reference = exported[system]
        if isinstance(reference, BenchWarning):
            matched.append(replace(candidate, warnings=(*candidate.warnings, reference)))
        else:
            matched.append(_refer(candidate, reference))
            added[reference.label] = reference
    present = {candidate.label for candidate in candidates}
    return matched + [
        with_warnings(replace(one, reference=label, device=one.device or device))
        for label, one in added.items()
        if label not in present
    ]


def _given(path: str, candidates: Sequence[Candidate], target: Target) -> list[Candidate]:
    reference = opened(path)
    manifest = reference.manifest
    if manifest.target != target.name:
        raise UsageError(f"--reference {path} is a bundle for {manifest.target!r}; expected one for {target.name!r}")
    systems = {candidate.manifest.system for candidate in candidates}
    if manifest.system not in systems:
        raise UsageError(f"--reference {path} is of {manifest.system!r}, measured are {', '.join(sorted(systems))}")
    return [reference]


def _at_hand(candidates: Sequence[Candidate], folder: Path, target: Target) -> list[Candidate]:
    """Bundles for the reference target; of two with one name the candidate, or the nearer one, counts."""
    pool = {c.label: c for c in candidates if c.manifest.target == target.name}
    places = dict.fromkeys([*(candidate.path.parent for candidate in candidates), folder.absolute()])
    for place in places:
        for listed in find_bundles(place):
            if listed.manifest is not None and listed.manifest.target == target.name:
                pool.setdefault(listed.manifest.name, Candidate(listed.path.absolute(), listed.manifest))
    return list(pool.values())


def _best(candidate: Candidate, pool: Sequence[Candidate]) -> Candidate | None:
    if any(one.label == candidate.label for one in pool):
        return candidate
    able = [one for one in pool if one.manifest.system == candidate.manifest.system]
    same = [one for one in able if _same_weights(candidate, one)]
    return next(iter(same or able), None)


def _same_weights(one: Candidate, other: Candidate) -> bool:
    a, b = one.manifest.weights, other.manifest.weights
    return (a.origin, a.sha256) == (b.origin, b.sha256)


def _export(
    manifest: Manifest, target: Target, export: Export, scratch: Path, notify: Notify
) -> Candidate | BenchWarning:
    tracker, weights = manifest.tracker, "untrained" if manifest.weights.origin == "untrained" else None
    name = bundle_name(tracker, manifest.overrides, target.name, "fp32")
    if not target.installed:
        return WarningCode.NO_REFERENCE.warning(f"{target.name} is not installed")
    notify(f"exporting {manifest.system} to {target.name}, to compare with")
    try:
        return opened(export(tracker, target.name, scratch / name, weights, manifest.settings))
    except EdgetrackError as error:
        return WarningCode.NO_REFERENCE.warning(f"{manifest.system} cannot be exported to {target.name}: {error}")


def _refer(candidate: Candidate, reference: Candidate) -> Candidate:
    warnings = candidate.warnings
    if not _same_weights(candidate, reference):
        ours, theirs = candidate.manifest.weights.origin, reference.manifest.weights.origin
        detail = f"this bundle's weights are {ours}, those of {reference.label} are {theirs}"
        if ours == theirs:
            detail = f"the weights of {reference.label} differ"
        warnings = (*warnings, WarningCode.REFERENCE_WEIGHTS_DIFFER.warning(detail))
    return replace(candidate, reference=reference.label, warnings=warnings)


def on_device(candidates: Sequence[Candidate], reference: Target | None, watch: Watch = GpuWatch) -> list[Candidate]:
    """The candidates as they are measured: on a GPU with a second reference, and with its warnings.

    Args:
        candidates: with their references and devices; nothing changes for those on the CPU.
        reference: the target that they are compared with; None: none.
        watch: opens the GPU's driver.
    """
    devices = {one.device for one in candidates if one.device is not None and is_cuda(one.device)}
    found = {device: _warnings(device, watch) for device in sorted(devices)}
    every = list(candidates) if reference is None else with_fast_reference(candidates, reference)
    return [replace(one, warnings=(*one.warnings, *found.get(one.device or "", ()))) for one in every]


def require_gpu(device: str, driver: bool, watch: Watch = GpuWatch) -> None:
    """Refuse a GPU on a machine without NVIDIA's driver, before anything is exported for it.

    Args:
        device: `cuda:N`.
        driver: whether the machine's record has one, or is a Jetson's, whose driver is part of the system; if not,
            NVML is asked.
        watch: opens the GPU's driver.

    Raises:
        DeviceUnavailableError: neither has one.
    """
    if driver:
        return
    try:
        with closing(watch(device)):
            return
    except OSError as error:
        raise DeviceUnavailableError(
            f"device {device!r}: no NVIDIA driver was found here ({error}); measure on the machine that has the GPU, "
            "or leave --device out"
        ) from error


def _warnings(device: str, watch: Watch) -> tuple[BenchWarning, ...]:
    """Who else is on the GPU, before any of our processes is."""
    try:
        with closing(watch(device)) as gpu:
            others, load, used = gpu.processes(), gpu.load_percent(), gpu.used_mb()
    except OSError as error:
        return (WarningCode.NO_GPU_MEMORY.warning(str(error)),)
    if others or (load is not None and load > _BUSY_PERCENT):
        busy = "" if load is None else f", busy for {load:.0f} % of the time"
        held = "" if used is None else f", {used:.0f} MiB in use"
        return (WarningCode.GPU_SHARED.warning(f"{device}: {len(others)} other processes{held}{busy}"),)
    if used is None:
        return (WarningCode.NO_GPU_MEMORY.warning(f"{device} shares the processor's memory, which peak MiB counts"),)
    return ()


def with_fast_reference(candidates: Sequence[Candidate], target: Target) -> list[Candidate]:
    """Beside each eager reference, the same network as fast as PyTorch goes on a GPU without a compiler."""
    present = {candidate.label for candidate in candidates}
    on_gpu = (c for c in candidates if c.device is not None and is_cuda(c.device))
    eager = [c for c in on_gpu if c.manifest.target == target.name and c.hint is None]
    twins = [replace(c, hint=FAST_HINT, reference=c.label) for c in eager]
    return [*candidates, *(twin for twin in twins if twin.label not in present)]
