"""SSH connections through asyncssh: keys only, the host's key always checked, no shell text but what is quoted here.

SSH sends a command as one string, and the login shell of the other side takes it apart again. So everything in it is
fixed or goes through `command_line`, which quotes each word; what users name (bundles, options, frames) is sent on
the agent's stdin instead (`protocol.py`) and never becomes part of a command.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from edgetrack.devices.profiles import Host
from edgetrack.errors import BackendMissingError, DeviceUnavailableError

_CONNECT_S = 20
_LOGIN_S = 30
_KEEPALIVE_S = 10
_UNANSWERED = 3
"""Signs of life without an answer after which the other side is gone."""


def command_line(words: Sequence[str]) -> str:
    """Words as one string that a POSIX shell splits into exactly these words again, whatever is in them."""
    return " ".join(shlex.quote(word) for word in words)


def import_asyncssh() -> Any:
    """The package.

    Raises:
        BackendMissingError: it is not installed.
    """
    try:
        import asyncssh
    except ImportError as error:
        raise BackendMissingError(
            f"devices are reached through asyncssh, which is not installed ({error}); type: "
            "pip install 'edgetrack[devices]'"
        ) from error
    return asyncssh


@asynccontextmanager
async def connected(host: Host) -> AsyncIterator[Any]:
    """A connection that was authenticated by a key, to a host whose own key is known.

    Raises:
        BackendMissingError: asyncssh is not installed.
        DeviceUnavailableError: the host is unknown, does not answer, is not the one it was, or lets nobody in.
    """
    asyncssh = import_asyncssh()
    options: dict[str, Any] = {
        "known_hosts": str(host.known_hosts) if host.known_hosts else (),
        "preferred_auth": "publickey",
        "connect_timeout": _CONNECT_S,
        "login_timeout": _LOGIN_S,
        "keepalive_interval": _KEEPALIVE_S,
        "keepalive_count_max": _UNANSWERED,
    }
    if host.user:
        options["username"] = host.user
    if host.port:
        options["port"] = host.port
    if host.key:
        options["client_keys"] = [str(host.key)]
    with translated(host, "connecting"):
        prepared = await asyncssh.SSHClientConnectionOptions.construct(None, config=(), host=host.host, **options)
        if prepared.known_hosts is None:
            # `UserKnownHostsFile none` in ~/.ssh/config: asyncssh then takes any key, where ssh takes none.
            raise DeviceUnavailableError(
                f"{host.label}: your ssh configuration switches the check of its host key off (UserKnownHostsFile "
                "none); name a file with known_hosts = ... in devices.toml"
            )
        connection = await asyncssh.connect(host.host, **options)
    try:
        yield connection
    finally:
        connection.abort()
        await connection.wait_closed()


@contextmanager
def translated(host: Host, doing: str) -> Iterator[None]:
    """Turn what asyncssh and the network raise into an error that says what to do.

    Raises:
        DeviceUnavailableError: in place of theirs.
    """
    asyncssh = import_asyncssh()
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise DeviceUnavailableError(
            f"{host.label}: its host key is not the known one ({error}); connect once with ssh, compare the "
            "fingerprint with the device's own, and only then accept it"
        ) from None
    except asyncssh.PermissionDenied as error:
        raise DeviceUnavailableError(
            f"{host.label} does not let this user in ({error}); put your public key there with ssh-copy-id. Only keys "
            "are used, passwords are not"
        ) from None
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise DeviceUnavailableError(
            f"the key for {host.label} cannot be used: {error}; one with a passphrase must be in ssh-agent (ssh-add)"
        ) from None
    except (asyncssh.Error, OSError, asyncio.TimeoutError, EOFError) as error:
        gone = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
        if isinstance(error, asyncssh.SFTPError) and not isinstance(error, gone):
            raise DeviceUnavailableError(
                f"{host.label}: {doing}: {error.reason or error}; is its disk full? Nothing was measured"
            ) from None
        raise DeviceUnavailableError(
            f"{host.label}: {doing}: {str(error) or type(error).__name__}; what ran there is ended and nothing was "
            "written. Type the same command again: files that arrived are not sent again"
        ) from None
