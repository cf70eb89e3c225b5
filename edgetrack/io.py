"""Files and lines: written whole or not at all, read strictly, hashed and locked."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TypeVar

import msgspec

from edgetrack.decoding import converted
from edgetrack.errors import EdgetrackError, UsageError

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable

    import tomllib
else:
    from importlib.abc import Traversable

    import tomli as tomllib

_T = TypeVar("_T")
_CHUNK = 1 << 20
LARGEST_TOML = 64 << 10
"""Bytes; people write such files by hand."""
LARGEST_TEXT = 64 << 20
LARGEST_JSON = 256 << 20
BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is none, is of another type, or is nested too deeply."""
_SHOWN = 120
_SCRATCH = "edgetrack-scratch-"
_FRESH_S = 60
_LOCK_STEP_S = 0.05


def check_output(path: Path | None, *, overwrite: bool) -> None:
    """Refuse, before anything is done for it, a file that exists and may not be replaced; a device is no such file.

    Raises:
        UsageError: it exists.
    """
    if path is not None and path.exists() and not overwrite and not _is_device(path):
        raise UsageError(f"{path} exists; give another path, or --overwrite replaces it")


def _is_device(path: Path) -> bool:
    """Whether it is /dev/null, /dev/stdout, a pipe ..., which is written to and never replaced."""
    return path.exists() and not path.is_dir() and (not path.is_file() or path.parent.resolve() == Path("/dev"))


def replace_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file's parts, one behind the other, through a temporary sibling; its folder is made where missing.

    A device or pipe is written to as it is.

    Raises:
        OSError: it cannot be written; what was there is kept.
    """
    if _is_device(path):
        with path.open("wb") as device:
            for part in parts:
                device.write(part)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """The same, with an error that says what to type.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    try:
        replace_whole(path, *parts)
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be written: {error.strerror or error}; give another --output") from error


