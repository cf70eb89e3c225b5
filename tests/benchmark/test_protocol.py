from __future__ import annotations

import msgspec
import pytest

from edgetrack.benchmark import protocol
from edgetrack.benchmark.protocol import (
    Failure,
    Load,
    Loaded,
    LoadRoofline,
    Measure,
    Memory,
    PeakMemory,
    Probe,
    Rate,
    Ready,
    Roofline,
    RoundSamples,
)
from edgetrack.box import Box
from edgetrack.errors import WorkerError
from edgetrack.io import encode_line


@pytest.mark.parametrize(
    "request_",
    [
        Load(
            threads=2,
            bundle="out/a",
            hint="bf16",
            source="clip.mp4",
            box=Box(1.5, 2, 3, 4),
            keep_frames=10,
            keep_mb=20.0,
        ),
        LoadRoofline("fp32", 2),
        Memory(30),
        Measure("camera", 0.5, 10, 3),
        Probe(0.5),
    ],
)
def test_requests_survive_the_line(request_):
    line = encode_line(request_)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode_request(line) == request_


@pytest.mark.parametrize(
    "reply",
    [
        Loaded(1.0, 2.0, 2, {"torch": "2"}),
        Ready(),
        PeakMemory(3.5),
        RoundSamples(
            kind="track", crop=[0.1], graphs=[0.2], decode=[0.3], read=[0.4], whole=[1.0], cpu_s=0.1, wall_s=0.2
        ),
        Rate(Roofline("fp32", 2, None, "numpy", None, 0, "no")),
        Failure("UsageError", "two\nlines"),
    ],
)
def test_replies_survive_the_line(reply):
    line = encode_line(reply)
    assert line.count(b"\n") == 1
    assert protocol.decode_reply(line) == reply


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"hello\n", b"\xff\xfe\n", b"{}\n", b'{"type":"peak"}\n', b'{"type":"new"}\n', b"[" * 9999]
)
def test_what_is_no_reply_says_so(line):
    with pytest.raises(WorkerError, match="broke its protocol"):
        protocol.decode_reply(line)
    with pytest.raises(WorkerError, match="no request"):
        protocol.decode_request(line)


def test_only_the_start_of_a_wrong_line_is_shown():
    with pytest.raises(WorkerError) as caught:
        protocol.decode_reply(b"x" * 100_000)
    assert len(str(caught.value)) < 400


def test_a_worker_of_another_version_is_asked_in_the_words_that_it_knows():
    load = Load(threads=2, bundle="a", hint=None, source="s", box=Box(1, 2, 3, 4), keep_frames=10, keep_mb=20.0)
    sent = msgspec.json.decode(encode_line(load))
    assert {"type", "bundle", "device", "threads", "hint", "source", "box", "keep_frames", "keep_mb"} <= set(sent)
    assert sent["type"] == "load"
    run = msgspec.json.decode(encode_line(Measure("track", 0.5, 10, 3)))
    assert run == {"type": "run", "kind": "track", "seconds": 0.5, "frames": 10, "unrecorded": 3}
    answer = {
        "type": "slice",
        "kind": "track",
        **{name: [1.0] for name in ("crop", "graphs", "decode", "read", "whole")},
        "cpu_s": 0.1,
        "wall_s": 0.2,
    }
    assert protocol.decode_reply(msgspec.json.encode(answer)).track == [3.0]
