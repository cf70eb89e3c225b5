from __future__ import annotations

import msgspec
import pytest

from edgetrack.benchmark.config import SourceNote
from edgetrack.box import Box
from edgetrack.errors import EdgetrackError
from edgetrack.report.model import read_results
from edgetrack.report.page import contents, html, markdown
from edgetrack.tuning.record import LeftOut, TimeRatio, TuneEntry, TuneRecord, TuneWishes
from tests.report.conftest import MACHINE

ENTRY = TuneEntry(
    label="smat-openvino-bf16 on 1 thread",
    bundle="smat-openvino-bf16",
    path="/home/someone/out/smat-openvino-bf16",
    digest="0" * 64,
    target="openvino",
    precision="bf16",
    hint=None,
    device="cpu",
    threads=1,
    size_mb=15.5,
    peak_rss_mb=190.0,
    load_ms=400.0,
    rounds=9,
    track_ms=12.5,
    versus_fastest=TimeRatio(value=1.0, low=1.0, high=1.0),
    standing="recommended",
    front=True,
)
RECORD = TuneRecord(
    complete=True,
    date="2026-11-30 09:00 UTC",
    machine=MACHINE,
    profile=None,
    system="smat",
    weights="a" * 64,
    source=SourceNote(spec="synthetic:drift", size=(96, 64), box=Box(1, 2, 3, 4), camera="decoded"),
    wishes=TuneWishes(fps=30.0),
    entries=[ENTRY],
    left_out=[LeftOut("tensorrt", "it needs <b>an NVIDIA GPU</b>")],
    recommended=ENTRY.label,
    advice=["Take smat-openvino-bf16 on 1 thread: 12.50 ms a frame (80 fps), 190 MiB."],
    undecided=[],
    exhaustive=False,
    seconds=300.0,
    race_seconds=200.0,
    rounds_ms=[{ENTRY.label: [12.5]}],
)


@pytest.fixture
def results(tmp_path):
    """results(changes) reads a tuning as it was written."""

    def read(**changes):
        (tmp_path / "tuning.json").write_bytes(msgspec.structs.replace(RECORD, **changes).to_json())
        return read_results([tmp_path / "tuning.json"])

    return read


def test_a_tuning_is_drawn_with_its_advice_and_shows_no_path(results):
    found = results()
    page = html(found)
    assert "Take smat-openvino-bf16 on 1 thread" in page
    assert "it needs &lt;b&gt;an NVIDIA GPU" in page
    assert "/home/someone" not in page
    assert contents(found) == "1 tuning"
    assert "## Tuning of smat" in markdown(found)


def test_figures_that_cannot_be_are_refused(results):
    with pytest.raises(EdgetrackError, match="a size or time is -1"):
        results(entries=[msgspec.structs.replace(ENTRY, track_ms=-1.0)])
