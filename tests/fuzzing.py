"""What damages inputs, and a process of its own in which damaged inputs are read.

    python -m tests.fuzzing KIND FIRST_SEED COUNT FOLDER

reads `COUNT` damaged inputs of a kind, each made from its seed alone, and prints a `Tally`: how many were fine, how
many ended in an error of ours, the longest, and the memory that all took. Anything else ends the process: a traceback
names the seed, and so does the file `seed` in the folder where the process is killed. The kinds are in
`tests/hostile.py`.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[1]
# Processor time of one input; ten times as much on the clock is a hang.
PATIENCE_S = 30.0
ADDRESS_SPACE = 3 << 30
"""Bytes that a process may map beyond what its libraries have: what asks for more ends as a MemoryError."""

POISON = [
    "[/red]", "[bold]x", "[link=http://x]y[/link]", "\x1b]0;owned\x07", "\x1b[2J\x1b[31m", "\x9b31m", "\r::error::x",
    "%0A::set-output name=x::y", "<script>alert(1)</script>", "${jndi:x}", "{0}", "%s%n", "..", "../../x",
    "/etc/passwd", "\0", "a\nb", "\u202eevil", "\u200b",
    "NaN", "-0", "1e999", "x" * 5000, "é" * 300, "💥", "'; DROP TABLE", "| a | b |", "`x`", "C:\\con", " ", "",
]  # fmt: skip
NUMBERS: list[Any] = [
    0, -1, 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, -1e308, 5e-324, 1e18, 255, 65536,
]  # fmt: skip
OTHERS: list[Any] = [None, True, False, [], {}, [[]], {"": ""}, [0] * 2000, {"a": {"b": {"c": {}}}}]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, doubled, moved, zeroed or swapped at one place or a few."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not out:
            break
        at = rng.randrange(len(out))
        length = min(len(out) - at, rng.choice([1, 2, 4, 8, 64, 1024]))
        way = rng.randrange(8)
        if way == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            out[at : at + length] = rng.randbytes(length)
        elif way == 2:
            del out[at:]
        elif way == 3:
            del out[at : at + length]
        elif way == 4:
            out[at:at] = out[at : at + length] * rng.choice([1, 2, 50])
        elif way == 5:
            out[at : at + length] = bytes([rng.choice([0, 0x7F, 0x80, 0xFF])]) * length
        elif way == 6:
            value = rng.choice([0, 1, 2**15, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, rng.getrandbits(32)])
            width = rng.choice([2, 4, 8])
            out[at : at + width] = (value % 256**width).to_bytes(width, rng.choice(["little", "big"]))  # type: ignore[arg-type]
        else:
            to = rng.randrange(len(out))
            piece = bytes(out[at : at + length])
            out[to : to + len(piece)] = piece
    return bytes(out)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to every part of plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def spoiled(value: Any, rng: random.Random) -> Any:
    """Plain data with one part or a few replaced, removed, doubled, or given hostile names, numbers and texts."""
    root = {"": copy.deepcopy(value)}
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice([way for way in places(root) if way])
        parent = root
        for key in path[:-1]:
            parent = parent[key]
        key, old = path[-1], parent[path[-1]]
        way = rng.randrange(7)
        if way == 0 and len(path) > 1:
            del parent[key]
        elif way == 1 and isinstance(parent, dict) and len(path) > 1:
            parent[rng.choice(POISON)] = parent.pop(key)
        elif way == 2:
            parent[key] = copy.deepcopy(rng.choice(OTHERS))
        elif way == 3 and isinstance(old, list) and old:
            parent[key] = copy.deepcopy(old * rng.choice([2, 50]))
        elif way == 4 and isinstance(old, str):
            at = rng.randrange(len(old) + 1)
            parent[key] = old[:at] + rng.choice(POISON) + old[at:]
        elif way == 5:
            parent[key] = rng.choice(POISON)
        else:
            parent[key] = -old if isinstance(old, (int, float)) and rng.random() < 0.2 else rng.choice(NUMBERS)
    return root[""]


def spoiled_json(value: Any, rng: random.Random) -> bytes:
    """JSON of spoiled data, in one of ten damaged once more, in one of thirty nested without end."""
    data = json.dumps(spoiled(value, rng)).encode("utf-8", "replace")
    if rng.random() < 0.03:
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.choice([b"[", b'{"a":']) * rng.choice([100, 100_000]) + data[at:]
    return damaged(data, rng) if rng.random() < 0.1 else data


def spoiled_lines(text: str, rng: random.Random) -> bytes:
    """Text with lines removed, doubled, moved, or with hostile words; then perhaps damaged as bytes."""
    lines = text.splitlines()
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(lines)) if lines else 0
        way = rng.randrange(5)
        if not lines or way == 0:
            lines.insert(at, rng.choice(POISON))
        elif way == 1:
            del lines[at]
        elif way == 2:
            lines.insert(at, rng.choice(lines))
        else:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = rng.choice([*POISON, *map(str, NUMBERS), "nan", "inf", '"', "[", "= ="])
            lines[at] = " ".join(words)
    data = "\n".join(lines).encode("utf-8", "replace")
    return damaged(data, rng) if rng.random() < 0.2 else data


class Tally(msgspec.Struct):
    """What came of damaged inputs: read all the same, or an error of ours by its class; nothing else is allowed."""

    kind: str
    tried: int = 0
    fine: int = 0
    errors: dict[str, int] = {}
    slowest_s: float = 0.0
    memory_mb: float = 0.0

    def line(self) -> str:
        """For people."""
        named = ", ".join(f"{name} {count}" for name, count in sorted(self.errors.items()))
        return (
            f"{self.kind}: {self.tried} tried, {sum(self.errors.values())} clear errors ({named or 'none'}), "
            f"{self.fine} fine, 0 crashes; slowest {self.slowest_s:.2f} s, {self.memory_mb:.0f} MB more"
        )


Attempt = Callable[[random.Random], object]
"""Damages an input and reads it; an EdgetrackError, or none, is what is expected of it."""


def read_all(kind: str, attempt: Attempt, first: int, count: int, folder: Path) -> Tally:
    """Run attempts in this process, which nothing else uses."""
    import resource

    from edgetrack.errors import EdgetrackError

    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    tally = Tally(kind)
    status = Path("/proc/self/statm")
    if status.exists():
        mapped = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first, first + count):
        (folder / "seed").write_text(str(seed))
        faulthandler.dump_traceback_later(10 * PATIENCE_S, exit=True)
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
        begun = time.process_time()
        try:
            attempt(random.Random(seed))
            tally.fine += 1
        except EdgetrackError as error:
            name = type(error).__name__ if str(error) else "error without words"
            tally.errors[name] = tally.errors.get(name, 0) + 1
        except BaseException:
            print(f"seed {seed} of {kind}", file=sys.stderr)
            raise
        tally.slowest_s = max(tally.slowest_s, time.process_time() - begun)
        tally.tried += 1
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_PROF, 0)
    tally.memory_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return tally


def in_process(kind: str, first: int, count: int, folder: Path) -> Tally:
    """The same in a child; AssertionError with its last words where it ended in any other way."""
    command = [sys.executable, "-m", "tests.fuzzing", kind, str(first), str(count), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        seed = (folder / "seed").read_text() if (folder / "seed").exists() else "none"
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        raise AssertionError(
            f"{kind}, seed {seed}: {how}; to see it again: python -m tests.fuzzing {kind} {seed} 1 FOLDER\n"
            + done.stderr[-6000:]
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Tally)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of libraries."""
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def main() -> None:
    """See the module."""
    kind, first, count, folder = sys.argv[1:]
    from tests.hostile import KINDS

    with quiet():
        tally = read_all(kind, KINDS[kind](Path(folder)), int(first), int(count), Path(folder))
    print(msgspec.json.encode(tally).decode())


if __name__ == "__main__":
    main()
