"""`pull`: a bundle from an address, in place whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetrack.bundle.integrity import LIMITS, extract, open_zip, read_zip
from edgetrack.bundle.manifest import Manifest
from edgetrack.bundle.writer import BundleWriter, check_destination
from edgetrack.errors import BundleError, BundleIntegrityError, HubError, UsageError
from edgetrack.hub.address import HuggingFaceAddress, WebAddress, parse_address
from edgetrack.hub.download import PartFile, download
from edgetrack.hub.lock import LOCK_FILE, LockedBundle, add_to_lock, read_lock
from edgetrack.io import locked, sha256
from edgetrack.presentation.progress import Progress, no_progress

MAX_SIZE = 2 << 30
"""Bytes of a zip, unless more are allowed."""


@dataclass(frozen=True)
class PullRequest:
    """What to fetch, and where to.

    Attributes:
        address: as `parse_address` takes it.
        output: the bundle's folder; None: `out/<name of the bundle>`.
        overwrite: replace a bundle that is there.
        trust: take whatever is there where no hash is known, and note its hash in the lock file.
        lock: the lock file.
        max_size: bytes that the zip may have.
        endpoint: of another server than Hugging Face's own that speaks its protocol; None: `$HF_ENDPOINT` or its own.
    """

    address: str
    output: Path | None = None
    overwrite: bool = False
    trust: bool = False
    lock: Path = LOCK_FILE
    max_size: int = MAX_SIZE
    endpoint: str | None = None


@dataclass(frozen=True)
class Pulled:
    """A bundle that was fetched: its folder, its manifest, the zip's hash, and whether the lock file learned it."""

    path: Path
    manifest: Manifest
    sha256: str
    noted: bool


def pull(request: PullRequest, progress: Progress = no_progress) -> Pulled:
    """Fetch a bundle's zip, compare its hash, check it as any bundle is, and put it in place.

    What is fetched lies in a hidden part file beside the destination until then. A download over HTTPS that is cut
    leaves it, and the next one of the same address goes on from there; of what is damaged nothing is left.

    Raises:
        UsageError: no such address, no hash is known of it and `trust` is not given, or the destination is taken.
        HubError: it cannot be fetched.
        BundleIntegrityError: its hash is another one than the address or the lock file states.
        BundleError: it is no valid bundle.
    """
    address = parse_address(request.address)
    wanted = _wanted(address, request)
    if request.output is not None:
        check_destination(request.output.absolute(), overwrite=request.overwrite, shown=request.output)
    folder = Path("out") if request.output is None else request.output.parent
    with _part(folder, str(address)) as part:
        resumed = part.size > 0
        found = _fetched(address, part, wanted, request, progress)
        if wanted is not None and found != wanted and resumed:
            # What was kept may be of another version than what was added.
            part.remove()
            found = _fetched(address, part, wanted, request, progress)
        if wanted is not None and found != wanted:
            part.remove()
            raise BundleIntegrityError(
                f"{address} has sha256 {found}, not {wanted} as {'the address' if address.sha256 else request.lock} "
                "states: it was changed or damaged, nothing of it is kept; ask whoever published it"
            )
        progress(f"checking {address}", 0, 0)
        pulled = _placed(str(address), part, found, request)
        part.remove()
        return pulled


def _wanted(address: WebAddress | HuggingFaceAddress, request: PullRequest) -> str | None:
    known = read_lock(request.lock).bundles.get(str(address))
    if known is not None and address.sha256 not in (None, known.sha256):
        raise UsageError(
            f"{address}: the address states sha256 {address.sha256}, {request.lock} {known.sha256}; take the entry out "
            "of the lock file if the new one is meant"
        )
    wanted = address.sha256 or (known.sha256 if known else None)
    if wanted is None and not request.trust:
        raise UsageError(
            f"{address}: no hash of it is known; put #sha256=HASH behind the address, as its publisher states it, "
            f"or take what is there with --trust-on-first-use, which notes its hash in {request.lock}"
        )
    return wanted


@contextmanager
def _part(folder: Path, address: str) -> Iterator[PartFile]:
    """The part file of an address, for this process alone; its name is the same every time."""
    path = folder / f".pull-{hashlib.sha256(address.encode()).hexdigest()[:16]}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HubError(f"{folder} cannot be written: {error.strerror or error}; give another --output") from error
    try:
        with locked(path.with_suffix(".lock"), timeout_s=0):
            yield PartFile(path)
    except TimeoutError as error:
        if path.with_suffix(".lock").name not in str(error):
            raise
        raise UsageError(f"{address}: another process is fetching it into {folder}; wait for it") from None


def _fetched(
    address: WebAddress | HuggingFaceAddress,
    part: PartFile,
    wanted: str | None,
    request: PullRequest,
    progress: Progress,
) -> str:
    """The hash of what the part file holds now: all of it."""
    largest = min(request.max_size, LIMITS.total_bytes)
    if isinstance(address, WebAddress):
        download(address.url, part, pinned=wanted is not None, largest=largest, progress=progress)
    else:
        from edgetrack.hub.huggingface import fetch

        fetch(address, part, largest=largest, endpoint=request.endpoint, progress=progress)
    try:
        return sha256(part.path)
    except OSError as error:
        raise HubError(f"{part.path} cannot be read: {error.strerror or error}") from error


def _placed(address: str, part: PartFile, found: str, request: PullRequest) -> Pulled:
    """Read the zip as a hostile one, note its hash where it was trusted, and put it under its name."""
    with _removed_if_invalid(address, part), open_zip(part.path) as (archive, entries):
        name = read_zip(archive, entries, part.path).name
    with BundleWriter(request.output or Path("out") / name, overwrite=request.overwrite) as writer:
        with _removed_if_invalid(address, part):
            manifest = extract(part.path, writer.folder)
        noted = request.trust and address not in read_lock(request.lock).bundles
        if noted:
            add_to_lock(request.lock, address, LockedBundle(name=manifest.name, sha256=found, size=part.size))
        return Pulled(writer.commit(manifest), manifest, found, noted)


@contextmanager
def _removed_if_invalid(address: str, part: PartFile) -> Iterator[None]:
    try:
        yield
    except BundleError as error:
        part.remove()
        raise type(error)(str(error).replace(str(part.path), address)) from error
