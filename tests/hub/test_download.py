"""A file over HTTP: cut, resumed, changed meanwhile, too large, redirected."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edgetrack.errors import HubError
from edgetrack.hub.download import PartFile, download
from edgetrack.presentation.progress import no_progress

DATA = np.random.default_rng(0).bytes(300_000)
LARGEST = 1 << 20


@pytest.fixture
def part(tmp_path: Path) -> PartFile:
    return PartFile(tmp_path / "a.part")


def fetch(server, part: PartFile, *, pinned: bool = True, largest: int = LARGEST, path: str = "/a") -> bytes:
    download(f"{server.base}{path}", part, pinned=pinned, largest=largest, progress=no_progress)
    return part.path.read_bytes()


def test_a_file_arrives_and_progress_is_told(server, part) -> None:
    server.files["/a"] = bytes(3 << 20)
    told = []
    download(f"{server.base}/a", part, pinned=True, largest=4 << 20, progress=lambda *said: told.append(said))
    assert part.path.read_bytes() == server.files["/a"]
    assert told[-1] == (f"fetching {server.base}/a", 3, 3)


def test_a_connection_that_is_cut_is_taken_up_where_it_was(server, part) -> None:
    server.files["/a"], server.cuts = DATA, [100_000, 50_000]
    assert fetch(server, part) == DATA
    assert [asked[2] for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_what_a_cut_download_left_is_gone_on_from_later(server, part) -> None:
    server.files["/a"], server.cuts = DATA, [100_000, 0]
    with pytest.raises(HubError, match=r"was cut: .*; 0.1 MiB are kept: type the same again to go on"):
        fetch(server, part)
    assert part.path.read_bytes() == DATA[:100_000]
    assert fetch(server, PartFile(part.path)) == DATA
    assert server.asked[-1][2] == "bytes=100000-"


@pytest.mark.parametrize("pinned", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_whole(server, part, pinned) -> None:
    server.files["/a"], server.cuts = DATA, [100_000, 0]
    with pytest.raises(HubError):
        fetch(server, part, pinned=pinned)
    server.files["/a"], server.etag = DATA[::-1], '"2"'
    assert fetch(server, part, pinned=pinned) == DATA[::-1]


def test_without_a_hash_and_without_a_version_nothing_is_gone_on_from(server, part) -> None:
    server.files["/a"], server.cuts, server.etag = DATA, [100_000], None
    assert fetch(server, part, pinned=False) == DATA
    assert [asked[2] for asked in server.asked] == [None, None]


def test_a_server_without_ranges_sends_all_again(server, part) -> None:
    server.files["/a"], server.cuts, server.ranges = DATA, [100_000], False
    assert fetch(server, part) == DATA


def test_what_is_whole_already_is_not_fetched_again(server, part) -> None:
    server.files["/a"] = DATA
    fetch(server, part)
    assert fetch(server, part) == DATA
    assert [asked[2] for asked in server.asked] == [None, "bytes=300000-"]


def test_a_part_larger_than_the_file_is_thrown_away(server, part) -> None:
    part.begin('"1"')
    part.path.write_bytes(DATA + b"more")
    server.files["/a"] = DATA
    assert fetch(server, part) == DATA
    assert [asked[2] for asked in server.asked] == ["bytes=300004-", None]


@pytest.mark.parametrize("stated", [None, 2 << 20])
def test_what_is_too_large_is_refused_and_nothing_kept(server, part, stated) -> None:
    server.files["/a"], server.stated = bytes(2 << 20), stated
    with pytest.raises(HubError, match=r"has 2 MiB or more; at most 1 are fetched: raise --max-size"):
        fetch(server, part)
    assert part.size == 0


def test_a_length_that_lies_is_no_way_around_the_limit(server, part) -> None:
    server.files["/a"] = bytes(2 << 20)
    server.headers["Transfer-Encoding"] = "identity"
    server.stated = 1000
    fetch(server, part)  # the client reads what was stated, and no more
    assert part.size == 1000


def test_redirects_are_followed_five_times_at_most(server, part) -> None:
    server.files["/a"] = DATA
    server.moved = {f"/{n}": f"/{n - 1}" for n in range(2, 8)} | {"/1": "/a"}
    assert fetch(server, part, path="/5") == DATA
    part.remove()
    with pytest.raises(HubError, match="more than 5 times"):
        fetch(server, part, path="/6")
    assert part.size == 0


@pytest.mark.parametrize("to", ["http://h.org/a", "file:///etc/passwd", "", "https://u:p@h.org/a"])
def test_a_redirect_elsewhere_is_refused(server, part, to) -> None:
    server.moved["/a"] = to
    with pytest.raises(HubError, match=r"redirects|no address|password"):
        fetch(server, part)


def test_what_a_server_refuses_is_said(server, part) -> None:
    with pytest.raises(HubError, match="404 Not Found: there is no such file"):
        fetch(server, part)


def test_a_server_that_is_not_there_is_said(server, part) -> None:
    server.files["/a"] = DATA
    with pytest.raises(HubError, match="cannot be reached"):
        download("http://127.0.0.1:1/a", part, pinned=True, largest=LARGEST, progress=no_progress)


def test_what_was_packed_on_the_way_is_refused(server, part) -> None:
    server.files["/a"], server.headers["Content-Encoding"] = DATA, "gzip"
    with pytest.raises(HubError, match="packs the file"):
        fetch(server, part)


def test_a_full_disk_is_said(server, part, monkeypatch) -> None:
    server.files["/a"] = DATA
    part.path.symlink_to("/dev/full")
    monkeypatch.setattr(PartFile, "begin", lambda self, validator: None)
    with pytest.raises(HubError, match="takes no more: No space left"):
        fetch(server, part)


@pytest.fixture
def raw() -> Iterator[Callable[[bytes], str]]:
    """raw(answer) -> an address at which every request gets these bytes, whatever they are."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        answers: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answers[-1])
                    connection.shutdown(socket.SHUT_WR)

        pool.submit(serve)
        yield lambda answer: answers.append(answer) or f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "was cut"),
        (b"hello\r\n\r\n", "was cut"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n", "was cut"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", "was cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "was cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhel", "was cut"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "more than 5 times"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\xff\r\n\r\n", "no address"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", "cannot be reached|no address|Invalid IPv6"),
        (b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 9-10/11\r\n\r\nab", "was cut"),
        (b"HTTP/1.1 416 No\r\n\r\n", "was cut"),
        (b"HTTP/1.1 500 Oh \x1b[31m\r\n\r\n", "the server says 500"),
    ],
)
def test_whatever_a_server_sends_ends_in_an_error_of_ours(raw, part, answer, said) -> None:
    with pytest.raises(HubError, match=said):
        download(raw(answer), part, pinned=True, largest=LARGEST, progress=no_progress)


def test_a_length_that_is_none_is_not_believed(raw, part) -> None:
    address = raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc")
    download(address, part, pinned=True, largest=LARGEST, progress=no_progress)
    assert part.path.read_bytes() == b"abc"


def test_an_answer_without_end_stops_at_the_limit(raw, part) -> None:
    with pytest.raises(HubError, match="at most 0 are fetched"):
        download(
            raw(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000)), part, pinned=True, largest=50_000, progress=no_progress
        )
    assert part.size == 0
