"""Frames that a thread of its own reads and decodes, while the tracker works on those before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgetrack.media.frames import Frame, FrameSource
from edgetrack.system.clock import Clock, MonotonicClock

_T = TypeVar("_T")
MOST_FRAMES = 3
"""Frames that wait, decoded; one more is in the thread's hands, and one in the tracker's."""
MOST_BYTES = 256 << 20
"""No second frame waits where the two together would be larger."""
_POLL_S = 0.5


@dataclass(frozen=True)
class Taken(Generic[_T]):
    """A frame that was read.

    Attributes:
        frame: the frame.
        number: its number in the source, from 0; those that were dropped count.
        taken_ns: when it was there, decoded, on the reader's clock.
    """

    frame: _T
    number: int
    taken_ns: int


class ReadAhead(Generic[_T]):
    """Iterates once over frames that a thread reads, in their order; a context manager that ends the thread.

    With `latest`, the newest frame alone waits, and one that nobody has taken when the next is there is dropped: its
    age, when it is taken, is at most the time between two frames. Without it no frame is lost: the thread waits
    while `most_frames` frames, or one frame and `most_bytes`, wait for the tracker.

    What reading raises is raised where the frame would have come, after those before it.

    Attributes:
        dropped: frames that were read and that nobody has taken.
    """

    def __init__(
        self,
        frames: Iterable[_T],
        size_of: Callable[[_T], int],
        *,
        latest: bool = False,
        interrupt: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        most_frames: int = MOST_FRAMES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Begin to read.

        Args:
            frames: what is iterated in the thread, once.
            size_of: a frame's bytes.
            latest: whether the newest frame alone is kept.
            interrupt: called by `close`; lets a read that waits end soon.
            clock: for `Taken.taken_ns`.
            most_frames, most_bytes: bounds of what waits.
        """
        self.dropped = 0
        self._size_of, self._latest, self._interrupt = size_of, latest, interrupt
        self._clock = clock or MonotonicClock()
        self._most_frames, self._most_bytes = most_frames, most_bytes
        self._waiting: deque[Taken[_T]] = deque()
        self._bytes = 0
        # Reentrant: a signal's handler calls `stop` in whatever line the main thread is.
        self._changed = threading.Condition(threading.RLock())
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        # A daemon: a read that never returns keeps no process alive whose user has asked twice.
        self._thread = threading.Thread(target=self._read, args=(frames,), name="edgetrack-read-ahead", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, source: FrameSource, *, latest: bool = False, clock: Clock | None = None) -> ReadAhead[Frame]:
        """The frames of a source, which is closed after this."""
        return ReadAhead(source, lambda frame: frame.nbytes, latest=latest, interrupt=source.interrupt, clock=clock)

    def age_ms(self, taken: Taken[_T]) -> float:
        """Milliseconds since the frame was there."""
        return (self._clock.now_ns() - taken.taken_ns) / 1e6

    def __iter__(self) -> Iterator[Taken[_T]]:
        while (taken := self._next()) is not None:
            yield taken

    def stop(self) -> None:
        """End the iteration before the next frame; may be called from another thread and from a signal's handler."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread, and wait for the read that it is in. May be called more than once."""
        self.stop()
        self._interrupt()
        self._thread.join()

    def __enter__(self) -> ReadAhead[_T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> Taken[_T] | None:
        with self._changed:
            while not (self._waiting or self._ended or self._stopped):
                # A signal's handler may call `stop` between the question and the wait.
                self._changed.wait(_POLL_S)
            if self._stopped:
                return None
            if not self._waiting:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                return None
            taken = self._waiting.popleft()
            self._bytes -= self._size_of(taken.frame)
            self._changed.notify_all()
            return taken

    def _read(self, frames: Iterable[_T]) -> None:
        error: BaseException | None = None
        number = 0
        try:
            for frame in frames:
                if not self._put(Taken(frame, number, self._clock.now_ns())):
                    break
                number += 1
                del frame  # or it would stay in memory while the next is read, as it would in `enumerate`
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def _put(self, taken: Taken[_T]) -> bool:
        """Let it wait for the tracker; False where no frame is wanted any more."""
        size = self._size_of(taken.frame)
        with self._changed:
            if self._latest:
                self.dropped += len(self._waiting)
                self._waiting.clear()
                self._bytes = 0
            while not self._stopped and self._is_full(size):
                self._changed.wait()
            if self._stopped:
                return False
            self._waiting.append(taken)
            self._bytes += size
            self._changed.notify_all()
            return True

    def _is_full(self, size: int) -> bool:
        return bool(self._waiting) and (
            len(self._waiting) >= self._most_frames or self._bytes + size > self._most_bytes
        )
