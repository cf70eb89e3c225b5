"""Ctrl-C and SIGTERM as a wish to end in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignals:
    """Remembers the first Ctrl-C or SIGTERM; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def watching(self, on_stop: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Handle the signals; only the main thread can, in another one nothing changes.

        Args:
            on_stop: called when the first one is there, in the line in which the main thread happens to be.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # Who has started us with one ignored, as `nohup ... &` does, wants that.
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

        def remember(number: int, _frame: FrameType | None) -> None:
            self.number = number
            for each, handler in before.items():
                signal.signal(each, handler)
            on_stop()

        for number in before:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
