"""One file over HTTPS into a part file that a cut download leaves behind, and that the next one goes on from."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import msgspec

from edgetrack import __version__
from edgetrack.errors import HubError, UsageError
from edgetrack.hub.address import require_allowed
from edgetrack.io import BAD_JSON, encode_json, replace_whole
from edgetrack.presentation.progress import Progress

_CHUNK = 256 << 10
_TIMEOUT_S = 30.0
_MOST_REDIRECTS = 5
_MOST_ATTEMPTS = 5
_MIB = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Seen(msgspec.Struct, frozen=True):
    """By what a server tells one version of the file from the next, as `If-Range` takes it; of the bytes kept."""

    validator: str


class CutError(Exception):
    """The connection ended before the file did."""


class PartFile:
    """What was received of a file so far; whoever has it has a lock on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = path.with_suffix(".json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() and not self.path.is_symlink() else 0

    @property
    def validator(self) -> str | None:
        """Of the version that they are of; None where the server stated none."""
        try:
            return msgspec.json.decode(self._seen.read_bytes(), type=_Seen).validator
        except (OSError, *BAD_JSON):
            return None

    def begin(self, validator: str | None) -> None:
        """Start again, with the bytes of this version."""
        self.remove()
        self.path.touch(exist_ok=False)
        if validator is not None:
            replace_whole(self._seen, encode_json(_Seen(validator)))

    def remove(self) -> None:
        """Keep nothing."""
        self.path.unlink(missing_ok=True)
        self._seen.unlink(missing_ok=True)


def download(url: str, part: PartFile, *, pinned: bool, largest: int, progress: Progress) -> None:
    """Receive a file, from where an earlier attempt was cut; a connection that is cut is taken up again.

    Args:
        url: https, or http on this machine.
        part: where the bytes go; what it has is completed, if the server still has the same version.
        pinned: whether the hash of the whole is known, so that a mixture of two versions would be found out.
        largest: bytes that it may have.
        progress: told the MiB that are there and in all, 0 where the server does not say.

    Raises:
        HubError: the server cannot be reached, has no such file, sends more than `largest`, or the disk takes no more.
        UsageError: it redirects to where nothing is fetched from.
    """
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        had = part.size
        try:
            _receive(url, part, pinned, largest, progress)
            return
        except CutError as error:
            kept = part.size
            thrown_away = had > 0 and kept == 0
            if attempt == _MOST_ATTEMPTS or (kept <= had and not thrown_away):
                words = f"; {kept / _MIB:.1f} MiB are kept: type the same again to go on" if kept else ""
                raise HubError(f"{url}: the download was cut: {str(error) or type(error).__name__}{words}") from error


def _receive(url: str, part: PartFile, pinned: bool, largest: int, progress: Progress) -> None:
    had, validator = part.size, part.validator
    headers = {"User-Agent": f"edgetrack/{__version__}", "Accept-Encoding": "identity"}
    if had and (pinned or validator):
        headers["Range"] = f"bytes={had}-"
        if validator:
            headers["If-Range"] = validator
    with _open(url, headers) as answer:
        if answer.status == 416:
            if answer.headers.get("Content-Range") == f"bytes */{had}":
                return
            part.remove()
            raise CutError("the server has not the rest of what is here")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise HubError(f"{url}: the server packs the file on the way, which was not asked for; try another one")
        total = _start(answer, part, had)
        if total is not None and total > largest:
            part.remove()
            raise HubError(too_large(url, total, largest))
        _keep(answer, part, url, total, largest, progress)


def _start(answer: Any, part: PartFile, had: int) -> int | None:
    """Make ready to append the answer's bytes; the size of the whole, None where it is not stated."""
    if answer.status == 206:
        stated = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if stated is None or int(stated[1]) != had:
            part.remove()
            raise CutError("the server sent another part than was asked for")
        return int(stated[2])
    etag = answer.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
    part.begin(validator)
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,15}", length) else None


def _keep(answer: Any, part: PartFile, url: str, total: int | None, largest: int, progress: Progress) -> None:
    size, what = part.size, f"fetching {url}"
    try:
        with part.path.open("ab") as file:
            while block := _next(answer):
                size += len(block)
                if size > largest:
                    raise HubError(too_large(url, size, largest))
                _append(file, block, part)
                progress(what, size // _MIB, (total or 0) // _MIB)
    except HubError:
        if size > largest:
            part.remove()
        raise
    if total is not None and size > total:
        part.remove()
        raise HubError(f"{url}: the server sent more than the {total} bytes that it stated; nothing is kept")
    if total is not None and size < total:
        raise CutError(f"{size} of {total} bytes came")


def _next(answer: Any) -> bytes:
    try:
        block: bytes = answer.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise CutError(str(error) or type(error).__name__) from error
    return block


def _append(file: IO[bytes], block: bytes, part: PartFile) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        raise HubError(f"{part.path.parent} takes no more: {error.strerror or error}") from error


def too_large(url: str, size: int, largest: int) -> str:
    """What is said of a file of `size` bytes or more, where `largest` are allowed."""
    return f"{url} has {size / _MIB:.0f} MiB or more; at most {largest / _MIB:.0f} are fetched: raise --max-size"


def _open(url: str, headers: dict[str, str]) -> Any:
    """The answer to a request, behind redirects: one of status 200, 206 or 416."""
    here = url
    for _ in range(_MOST_REDIRECTS + 1):
        answer = _answer(here, headers)
        if answer.status not in _REDIRECTS:
            return answer
        answer.close()
        try:
            there = urljoin(here, answer.headers.get("Location", ""))
            require_allowed(there, here)
        except (UsageError, ValueError) as error:
            raise HubError(f"{here} redirects to where nothing is fetched from: {error}") from None
        here = there
    raise HubError(f"{url} redirects more than {_MOST_REDIRECTS} times; give the address where the file lies")


def _answer(url: str, headers: dict[str, str]) -> Any:
    opener = urllib.request.OpenerDirector()
    local = urlsplit(url).scheme == "http"
    for handler in (
        urllib.request.ProxyHandler({} if local else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(handler)
    try:
        # No handler of redirects and errors: what comes is looked at here. The scheme was checked.
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.URLError as error:
        raise HubError(f"{url} cannot be reached: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise CutError(str(error) or type(error).__name__) from error
    if answer is None:
        raise HubError(f"{url} cannot be reached: nothing here speaks its protocol")
    if answer.status in {200, 206, 416, *_REDIRECTS}:
        return answer
    answer.close()
    advice = {401: "it is not public", 403: "it is not public", 404: "there is no such file"}.get(answer.status, "")
    raise HubError(f"{url}: the server says {answer.status} {answer.reason}" + (f": {advice}" if advice else ""))
