"""Ctrl-C and SIGTERM that end a run in order."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from edgetrack.system.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_remembered_and_told_and_the_second_is_as_ever(number: int) -> None:
    told: list[int] = []
    before = signal.signal(number, lambda *_: told.append(-1))
    try:
        signals = StopSignals()
        with signals.watching(lambda: told.append(1)):
            os.kill(os.getpid(), number)
            assert (signals.number, told) == (number, [1])
            os.kill(os.getpid(), number)
            assert told == [1, -1]
        os.kill(os.getpid(), number)
        assert told == [1, -1, -1]
    finally:
        signal.signal(number, before)


def test_one_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signals = StopSignals()
        with signals.watching():
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.number is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes() -> None:
    handlers = []

    def watch() -> None:
        with StopSignals().watching():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
