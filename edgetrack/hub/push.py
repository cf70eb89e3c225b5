"""`push`: a bundle, packed, to a repository on Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from edgetrack.bundle import open_bundle, pack
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import UsageError
from edgetrack.hub.address import HuggingFaceAddress, parse_address
from edgetrack.hub.huggingface import publish
from edgetrack.io import ScratchFolder, sha256
from edgetrack.presentation.progress import Progress, no_progress


@dataclass(frozen=True)
class PushRequest:
    """What to publish, and where.

    Attributes:
        bundle: its folder, zip or name.
        address: on Hugging Face, without a hash; its revision is a branch.
        create: make the repository where there is none; `private`: for its members alone.
        message: of the commit; None: the bundle's name.
        endpoint: as in `PullRequest`.
    """

    bundle: str
    address: str
    create: bool = False
    private: bool = False
    message: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True)
class Pushed:
    """A bundle that was published: the address that pins its commit and hash, and the zip's size in bytes."""

    address: str
    size: int


def push(request: PushRequest, progress: Progress = no_progress) -> Pushed:
    """Pack a bundle, to the same bytes every time, and upload it.

    Raises:
        UsageError: the address is none to publish at, or the manifest does not allow that the weights are passed on.
        BackendMissingError: Hugging Face's client is not installed.
        HubError: it cannot be uploaded.
        BundleError: the bundle cannot be read.
    """
    address = parse_address(request.address)
    if not isinstance(address, HuggingFaceAddress):
        raise UsageError(
            f"{address}: a bundle is published on Hugging Face (hf://OWNER/NAME/FILE.zip); for a server of yours, type "
            "edgetrack pack, copy the zip there, and tell its address with #sha256=HASH behind it"
        )
    if address.sha256 is not None:
        raise UsageError(f"{address}: the hash follows from the bundle; leave out what stands behind #")
    if not address.file.endswith(".zip"):
        raise UsageError(f"{address}: a packed bundle's name ends in .zip")
    with open_bundle(request.bundle) as bundle, ScratchFolder() as scratch:
        require_licence(bundle.manifest, request.bundle)
        progress(f"packing {bundle.manifest.name}", 0, 0)
        archive = pack(bundle, scratch / "bundle.zip")
        found, size = sha256(archive), archive.stat().st_size
        progress(f"uploading {size / 2**20:.1f} MiB to {address}", 0, 0)
        commit = publish(
            address,
            archive,
            message=request.message or bundle.manifest.name,
            create=request.create,
            private=request.private,
            endpoint=request.endpoint,
        )
    return Pushed(f"{replace(address, revision=commit)}#sha256={found}", size)


def require_licence(manifest: Manifest, source: str) -> None:
    """Raise UsageError unless the manifest states a licence under which the weights may be passed on."""
    licence = manifest.weights.licence
    again = "export it again with --licence NAME --redistribute"
    if licence is msgspec.UNSET:
        raise UsageError(f"{source}: the manifest states no licence of the weights; if they may be passed on, {again}")
    if not licence.redistribution:
        raise UsageError(
            f"{source}: the manifest says that its weights ({licence.name}) may not be passed on; if they may, {again}"
        )
