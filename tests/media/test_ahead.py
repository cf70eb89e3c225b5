"""Frames that a thread reads ahead: their order, how many wait, how old they are, and how reading ends."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import SourceInterruptedError
from edgetrack.media.ahead import ReadAhead
from edgetrack.media.frames import Frame, quiet_cv2
from edgetrack.system.clock import ManualClock

MS = 1_000_000
PERIOD_MS = 33


class Camera:
    """Frames that arrive when the test says so, each `PERIOD_MS` after the last; their values are their number."""

    def __init__(self, clock: ManualClock, count: int = 250, error: Exception | None = None) -> None:
        self.clock, self.count, self.error = clock, count, error
        self.allowed, self.asked = threading.Semaphore(0), threading.Semaphore(0)

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.count):
            self.asked.release()
            self.allowed.acquire()
            self.clock.advance(PERIOD_MS * MS)
            yield np.full((2, 2, 3), number, np.uint8)
        if self.error is not None:
            raise self.error

    def shoot(self, frames: int) -> None:
        """Let so many frames arrive; each is with the reader when this returns."""
        for _ in range(frames):
            self.asked.acquire()
            self.allowed.release()
        self.asked.acquire()  # the next is asked for only after the last was put down
        self.asked.release()

    def interrupt(self) -> None:
        self.count = 0
        self.allowed.release()


def size(frame: Frame) -> int:
    return frame.nbytes


def numbers(reader: ReadAhead[Frame], most: int | None = None) -> list[int]:
    found = []
    for taken in reader:
        assert int(taken.frame[0, 0, 0]) == taken.number
        found.append(taken.number)
        if len(found) == most:
            break
    return found


def test_under_a_slow_tracker_the_newest_frame_alone_is_taken_and_its_age_is_bounded() -> None:
    """The tracker takes 10 periods a frame: what it gets is never older than a period, and nine of ten are dropped."""
    clock = ManualClock()
    camera = Camera(clock)
    with ReadAhead(camera, size, latest=True, interrupt=camera.interrupt, clock=clock) as reader:
        ages, taken_numbers = [], []
        camera.shoot(1)
        for taken in reader:
            ages.append(reader.age_ms(taken))
            taken_numbers.append(taken.number)
            if len(ages) == 20:
                break
            camera.shoot(10)  # while it is tracked
            assert reader.age_ms(taken) == ages[-1] + 10 * PERIOD_MS
    assert taken_numbers == list(range(0, 200, 10))
    assert max(ages) <= PERIOD_MS
    assert reader.dropped == 19 * 9


def test_a_slow_tracker_that_takes_every_frame_loses_none_and_they_grow_old() -> None:
    clock = ManualClock()
    camera = Camera(clock)
    with ReadAhead(camera, size, interrupt=camera.interrupt, clock=clock, most_frames=3) as reader:
        camera.shoot(3)
        first = next(iter(reader))
        assert first.number == 0
        assert reader.age_ms(first) == 2 * PERIOD_MS
        camera.shoot(1)
        assert numbers(reader, 3) == [1, 2, 3]
    assert reader.dropped == 0


class Block:
    """A frame of so many bytes, as far as the reader knows."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class Counting:
    """Frames of `sizes` bytes; knows how many of them exist at a time."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.alive: weakref.WeakSet[Block] = weakref.WeakSet()
        self.most_bytes = self.most_frames = 0

    def __iter__(self) -> Iterator[Block]:
        for nbytes in self.sizes:
            frame = Block(nbytes)
            self.alive.add(frame)
            there = [one.nbytes for one in list(self.alive)]
            self.most_frames, self.most_bytes = max(self.most_frames, len(there)), max(self.most_bytes, sum(there))
            yield frame
            del frame


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=40),
    most_frames=st.integers(1, 5),
    most_bytes=st.integers(1, 200),
)
def test_order_is_kept_and_what_waits_is_bounded(sizes: list[int], most_frames: int, most_bytes: int) -> None:
    source = Counting(sizes)
    with ReadAhead(source, lambda block: block.nbytes, most_frames=most_frames, most_bytes=most_bytes) as reader:
        found = []
        for taken in reader:
            found.append((taken.number, taken.frame.nbytes))
            del taken
    assert found == list(enumerate(sizes))
    # Those that wait, and one each in the hands of the thread and of the tracker.
    assert source.most_frames <= most_frames + 2
    assert source.most_bytes <= max(most_bytes, max(sizes)) + 2 * max(sizes)


def test_what_reading_raises_comes_after_the_frames_before_it() -> None:
    clock = ManualClock()
    camera = Camera(clock, 3, SourceInterruptedError("frame 3 cannot be read"))
    with ReadAhead(camera, size, clock=clock) as reader:
        for _ in range(3):
            camera.allowed.release()
        found = []
        with pytest.raises(SourceInterruptedError, match="frame 3"):
            found.extend(taken.number for taken in iter(reader))
        # `extend` keeps what came before it was raised.
    assert found == [0, 1, 2]
    assert list(reader) == []


@pytest.mark.parametrize("latest", [False, True])
def test_an_error_beyond_what_is_wanted_is_nobodys(latest: bool) -> None:
    camera = Camera(ManualClock(), 1, SourceInterruptedError("never asked for"))
    camera.allowed.release()
    with ReadAhead(camera, size, latest=latest) as reader:
        assert numbers(reader, 1) == [0]


def test_stop_ends_the_iteration_whatever_waits() -> None:
    """As a signal's handler calls it: from the thread that iterates, and while that one waits."""
    camera = Camera(ManualClock())
    with ReadAhead(camera, size, interrupt=camera.interrupt) as reader:
        camera.shoot(3)
        frames = iter(reader)
        assert next(frames).number == 0
        reader.stop()
        assert list(frames) == []


def test_stop_wakes_one_that_waits() -> None:
    camera = Camera(ManualClock())
    with ReadAhead(camera, size, interrupt=camera.interrupt) as reader:
        camera.asked.acquire()
        threading.Timer(0.0, reader.stop).start()
        assert list(reader) == []


def test_close_ends_a_thread_that_waits_for_room_and_the_source_in_it() -> None:
    closed_in = []

    def frames() -> Iterator[Frame]:
        try:
            while True:
                yield np.zeros((2, 2, 3), np.uint8)
        finally:
            closed_in.append(threading.current_thread().name)

    reader = ReadAhead(frames(), size, most_frames=1)
    assert next(iter(reader)).number == 0
    reader.close()
    reader.close()
    gc.collect()
    assert closed_in == ["edgetrack-read-ahead"]
    assert not [thread for thread in threading.enumerate() if thread.name == "edgetrack-read-ahead"]


def test_opencv_is_quiet_until_the_last_of_several_threads_has_asked() -> None:
    import cv2

    log = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    before = log.getLogLevel()
    first, second = quiet_cv2(), quiet_cv2()
    first.__enter__()
    thread = threading.Thread(target=second.__enter__)
    thread.start()
    thread.join()
    first.__exit__(None, None, None)
    assert log.getLogLevel() == 0
    second.__exit__(None, None, None)
    assert log.getLogLevel() == before != 0
