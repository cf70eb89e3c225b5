"""Where a bundle lies that is not on this machine: `hf://OWNER/NAME[@REVISION]/FILE` or `https://HOST/PATH`.

Behind either may stand `#sha256=` and the hash of the zip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgetrack.errors import UsageError

_LONGEST = 2000
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(rf"hf://({_WORD}/{_WORD})(?:@({_WORD}))?/((?:{_WORD}/){{0,8}}{_WORD})")
_PIN = re.compile(r"sha256=([0-9a-f]{64})")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
GRAMMAR = "expected hf://OWNER/NAME[@REVISION]/FILE.zip or https://HOST/FILE.zip, with #sha256=HASH behind it"


@dataclass(frozen=True)
class WebAddress:
    """A file on a web server.

    Attributes:
        url: without the part behind `#`.
        sha256: of the file, where the address states it.
    """

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class HuggingFaceAddress:
    """A file in a repository of Hugging Face.

    Attributes:
        repository: owner and name.
        revision: a branch, tag or commit; None: the repository's own default.
        file: its path in the repository.
        sha256: of the file, where the address states it.
    """

    repository: str
    revision: str | None
    file: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}{f'@{self.revision}' if self.revision else ''}/{self.file}"


def parse_address(text: str) -> WebAddress | HuggingFaceAddress:
    """An address as a user types it.

    Raises:
        UsageError: it is none, names a server over plain HTTP, holds a password, or ends in no hash behind `#`.
    """
    base, mark, pin = text.partition("#")
    pinned = _PIN.fullmatch(pin)
    _require_plain(text)
    if mark and pinned is None:
        raise UsageError(f"{base}: behind # stands {pin!r}; expected sha256= and 64 digits of 0-9a-f")
    sha256 = pinned[1] if pinned else None
    if base.startswith("hf://"):
        found = _HUB.fullmatch(base)
        if found is None or ".." in base:
            raise UsageError(f"{base} is no address on Hugging Face; expected hf://OWNER/NAME[@REVISION]/FILE.zip")
        return HuggingFaceAddress(found[1], found[2], found[3], sha256)
    require_allowed(base)
    return WebAddress(base, sha256)


def require_allowed(url: str, before: str | None = None) -> None:
    """Check that a bundle may be fetched from a URL, or that a redirect may lead there.

    Args:
        url: where to.
        before: the URL that redirects there, which was allowed.

    Raises:
        UsageError: neither https nor http on this machine itself, no server, or a password in it; or a redirect that
            leaves https, or this machine.
    """
    _require_plain(url)
    try:
        parts = urlsplit(url)
        host, password = parts.hostname, "@" in parts.netloc
        parts.port  # noqa: B018 - raises ValueError for one that is none
    except ValueError as error:
        raise UsageError(f"{url} is no address: {error}; {GRAMMAR}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{url} is no address that bundles are fetched from; {GRAMMAR}")
    if password:
        raise UsageError(f"{parts.scheme}://{host}: the address holds a user or password; give one without")
    if before is not None and host in _LOCAL and urlsplit(before).hostname not in _LOCAL:
        raise UsageError(f"{before} redirects to this machine ({host}), which is refused")
    if parts.scheme == "http" and (host not in _LOCAL or (before is not None and before.startswith("https:"))):
        raise UsageError(
            f"{url} is plain HTTP, which anybody on the way can change; "
            + ("give an https address" if before is None else f"{before} redirects there, which is refused")
        )


def _require_plain(text: str) -> None:
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(f"{text[:80]!r} is no address; {GRAMMAR}")
