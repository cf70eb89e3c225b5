"""`pull` and `push` through Hugging Face's own client, against a server on this machine that answers as theirs does."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from edgetrack.errors import BundleIntegrityError, HubError
from edgetrack.hub.pull import PullRequest, pull
from edgetrack.hub.push import PushRequest, push

pytest.importorskip("huggingface_hub")
COMMIT = "c" * 40
FILE = f"/owner/name/resolve/{COMMIT}/b.zip"


@pytest.fixture
def hub(server, archive):
    for revision in ("main", "v1", COMMIT):
        server.files[f"/owner/name/resolve/{revision}/b.zip"] = archive
    return server


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_a_bundle_is_fetched_at_the_commit_that_its_branch_had(hub, digest, revision) -> None:
    request = PullRequest(f"hf://owner/name{revision}/b.zip#sha256={digest}", endpoint=hub.base)
    assert pull(request).path == Path("out/scripted")
    first, *_, last = hub.asked
    assert first[:2] == ("HEAD", f"/owner/name/resolve/{revision.strip('@') or 'main'}/b.zip")
    assert last[:2] == ("GET", FILE)
    assert not list(Path("out").glob(".*"))


def test_trust_on_first_use_holds_here_too(hub, digest, other) -> None:
    request = PullRequest("hf://owner/name/b.zip", trust=True, overwrite=True, endpoint=hub.base)
    assert pull(request).noted
    hub.files[FILE], hub.etag = other, '"2"'
    with pytest.raises(BundleIntegrityError, match=f"not {digest}"):
        pull(request)


def test_the_client_takes_up_a_connection_that_is_cut(hub, digest) -> None:
    hub.cuts = [1000]
    assert pull(PullRequest(f"hf://owner/name/b.zip#sha256={digest}", endpoint=hub.base)).sha256 == digest
    assert [asked[0] for asked in hub.asked].count("GET") == 2


def test_what_is_too_large_is_not_fetched(hub, digest) -> None:
    with pytest.raises(HubError, match="--max-size"):
        pull(PullRequest(f"hf://owner/name/b.zip#sha256={digest}", max_size=1000, endpoint=hub.base))
    assert {asked[0] for asked in hub.asked} == {"HEAD"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://owner/name/none.zip", "has no such file"),
        ("hf://owner/none/b.zip", "no such repository, or it is private"),
    ],
)
def test_what_is_not_there_is_said(hub, digest, address, said) -> None:
    with pytest.raises(HubError, match=said):
        pull(PullRequest(f"{address}#sha256={digest}", endpoint=hub.base))


def test_no_server_is_said() -> None:
    with pytest.raises(HubError, match=r"hf://owner/name/b\.zip: "):
        pull(PullRequest(f"hf://owner/name/b.zip#sha256={'0' * 64}", endpoint="http://127.0.0.1:1"))


def test_a_bundle_is_pushed_as_it_is_packed_and_its_address_pulls_it(hub, archive, digest, given) -> None:
    request = PushRequest(str(given / "scripted"), "hf://owner/name@main/d/b.zip", create=True, endpoint=hub.base)
    pushed = push(request)
    assert pushed.address == f"hf://owner/name@{COMMIT}/d/b.zip#sha256={digest}"
    created, (header, file) = hub.commits
    assert (created[0]["organization"], created[0]["name"]) == ("owner", "name")
    assert header["value"]["summary"] == "scripted"
    assert file["value"]["path"] == "d/b.zip"
    uploaded = base64.b64decode(file["value"]["content"])
    assert uploaded == archive
    hub.files[f"/owner/name/resolve/{COMMIT}/d/b.zip"] = uploaded
    assert pull(PullRequest(pushed.address, endpoint=hub.base)).sha256 == digest
