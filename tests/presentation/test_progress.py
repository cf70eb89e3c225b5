from __future__ import annotations

import io
import threading

from rich.console import Console

from edgetrack.presentation.progress import HEARTBEAT_S, heartbeat, no_progress, shown_progress


class Clock(threading.Event):
    """Half a minute goes by when the test says so."""

    def __init__(self):
        super().__init__()
        self._waits, self._passed = threading.Semaphore(0), threading.Semaphore(0)

    def wait(self, timeout):
        assert timeout == HEARTBEAT_S == 30
        self._waits.release()
        self._passed.acquire()
        return self.is_set()

    def pass_by(self):
        """Returns when the line is written and the next wait has begun."""
        self._waits.acquire()
        self._passed.release()
        self._waits.acquire()
        self._waits.release()

    def set(self):
        super().set()
        self._passed.release()


def test_a_log_has_a_line_every_half_minute_that_says_what_happens_then():
    out, clock = io.StringIO(), Clock()
    with shown_progress(Console(file=out, width=100), over=clock) as progress:
        for step in range(40):
            progress(f"round {step}", step, 40)
        progress("loading a[b]", 41, 42)
        clock.pass_by()
        clock.pass_by()
        progress("waiting\n::error::x", 43, 0)
        clock.pass_by()
    assert out.getvalue().splitlines() == [
        "after 30 s: 41/42 loading a[b]",
        "after 60 s: 41/42 loading a[b]",
        "after 90 s: waiting\ufffd::error::x",
    ]
    assert heartbeat("after 90 s: 3/4 waiting") == "3/4 waiting"
    assert heartbeat("edgetrack: no such file") is None


def test_a_short_run_says_nothing_and_leaves_no_thread():
    out, before = io.StringIO(), threading.active_count()
    with shown_progress(Console(file=out, width=100)) as progress:
        progress("loading", 1, 2)
    assert (out.getvalue(), threading.active_count()) == ("", before)


def test_a_terminal_has_a_bar_that_goes_away():
    out = io.StringIO()
    with shown_progress(Console(file=out, width=100, force_terminal=True), refresh=False) as progress:
        for step in (("loading a[b]", 1, 2), ("measuring", 2, 2), ("one more", 3, 0)):
            progress(*step)
    shown = out.getvalue()
    for what in ("loading a[b]", "measuring", "one more"):
        assert what in shown
    assert shown.endswith("\x1b[2K")


def test_nobody_is_told():
    assert no_progress("x", 1, 2) is None