def _umask() -> int:
    # Reading it means setting it; mkstemp gave the file 0600 whatever it is.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class ScratchFolder:
    """A temporary folder for this user only, removed at the end of a `with`, by `remove()`, or at exit.

    It is locked while its process lives: what runs that were killed left behind is swept by the next (not where there
    are no locks, nor on Windows, which opens no folders).

    Raises:
        EdgetrackError: there is no place for it.
    """

    def __init__(self) -> None:
        try:
            _sweep(Path(tempfile.gettempdir()))
            self.path = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        except OSError as error:
            raise EdgetrackError(
                f"no temporary folder can be made: {error.strerror or error}; set TMPDIR to a folder with free space"
            ) from None
        self.remove = weakref.finalize(self, _remove, self.path, _lock_of(self.path))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _lock_of(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process does, or nothing can be locked."""
    try:
        descriptor = os.open(folder, open_flags("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW"))
    except PermissionError:  # Windows
        return None
    if hold(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _sweep(temporary: Path) -> None:
    for folder in temporary.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            info = folder.lstat()
            # A fresh one may not be locked yet.
            old = time.time() - info.st_mtime > _FRESH_S
            private = stat.S_IMODE(info.st_mode) == 0o700 and os.access(folder, os.W_OK)
            if stat.S_ISDIR(info.st_mode) and old and private and (lock := _lock_of(folder)) is not None:
                _remove(folder, lock)


def open_flags(*names: str) -> int:
    """The flags of `os.open` for these names, as far as this system has them; files are never read as Windows text."""
    return sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", *names))


def hold(descriptor: int) -> bool | None:
    """Lock an open file or folder until the descriptor is closed, without waiting.

    Returns:
        Whether it is held now; False where another process or descriptor holds it, None where there are no locks.
    """
    import warnings  # like the next one, only for a process that writes something

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Python without locks; that is what None says
        from filelock import lock_descriptor
    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError:
        return None


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has this name: who held it before may have just renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a file for reading; a folder, pipe or device is neither opened nor waited for.

    Args:
        path: the file, or a link to it.
        follow: without it a link is refused, too.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    flags = open_flags("O_RDONLY", "O_NONBLOCK", *(() if follow else ("O_NOFOLLOW",)))
    try:
        # Opening a device may wind a tape or start a watchdog; whoever writes to a pipe would go on.
        _refuse_irregular(path.stat(follow_symlinks=follow).st_mode, path)
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        _refuse_irregular(os.fstat(descriptor).st_mode, path)
    except OSError:  # it was replaced meanwhile
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_irregular(mode: int, path: Path) -> None:
    if stat.S_ISREG(mode):
        return
    code, text = errno.EINVAL, "a pipe or device"
    if stat.S_ISDIR(mode):
        code, text = errno.EISDIR, "a folder"
    elif stat.S_ISLNK(mode):
        code, text = errno.ELOOP, "a link"
    raise OSError(code, f"{text}, not a regular file", str(path))


def read_bytes(path: Path, largest: int = LARGEST_JSON) -> bytes:
    """All of a regular file of at most `largest` bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    with open_regular(path) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(errno.EFBIG, f"larger than {largest >> 10} KiB", str(path))
    return data


class BoundedReads:
    """An open file for zipfile that refuses to be read in pieces larger than `largest` bytes: its directory is one."""

    def __init__(self, file: IO[bytes], largest: int) -> None:
        self._file = file
        self._largest = largest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file; zipfile.BadZipFile where more is wanted at once."""
        wanted = self._largest if size is None or size < 0 else size
        if wanted > self._largest:
            raise zipfile.BadZipFile(f"its directory claims {wanted} bytes")
        return self._file.read(wanted)


def sha256(source: Path | IO[bytes] | bytes) -> str:
    """The SHA-256 of a file, of what is left to read of an open one, or of bytes, in hexadecimal."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, Path):
        with open_regular(source) as file:
            return sha256(file)
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def locked(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Keep other processes out of `locked(path)` while the block runs; the lock file is removed at its end.

    Where the file system has no locks, or the folder cannot be written, the block runs without one.

    Args:
        path: the lock file; its folder exists.
        timeout_s: how long to wait for others; below 0, for ever.

    Raises:
        TimeoutError: another process holds it.
    """
    end = time.monotonic() + (timeout_s if timeout_s >= 0 else math.inf)
    while True:
        try:
            descriptor = os.open(path, open_flags("O_CREAT", "O_RDWR"), 0o666)
        except OSError:
            yield
            return
        if hold(descriptor) is not False and is_at(descriptor, path):
            break
        os.close(descriptor)
        if time.monotonic() >= end:
            raise TimeoutError(f"{path} is locked by another process")
        time.sleep(_LOCK_STEP_S)
    try:
        yield
    finally:
        # While it is held: who waits for this file sees that it has gone and makes a new one.
        with suppress(OSError):  # Windows removes no open file
            path.unlink()
        os.close(descriptor)


_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(s|m|min|h|)")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(
    text: str, what: str = "a time", *, plain: Literal["s", "m"] = "s", zero_allowed: bool = False
) -> float:
    """Seconds of a time as people write it: `45s`, `30m`, `1.5h`, or a number alone, whose unit is `plain`.

    Raises:
        UsageError: it is none, or 0 where that is not allowed.
    """
    match = _TIME.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2] or plain] if match else -1.0
    if seconds < 0 or (seconds == 0 and not zero_allowed):
        unit, at_least = {"s": "seconds", "m": "minutes"}[plain], "of 0 or more" if zero_allowed else "above 0"
        raise UsageError(f"{what} is {text!r}; expected a time {at_least}, such as 90 ({unit}), 45s, 30m or 1.5h")
    return seconds


def read_text(
    path: Path | Traversable, *, error: type[EdgetrackError] = UsageError, largest: int = LARGEST_TEXT
) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        error: class of the errors.
        largest: in bytes.

    Raises:
        EdgetrackError: of class `error`: it cannot be read, is too large or is not UTF-8; the message names the line.
    """
    try:
        with open_regular(path) if isinstance(path, Path) else path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as fault:
        raise error(f"{path} cannot be read: {fault.strerror or fault}") from None
    if len(data) > largest:
        raise error(f"{path} is larger than {largest >> 10} KiB; that is no such text file")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise error(f"{path} is UTF-16 or no text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        # Positions do not count the mark.
        at = fault.start + len(codecs.BOM_UTF8) * data.startswith(codecs.BOM_UTF8)
        line = data[:at].count(b"\n") + 1
        raise error(f"line {line} of {path} is not UTF-8 (byte 0x{data[at]:02x}); save it as UTF-8") from None


def read_toml(
    path: Path | Traversable,
    type_: type[_T],
    what: str,
    *,
    error: type[EdgetrackError] = UsageError,
    largest: int = LARGEST_TOML,
    advice: str = "",
) -> _T:
    """A TOML file as an object of a type.

    Args:
        path: the file.
        type_: what msgspec converts it to, strictly.
        what: its kind, for messages: "recipe".
        error: class of the errors.
        largest: in bytes.
        advice: what to do, for the end of messages.

    Raises:
        EdgetrackError: of class `error`: it cannot be read, is too large, is not TOML, or not of that type.
    """
    end = f"; {advice}" if advice else ""
    try:
        text = read_text(path, largest=largest)
    except UsageError as fault:
        raise error(f"{what} {fault}{end}") from None
    try:
        plain = tomllib.loads(text)
    except (ValueError, RecursionError) as fault:  # not TOML, a number of 5000 digits, 1000 brackets
        raise error(f"{what} {path} is not TOML: {fault}{end}") from None
    return converted(plain, type_, lambda words: error(f"{path} is not a {what} of schema 1: {words}{end}"))


def toml_value(value: object) -> str:
    """A value as TOML writes it on one line: as JSON, but no surrogate escapes, DEL escaped, and tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def readable(text: str) -> str:
    """Text in which a byte of a file name that is not UTF-8 (Python holds it as half of a pair) reads `\\udcc4`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def encode_json(value: Any, *, indent: int | None = None, order: Literal["deterministic"] | None = None) -> bytes:
    """A struct or plain data as JSON; texts are made `readable` where they must be."""
    try:
        data = msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_all_readable(msgspec.to_builtins(value)), order=order)
    return data if indent is None else msgspec.json.format(data, indent=indent)


def _all_readable(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_all_readable(item) for item in value]
    return {readable(k): _all_readable(v) for k, v in value.items()} if isinstance(value, dict) else value


def encode_line(message: msgspec.Struct) -> bytes:
    """One line, with its line feed.

    Raises:
        UsageError: a name in it is not UTF-8, so that the other process could not open the file.
    """
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError as error:
        raise UsageError(f"the name {readable(error.object)!r} is not UTF-8; rename the file or folder") from None


def decode_line(line: bytes, decoder: msgspec.json.Decoder[_T], refused: Callable[[str, str], Exception]) -> _T:
    """The message of a line.

    Args:
        line: whatever the other process wrote.
        decoder: of the messages that it may send.
        refused: makes the exception from the line's start, quoted, and what is wrong with it.

    Raises:
        Exception: what `refused` returned; the line is no such message.
    """
    try:
        return decoder.decode(line)
    except BAD_JSON as error:
        text = line[:_SHOWN].decode("utf-8", "replace").rstrip("\n")
        raise refused(repr(text + ("..." if len(line) > _SHOWN else "")), str(error)) from None
