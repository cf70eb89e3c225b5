"""SSH connections through asyncssh: keys only, the host's key always checked, no shell text but what is quoted here.

SSH sends a command as one string, and the login shell of the other side takes it apart again. So everything in it is
fixed or goes through `command_line`, which quotes each word; what users name (bundles, options, frames) is sent on
the agent's stdin instead (`protocol.py`) and never becomes part of a command.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from edgetrack.devices.profiles import Host
from edgetrack.devices.protocol import LONGEST_MESSAGE
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, WorkerError
from edgetrack.presentation.sanitize import printable

_CONNECT_S = 20
_LOGIN_S = 30
_KEEPALIVE_S = 10
_UNANSWERED = 3
"""Signs of life without an answer after which the other side is gone."""
MOST_OUTPUT = 64 << 20
"""Bytes of a process on a device, stdout and stderr together: some hundred times what a long benchmark writes."""
_CHUNK = 1 << 16
_STDERR_TAIL = 4096
_LAST_WORDS_S = 5.0


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
    given = {"username": host.user, "port": host.port, "client_keys": [host.key] if host.key else None}
    options: dict[str, Any] = {
        **{name: value for name, value in given.items() if value},
        "known_hosts": host.known_hosts or (),
        "preferred_auth": "publickey",
        "connect_timeout": _CONNECT_S,
        "login_timeout": _LOGIN_S,
        "keepalive_interval": _KEEPALIVE_S,
        "keepalive_count_max": _UNANSWERED,
    }
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
def translated(host: Host, doing: str, *, running: bool = False) -> Iterator[None]:
    """Turn what asyncssh and the network raise into an error that says what to do.

    Args:
        host: the other side.
        doing: what fails, for messages.
        running: whether something was started there, which then ends with the connection.

    Raises:
        DeviceUnavailableError: in place of theirs.
    """
    asyncssh = import_asyncssh()
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise DeviceUnavailableError(
            f"{host.label}: its host key is not the known one ({printable(str(error))}); connect once with ssh, "
            "compare the fingerprint with the device's own, and only then accept it"
        ) from None
    except asyncssh.PermissionDenied as error:
        raise DeviceUnavailableError(
            f"{host.label} does not let this user in ({printable(str(error))}); put your public key there with "
            "ssh-copy-id. Only keys are used, passwords are not"
        ) from None
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise DeviceUnavailableError(
            f"the key for {host.label} cannot be used: {error}; one with a passphrase must be in ssh-agent (ssh-add)"
        ) from None
    except socket.gaierror as error:
        raise DeviceUnavailableError(
            f"the host {host.host} cannot be found ({error.strerror}); check its name in --host, devices.toml or "
            "~/.ssh/config, or give its address"
        ) from None
    except (asyncssh.Error, OSError, asyncio.TimeoutError, EOFError) as error:
        gone = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
        words = printable(str(error) or type(error).__name__)
        if isinstance(error, asyncssh.SFTPError) and not isinstance(error, gone):
            end = "is its disk full? Nothing was measured"
        elif running:
            end = (
                "what ran there is ended and nothing was written. Type the same command again: files that arrived are "
                "not sent again"
            )
        else:
            end = "nothing was measured; see that it is switched on and that ssh reaches it"
        raise DeviceUnavailableError(f"{host.label}: {doing}: {words}; {end}") from None


class RemoteProcess:
    """A process on a device, whose output is read within limits.

    Args:
        host: where it runs, for messages.
        connection: asyncssh's; it is aborted when stderr exceeds the limit.
        process: asyncssh's, started with `encoding=None`.
    """

    def __init__(self, host: Host, connection: Any, process: Any) -> None:
        self._host, self._connection, self._process = host, connection, process
        self._pending = bytearray()
        self._received = 0
        self._stderr = b""
        self._fault: WorkerError | None = None
        # Read all the time: both share one buffer of asyncssh, and a stderr that nobody reads would stop stdout.
        self._stderr_reader = asyncio.create_task(self._read_stderr())

    @classmethod
    async def start(cls, host: Host, connection: Any, words: Sequence[str]) -> RemoteProcess:
        """Start a command; each of its words arrives unchanged."""
        return cls(host, connection, await connection.create_process(command_line(words), encoding=None))

    def write(self, data: bytes) -> None:
        """Send to its stdin; that it has ended is seen at its stdout."""
        with suppress(OSError):
            self._process.stdin.write(data)

    async def line(self) -> bytes:
        """The next line of its stdout with its line feed; without one, or empty, where stdout ends.

        Raises:
            WorkerError: a line, or the whole output, is longer than any that edgetrack writes.
        """
        searched = 0
        while (end := self._pending.find(b"\n", searched) + 1) == 0:
            searched = len(self._pending)
            part = await self._read_stdout()
            if not part:
                end = searched
                break
            self._pending += part
            if len(self._pending) > LONGEST_MESSAGE:
                raise self._excess(f"a line of more than {LONGEST_MESSAGE >> 20} MiB")
        line = bytes(self._pending[:end])
        del self._pending[:end]
        return line

    async def result(self) -> tuple[int | None, bytes]:
        """Its exit code and all that it wrote to stdout."""
        self._process.stdin.write_eof()
        lines = []
        while line := await self.line():
            lines.append(line)
        await self.wait()
        return self._process.exit_status, b"".join(lines)

    async def wait(self) -> None:
        """Until it has ended."""
        await self._process.wait_closed()

    async def last_words(self) -> str:
        """The last line of its stderr, or nothing."""
        await asyncio.wait({self._stderr_reader}, timeout=_LAST_WORDS_S)
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        return printable(lines[-1]) if lines else ""

    async def _read_stdout(self) -> bytes:
        try:
            part: bytes = await self._process.stdout.read(_CHUNK)
        except Exception:
            if self._fault is None:
                raise
        if self._fault is not None:
            raise self._fault
        self._count(part)
        return part

    async def _read_stderr(self) -> None:
        try:
            while part := await self._process.stderr.read(_CHUNK):
                self._stderr = (self._stderr + part)[-_STDERR_TAIL:]
                self._count(part)
        except WorkerError as error:
            self._fault = error
            self._connection.abort()
        except Exception:  # the connection is lost; reading stdout reports it
            return

    def _count(self, part: bytes) -> None:
        self._received += len(part)
        if self._received > MOST_OUTPUT:
            raise self._excess(f"more than {MOST_OUTPUT >> 20} MiB of output")

    def _excess(self, what: str) -> WorkerError:
        return WorkerError(f"{self._host.label} sent {what}, which no edgetrack does; the connection was cut")
