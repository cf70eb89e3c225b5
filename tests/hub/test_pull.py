"""`pull` from a server on this machine: pinned, trusted once, cut, damaged, hostile."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from edgetrack.bundle import open_bundle
from edgetrack.errors import BundleError, BundleIntegrityError, HubError, UsageError
from edgetrack.hub.lock import read_lock
from edgetrack.hub.pull import PullRequest, pull
from edgetrack.io import locked

PLACE = Path("out/scripted")


def left() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_a_pinned_bundle_is_put_in_place_as_it_was(server, archive, digest, given) -> None:
    server.files["/b.zip"] = archive
    pulled = pull(PullRequest(f"{server.base}/b.zip#sha256={digest}"))
    assert (pulled.path, pulled.sha256, pulled.noted) == (PLACE, digest, False)
    with open_bundle(PLACE) as found, open_bundle(given / "scripted") as made:
        assert found.manifest == made.manifest
    assert left() == {f"out/scripted/{name}" for name in (*found.manifest.files, "manifest.json")}


def test_without_a_hash_nothing_is_asked_of_the_server(server, archive) -> None:
    server.files["/b.zip"] = archive
    with pytest.raises(UsageError, match=r"no hash of it is known.*--trust-on-first-use"):
        pull(PullRequest(f"{server.base}/b.zip"))
    assert (server.asked, left()) == ([], set())


def test_what_was_trusted_once_is_pinned_from_then_on(server, archive, digest, other) -> None:
    server.files["/b.zip"] = archive
    request = PullRequest(f"{server.base}/b.zip", trust=True, overwrite=True)
    assert pull(request).noted
    (entry,) = read_lock(request.lock).bundles.values()
    assert (entry.name, entry.sha256, entry.size) == ("scripted", digest, len(archive))
    assert not pull(PullRequest(request.address, overwrite=True)).noted
    before, server.files["/b.zip"] = left(), other
    for trust in (False, True):
        with pytest.raises(BundleIntegrityError, match=r"as edgetrack-lock\.json states"):
            pull(PullRequest(request.address, trust=trust, overwrite=True))
    assert left() == before
    with open_bundle(PLACE) as found:
        assert found.manifest.weights.sha256 == "a" * 64


def test_an_address_and_a_lock_file_that_differ_are_not_chosen_between(server, archive) -> None:
    server.files["/b.zip"] = archive
    pull(PullRequest(f"{server.base}/b.zip", trust=True))
    server.asked.clear()
    with pytest.raises(UsageError, match="take the entry out of the lock file"):
        pull(PullRequest(f"{server.base}/b.zip#sha256={'0' * 64}"))
    assert server.asked == []


def test_a_cut_download_is_resumed_by_the_next_call(server, archive, digest) -> None:
    server.files["/b.zip"], server.cuts = archive, [1000, 0]
    request = PullRequest(f"{server.base}/b.zip#sha256={digest}")
    with pytest.raises(HubError, match="was cut"):
        pull(request)
    assert not PLACE.exists()
    assert pull(request).path == PLACE
    assert server.asked[-1][2] == "bytes=1000-"
    assert not list(Path("out").glob(".*"))


def test_a_mixture_of_two_versions_is_fetched_again(server, archive, digest, other) -> None:
    server.files["/b.zip"], server.cuts, server.etag = other, [1000, 0], None
    request = PullRequest(f"{server.base}/b.zip#sha256={digest}")
    with pytest.raises(HubError):
        pull(request)
    server.files["/b.zip"] = archive
    assert pull(request).sha256 == digest


def test_of_what_is_damaged_nothing_is_left(server, archive, digest) -> None:
    damaged = bytearray(archive)
    damaged[len(archive) // 2] ^= 1
    server.files["/b.zip"] = bytes(damaged)
    with pytest.raises(BundleIntegrityError, match=f"not {digest} as the address states"):
        pull(PullRequest(f"{server.base}/b.zip#sha256={digest}"))
    assert left() == set()


def hostile(archive: bytes) -> dict[str, bytes]:
    climbing, extra = io.BytesIO(archive), io.BytesIO(archive)
    for file, name in ((climbing, "../../climbed"), (extra, "extra.bin")):
        with zipfile.ZipFile(file, "a") as made:
            made.writestr(name, b"1")
    return {
        "no zip": b"<html>sign in</html>",
        "empty": b"",
        "cut": archive[:-100],
        "climbing": climbing.getvalue(),
        "extra": extra.getvalue(),
    }


@pytest.mark.parametrize("kind", ["no zip", "empty", "cut", "climbing", "extra"])
def test_a_zip_that_is_no_bundle_is_refused_even_with_its_hash(server, archive, kind) -> None:
    data = server.files["/b.zip"] = hostile(archive)[kind]
    with pytest.raises(BundleError, match="127") as caught:
        pull(PullRequest(f"{server.base}/b.zip#sha256={hashlib.sha256(data).hexdigest()}"))
    assert ".part" not in str(caught.value)
    with pytest.raises(BundleError):
        pull(PullRequest(f"{server.base}/b.zip", trust=True))
    assert left() == set()


def test_a_bundle_that_is_there_is_replaced_only_on_demand(server, archive, digest) -> None:
    server.files["/b.zip"] = archive
    request = PullRequest(f"{server.base}/b.zip#sha256={digest}", output=Path("mine"))
    assert pull(request).path == Path("mine")
    server.asked.clear()
    with pytest.raises(UsageError, match="mine: this bundle is there already; --overwrite replaces it"):
        pull(request)
    assert server.asked == []


def test_a_bundle_that_is_too_large_is_refused(server, archive, digest) -> None:
    server.files["/b.zip"] = archive
    with pytest.raises(HubError, match="raise --max-size"):
        pull(PullRequest(f"{server.base}/b.zip#sha256={digest}", max_size=1000))
    assert left() == set()


def test_two_at_a_time_do_not_write_into_one_part_file(server, archive, digest) -> None:
    server.files["/b.zip"], server.cuts = archive, [1000, 0]
    request = PullRequest(f"{server.base}/b.zip#sha256={digest}")
    with pytest.raises(HubError):
        pull(request)
    (part,) = Path("out").glob(".pull-*.part")
    with locked(part.with_suffix(".lock")), pytest.raises(UsageError, match="another process is fetching it"):
        pull(request)


@pytest.mark.parametrize(
    "address", ["hf://a/b@main/c.zip", "https://a.org/b.zip", "http://127.0.0.1:1/b.zip", Path("https://a.org/b.zip")]
)
def test_what_runs_bundles_tells_to_pull(address) -> None:
    with pytest.raises(UsageError, match=r"fetch it first: edgetrack pull (hf|https?)://"):
        open_bundle(address)
