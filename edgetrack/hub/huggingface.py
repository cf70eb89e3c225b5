"""Hugging Face, through its own client, which knows the user's token and how large files are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from edgetrack import __version__
from edgetrack.errors import HubError
from edgetrack.hub.address import HuggingFaceAddress
from edgetrack.hub.download import PartFile, too_large
from edgetrack.presentation.progress import Progress
from edgetrack.resources import require_extra

_WHO = {"library_name": "edgetrack", "library_version": __version__}


def fetch(
    address: HuggingFaceAddress, part: PartFile, *, largest: int, endpoint: str | None, progress: Progress
) -> None:
    """Receive a file into a part file; the client takes up a connection that is cut, but keeps nothing for later.

    Raises:
        BackendMissingError: the client is not installed.
        HubError: there is no such repository, revision or file, it is not public and no token is known, the file is
            larger than `largest` bytes, or the connection fails.
    """
    require_extra(f"fetching {address}", "hub", "huggingface_hub")
    with _client(str(address)) as hub:
        url = hub.hf_hub_url(address.repository, address.file, revision=address.revision, endpoint=endpoint)
        progress(f"asking for {address}", 0, 0)
        stated = hub.get_hf_file_metadata(url, token=None, endpoint=endpoint, **_WHO)
        if stated.size is None or stated.size > largest:
            raise HubError(too_large(str(address), stated.size or 0, largest))
        progress(f"fetching {address} ({stated.size / 2**20:.0f} MiB)", 0, 0)
        own = part.path.with_suffix(".hub")
        # The commit that was asked about: a branch may move on meanwhile.
        revision = stated.commit_hash or address.revision
        try:
            received = hub.hf_hub_download(
                address.repository, address.file, revision=revision, local_dir=own, endpoint=endpoint, **_WHO
            )
            part.remove()
            Path(received).replace(part.path)
        finally:
            rmtree(own, ignore_errors=True)


def publish(
    address: HuggingFaceAddress, archive: Path, *, message: str, create: bool, private: bool, endpoint: str | None
) -> str:
    """Upload a file in a commit of its own.

    Args:
        create: make the repository where there is none; `private`: for its members alone.

    Returns:
        The commit.

    Raises:
        BackendMissingError, HubError: as `fetch`.
    """
    require_extra(f"publishing at {address}", "hub", "huggingface_hub")
    with _client(str(address)) as hub:
        api = hub.HfApi(endpoint=endpoint, **_WHO)
        if create:
            api.create_repo(address.repository, private=private, exist_ok=True)
        done = api.upload_file(
            path_or_fileobj=archive,
            path_in_repo=address.file,
            repo_id=address.repository,
            revision=address.revision,
            commit_message=message,
        )
    return str(done.oid)


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """The client's package, without its own bars; what it raises becomes a HubError."""
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield huggingface_hub
    except HubError:
        raise
    except GatedRepoError as error:
        raise HubError(f"{address}: give your consent on the repository's page, then type: hf auth login") from error
    except RepositoryNotFoundError as error:
        raise HubError(f"{address}: there is no such repository, or it is private: hf auth login") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{address}: the repository has no such branch, tag or commit") from error
    except EntryNotFoundError as error:
        raise HubError(f"{address}: the repository has no such file") from error
    # The client's own errors, and those of the two HTTP libraries that its versions use, share no base.
    except Exception as error:
        raise HubError(f"{address}: {' '.join(str(error).split())[:300] or type(error).__name__}") from error
    finally:
        if not silent:
            enable_progress_bars()
