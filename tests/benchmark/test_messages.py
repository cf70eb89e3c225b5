from __future__ import annotations

import pytest

from edgetrack import json_lines
from edgetrack.benchmark import messages
from edgetrack.benchmark.messages import (
    Failure,
    Load,
    Loaded,
    LoadRoofline,
    Memory,
    Peak,
    Probe,
    Rate,
    Ready,
    Run,
    Slice,
)
from edgetrack.benchmark.roofline import Roofline
from edgetrack.box import Box
from edgetrack.errors import WorkerError


@pytest.mark.parametrize(
    "request_",
    [
        Load("out/a", "cpu", 2, "bf16", "clip.mp4", Box(1.5, 2, 3, 4), 10, 20.0),
        LoadRoofline("fp32", 2),
        Memory(30),
        Run("camera", 0.5, 10, 3),
        Probe(0.5),
    ],
)
def test_requests_survive_the_line(request_):
    line = json_lines.encode(request_)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert messages.decode_request(line) == request_


@pytest.mark.parametrize(
    "reply",
    [
        Loaded(1.0, 2.0, 2, {"torch": "2"}),
        Ready(),
        Peak(3.5),
        Slice("track", [0.1], [0.2], [0.3], [0.4], [1.0], 0.1, 0.2),
        Rate(Roofline("fp32", 2, None, "numpy", None, 0, "no")),
        Failure("UsageError", "two\nlines"),
    ],
)
def test_replies_survive_the_line(reply):
    line = json_lines.encode(reply)
    assert line.count(b"\n") == 1
    assert messages.decode_reply(line) == reply


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"hello\n", b"\xff\xfe\n", b"{}\n", b'{"type":"peak"}\n', b'{"type":"new"}\n', b"[" * 9999]
)
def test_what_is_no_reply_says_so(line):
    with pytest.raises(WorkerError, match="broke its protocol"):
        messages.decode_reply(line)
    with pytest.raises(WorkerError, match="no request"):
        messages.decode_request(line)


def test_only_the_start_of_a_wrong_line_is_shown():
    with pytest.raises(WorkerError) as caught:
        messages.decode_reply(b"x" * 100_000)
    assert len(str(caught.value)) < 400
