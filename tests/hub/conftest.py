"""A web server on this machine that can cut, change, redirect and overfeed; nothing else can be reached."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from edgetrack.bundle import open_bundle, pack
from edgetrack.bundle.manifest import LicenceInfo, WeightsInfo
from tests.builders import scripted_manifest, write_scripted

COMMIT = "c" * 40
FREE = WeightsInfo(origin="custom", sha256="a" * 64, licence=LicenceInfo(name="MIT", redistribution=True))


class Server(ThreadingHTTPServer):
    """Serves `files` by path, and what Hugging Face's client asks of a repository `owner/name`.

    Attributes:
        cuts: bytes after which the next answers end, one each; `etag`: None states none.
        ranges: whether parts are sent; `stated`: a length to lie with; `moved`: redirects by path.
        asked: method, path and Range of each request; `commits`: the lines of each commit.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.etag: str | None = '"1"'
        self.ranges = True
        self.stated: int | None = None
        self.moved: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.commits: list[list[dict]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        self._file(body=True)

    def do_POST(self) -> None:
        self.server.asked.append(("POST", self.path, None))
        given = self.rfile.read(int(self.headers["Content-Length"]))
        if "/preupload/" in self.path:
            files = [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(given)["files"]]
            self._json({"files": files})
        elif "/commit/" in self.path:
            self.server.commits.append([json.loads(line) for line in given.splitlines()])
            url = f"{self.server.base}/owner/name/commit/{COMMIT}"
            self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        elif self.path == "/api/repos/create":
            self.server.commits.append([json.loads(given)])
            self._json({"url": f"{self.server.base}/owner/name", "name": "owner/name", "id": "1"})
        else:
            self._json({"error": "unknown"}, 404)

    def _json(self, value: dict, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, *, body: bool) -> None:
        server = self.server
        server.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.path in server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = server.files.get(self.path)
        if data is None:
            self._missing()
            return
        begin = self._begin(data)
        if begin > len(data) or (begin and begin == len(data)):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(server.stated or len(data) - begin))
        if server.etag is not None:
            self.send_header("ETag", server.etag)
        if "/resolve/" in self.path:
            self.send_header("X-Repo-Commit", COMMIT)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            piece = data[begin:]
            if server.cuts:
                piece = piece[: server.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(piece)
            self.wfile.flush()
            if self.close_connection:
                self.connection.shutdown(socket.SHUT_RDWR)

    def _begin(self, data: bytes) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, self.server.etag)
        return int(asked[1]) if asked and same and self.server.ranges else 0

    def _missing(self) -> None:
        self.send_response(404)
        if "/resolve/" in self.path or "/api/" in self.path:
            self.send_header("X-Error-Code", "EntryNotFound" if "/owner/name/" in self.path else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only this machine is reached, no proxy and no token is known, and `out` is a new folder's."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] in ("127.0.0.1", "::1"), f"a test reached for {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle whose weights may be passed on, `scripted`, and its zip."""
    folder = tmp_path_factory.mktemp("given")
    manifest = scripted_manifest("scripted", weights=FREE)
    write_scripted(folder / "scripted", manifest)
    (folder / "scripted" / "manifest.json").stat()
    with open_bundle(folder / "scripted") as opened:
        pack(opened, folder / "scripted.zip")
    return folder


@pytest.fixture(scope="session")
def archive(given: Path) -> bytes:
    return (given / "scripted.zip").read_bytes()


@pytest.fixture(scope="session")
def digest(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


@pytest.fixture(scope="session")
def other(given: Path, archive: bytes) -> bytes:
    """Another version of the same bundle, of the same size."""
    manifest = scripted_manifest("scripted", weights=msgspec.structs.replace(FREE, sha256="b" * 64))
    write_scripted(given / "other", manifest)
    with open_bundle(given / "other") as opened:
        found = pack(opened, given / "other.zip").read_bytes()
    assert found != archive
    assert len(found) == len(archive)
    return found
