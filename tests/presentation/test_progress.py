from __future__ import annotations

import io

from rich.console import Console

from edgetrack.presentation.progress import no_progress, shown_progress


def told(steps, terminal=False, **options):
    out = io.StringIO()
    with shown_progress(Console(file=out, width=100, force_terminal=terminal), **options) as progress:
        for step in steps:
            progress(*step)
    return out.getvalue()


def test_a_log_has_a_line_for_each_step():
    assert told([("loading a[b]", 1, 2), ("measuring", 2, 2), ("waiting", 3, 0)]).splitlines() == [
        "1/2 loading a[b]",
        "2/2 measuring",
        "waiting",
    ]


def test_a_log_may_have_every_nth_step_or_none():
    steps = [(f"step {i}", i, 40) for i in range(1, 41)]
    assert told(steps, every=20).splitlines() == ["1/40 step 1", "20/40 step 20", "40/40 step 40"]
    assert told(steps, lines=False) == ""


def test_a_terminal_has_a_bar_that_goes_away():
    shown = told([("loading a[b]", 1, 2), ("measuring", 2, 2), ("one more", 3, 0)], terminal=True, refresh=False)
    for what in ("loading a[b]", "measuring", "one more"):
        assert what in shown
    assert shown.endswith("\x1b[2K")


def test_nobody_is_told():
    assert no_progress("x", 1, 2) is None
