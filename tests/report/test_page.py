"""The page: whole without a network, and deaf to what a result file would like it to do."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from edgetrack.benchmark.protocol import Attainable
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.metrics import LongTermScores, PairScores
from edgetrack.evaluation.results import AttributeResult, EvalRecord
from edgetrack.report.contact_sheet import MOST_SEQUENCES, contact_sheet, moments
from edgetrack.report.findings import findings
from edgetrack.report.model import accuracies, read_results
from edgetrack.report.page import headlines, html, markdown
from edgetrack.report.table import accuracy_table, speed_table
from tests.report.conftest import (
    FRAMES,
    SCENE,
    benchmark,
    contestant,
    evaluated,
    four,
    jetson_soak,
    pair,
    write,
    write_comparison_with_runs,
    write_one_of_each,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'|`$x$"


class Seen(HTMLParser):
    """Tags with their attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return read_results([write_one_of_each(tmp_path_factory.mktemp("results"))])


@pytest.fixture(scope="module")
def made(results) -> str:
    return html(results)


def test_page_has_every_section(made: str) -> None:
    seen = Seen(made)
    sections = [one.get("id") for one in seen.of("section")]
    assert sections == ["findings", "pareto", "table", "latency", "accuracy", "apart", "stages", "machines"]
    links = [one["href"] for one in seen.of("a")]
    assert {link.removeprefix("#") for link in links} == {*sections}


def test_page_loads_nothing(made: str) -> None:
    seen = Seen(made)
    for tag, attributes in seen.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, name, value)
    assert seen.of("link") == []
    assert "@import" not in made
    assert "url(http" not in made


def test_policy_allows_this_style_and_this_script_alone(made: str) -> None:
    (policy,) = [one["content"] for one in Seen(made).of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", made, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_no_element_has_a_style_or_a_handler(made: str) -> None:
    for tag, attributes in Seen(made).tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_ids_are_unique_and_references_lead_somewhere(made: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', made)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', made)) <= set(ids)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    ones = [contestant("smat-openvino-fp32", 20.0, bundle=HOSTILE, tracker=HOSTILE, target=HOSTILE, device=HOSTILE)]
    source = write(tmp_path / "x.json", benchmark(*ones))
    results = read_results([source])
    seen = Seen(html(results, title=HOSTILE))
    assert seen.of("img") == []
    assert len(seen.of("script")) == 1
    assert HOSTILE in seen.text
    told = markdown(results, HOSTILE)
    assert "<script" not in told
    assert all(line.count(" | ") == told.splitlines()[_heading(told)].count(" | ") for line in _rows(told))


def _heading(told: str) -> int:
    return next(i for i, line in enumerate(told.splitlines()) if line.startswith("| bundle"))


def _rows(told: str) -> list[str]:
    lines = told.splitlines()[_heading(told) :]
    return lines[: lines.index("")]


def test_page_says_what_is_missing(tmp_path: Path, contestants) -> None:
    source = write(tmp_path / "x.json", benchmark(*contestants))
    text = Seen(html(read_results([source]))).text
    assert "Not in this report" in text
    assert "edgetrack eval smat-openvino-fp32 DATASET" in text


def test_page_of_a_single_evaluation_is_whole(tmp_path: Path) -> None:
    source = write(tmp_path / "x.json", EvalRecord(results=[evaluated("smat-openvino-fp32", 0.7, None, sequences=1)]))
    seen = Seen(html(read_results([source])))
    assert [one.get("id") for one in seen.of("section")] == ["findings", "accuracy", "missing"]
    assert "nothing to compare" in seen.text


def test_auc_is_set_against_speed_and_against_parameters(tmp_path: Path) -> None:
    """As the papers' first figures: one plot by frames per second, one by parameters, each with its numbers."""
    marked = [AttributeResult(attribute="FM", sequences=4, ao=0.25, auc=0.125)]
    results = [
        evaluated("smat-openvino-fp32", 0.72, (0.6, 0.8), auc=0.71, parameters=3_767_409, attributes=marked),
        evaluated("smat-openvino-int8", 0.7, None, auc=0.69, parameters=3_767_409),
        evaluated("large-openvino-fp32", 0.8, None, auc=0.79, parameters=92_121_861),
        evaluated("old-openvino-fp32", 0.5, None, auc=0.49),
    ]
    write(tmp_path / "eval.json", EvalRecord(results=results))
    write(tmp_path / "bench.json", benchmark(contestant("smat-openvino-fp32", 20.0)))
    read = read_results([tmp_path])
    text = Seen(html(read)).text
    speed, size = (
        text.index("AUC on clips (10 sequences); speed from"),
        text.index("AUC on clips (10 sequences) against param"),
    )
    assert "smat-openvino-fp32: AUC 0.710, 49.3 fps, 10.0 MiB" in text[speed:size]
    assert "large-openvino-fp32: AUC 0.790, 92.12 million parameters" in text[size:]
    # A bundle from before parameters were counted is not placed at zero.
    assert "old-openvino-fp32: AUC" not in text
    assert "FM (4)" in text
    assert "| FM (4) |" in markdown(read)


def test_a_data_sets_own_figures_stand_beside_ao(tmp_path: Path) -> None:
    pair = PairScores(precision_second=0.1, auc_second=0.2, mpr=0.912, msr=0.634)
    long = LongTermScores(precision=0.591, recall=0.387, f_score=0.468, threshold=0.5)
    known = (evaluated("dmtrack", 0.5, (0.4, 0.6), pair=pair), evaluated("smat", 0.4, (0.3, 0.5), long_term=long))
    ((_, table),) = [
        (trial, accuracy_table(found))
        for trial, found in accuracies(
            read_results([write(tmp_path / "eval.json", EvalRecord(results=list(known)))])
        ).items()
    ]
    assert [column.title for column in table.columns][3:] == ["MPR", "MSR", "F-score", "precision", "recall"]
    assert [[cell.text for cell in row[3:]] for row in table.rows] == [
        ["0.912", "0.634", "-", "-", "-"],
        ["-", "-", "0.468", "0.591", "0.387"],
    ]


def test_auc_is_not_set_against_one_size(tmp_path: Path) -> None:
    ones = [evaluated(f"smat-{target}-fp32", 0.7, None, auc=0.7, parameters=5) for target in ("onnx", "openvino")]
    source = write(tmp_path / "x.json", EvalRecord(results=ones))
    assert "against parameters" not in html(read_results([source]))


def test_same_results_give_the_same_page(results, made: str) -> None:
    assert html(results) == made


def texts(table) -> list[list[str]]:
    """Headings and rows as text."""
    shown = table.text()
    return [[column.title for column in shown.columns], *shown.cells()]


def test_table_holds_ratio_and_accuracy_of_the_right_bundle(results) -> None:
    titles, *others = texts(speed_table(results))
    assert [row[0] for row in others] == [
        "smat-openvino-int8",
        "smat-openvino-fp32",
        "smat-onnx-fp32",
        "smat-torch-fp32",
    ]
    ao = titles.index("AO on clips (10 sequences)")
    assert [row[ao] for row in others] == ["0.700", "0.720 (0.60-0.80)", "-", "-"]
    assert others[1][titles.index("x PyTorch")] == "2.80 (2.66-2.94)"
    assert others[1][titles.index("x paper")].endswith("(of 37)")


def test_a_tile_crowns_nobody_whom_the_findings_do_not(tmp_path: Path) -> None:
    level = [contestant("smat-onnx-fp32", 20.0, seed=3), contestant("smat-openvino-fp32", 20.05, seed=4)]
    results = read_results([write(tmp_path / "a.json", benchmark(*level))])
    (fastest,) = [one for one in findings(results) if one.kind == "fastest"]
    assert "No difference between them is shown" in fastest.text
    tile = headlines(results)[0]
    assert (tile.shown, tile.about) == (False, "smat-onnx-fp32; no difference to smat-openvino-fp32 is shown")
    faster = [*level, contestant("smat-openvino-int8", 8.0)]
    tile = headlines(read_results([write(tmp_path / "b.json", benchmark(*faster))]))[0]
    assert (tile.shown, tile.about) == (True, "highest: smat-openvino-int8")


def test_a_smoke_run_of_three_frames_is_neither_drawn_nor_crowned(tmp_path: Path) -> None:
    tiny = contestant("smat-openvino-fp32", 3.0, rounds=1)
    track = msgspec.structs.replace(tiny.latency_ms.track, count=3)
    tiny = msgspec.structs.replace(tiny, latency_ms=msgspec.structs.replace(tiny.latency_ms, track=track))
    write(tmp_path / "a.json", benchmark(tiny))
    smoke = msgspec.structs.replace(evaluated("smat-openvino-fp32", 0.99, None, sequences=1), frames=3)
    write(tmp_path / "b.json", EvalRecord(results=[smoke]))
    results = read_results([tmp_path])
    assert headlines(results) == []
    assert not [one for one in findings(results) if one.kind in ("fastest", "most accurate", "highest AO")]
    made = html(results)
    assert 'class="figure ' not in made
    assert "smat-openvino-fp32: 3 frames only, not drawn" in made
    assert "0.990" in made, "the table has it"


def test_a_page_says_when_it_was_made_and_when_measured(tmp_path: Path) -> None:
    results = read_results([write(tmp_path / "a.json", benchmark(*four(), date="2026-01-02 03:04 UTC"))])
    made = html(results, None, "a page", datetime(2026, 2, 3, 4, 5, tzinfo=timezone.utc))
    assert "Made 2026-02-03 04:05 UTC." in made
    assert "; measured 2026-01-02 03:04 UTC." in made
    assert html(results) == html(results)


def test_contact_sheet_shows_the_moments(tmp_path: Path) -> None:
    source = write_comparison_with_runs(tmp_path)
    (found,) = read_results([source]).comparisons
    sheet = contact_sheet(found.value, source, open_dataset(f"synthetic:{SCENE}?frames={FRAMES}"))
    assert sheet.notes == ()
    (strip,) = sheet.strips
    assert [(shot.frame, shot.moment) for shot in strip.thumbnails] == [
        (1, "start"),
        (4, "first diverged"),
        (7, "agreeing again"),
        (FRAMES - 1, "end"),
    ]
    assert strip.thumbnails[1].iou < 0.5
    for shot in strip.thumbnails:
        data = base64.b64decode(shot.address.removeprefix("data:image/jpeg;base64,"))
        assert data[:3] == b"\xff\xd8\xff"


def test_runs_are_found_where_compare_keeps_them_by_itself(tmp_path: Path) -> None:
    source = write_comparison_with_runs(tmp_path / "out" / "compare" / "a_vs_b" / "clips")
    for name in ("smat-openvino-fp32", "smat-openvino-int8"):
        kept = tmp_path / "out" / "eval" / name / f"synthetic-{SCENE}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        (source.parent / name).rename(kept)
    (found,) = read_results([source]).comparisons
    sheet = contact_sheet(found.value, source, open_dataset(f"synthetic:{SCENE}?frames={FRAMES}"))
    assert len(sheet.strips) == 1


def test_boxes_that_do_not_give_the_recorded_overlap_are_not_shown(tmp_path: Path) -> None:
    source = write_comparison_with_runs(tmp_path)
    other = tmp_path / "smat-openvino-int8"
    for path in other.iterdir():
        path.write_text(path.read_text().replace('"x":', '"was":'))
    (other / f"{SCENE}-ffff.json").write_text("[" * 100_000)
    (found,) = read_results([source]).comparisons
    for path in other.iterdir():
        path.unlink()
    sheet = contact_sheet(found.value, source, open_dataset(f"synthetic:{SCENE}?frames={FRAMES}"))
    assert sheet.strips == ()
    assert "not beside" in sheet.notes[0]


def test_other_frames_are_a_note_and_no_picture(tmp_path: Path) -> None:
    source = write_comparison_with_runs(tmp_path)
    (found,) = read_results([source]).comparisons
    sheet = contact_sheet(found.value, source, open_dataset("synthetic:scale"))
    assert sheet.strips == ()
    assert "not in" in sheet.notes[0]


def test_moments_are_frames_of_the_sequence() -> None:
    assert moments(pair("a", [1.0])) == [(0, "least overlap")]
    assert moments(pair("a", [1.0, 0.9, 0.8, 0.95, 0.9, 0.97])) == [
        (1, "start"),
        (2, "least overlap"),
        (3, "middle"),
        (5, "end"),
    ]
    assert MOST_SEQUENCES > 1


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    return read_results([write(tmp_path_factory.mktemp("soak") / "soak.json", jetson_soak())])


SAID = [
    "at 30 fps 50 of 18000 deadlines missed",
    "600 s in 10 windows: resident memory +0 MiB per minute",
    "(not distinguishable from none)",
    "throttling or a falling clock from 360 s on",
    "mJ per frame (soak), 6.39 W on tegrastats:VDD_IN",
    "power mode 15W; jetson_clocks on; at most 75 degrees Celsius",
    "Scenario soak at 30 fps: 10 windows on cuda:0 (profile jetson-orin-nano)",
]


def test_page_and_markdown_say_what_the_soak_and_the_sensors_found(soak) -> None:
    page, told = html(soak), markdown(soak).replace("\\", "")
    for text in SAID:
        assert text in page
        assert text in told
    for text in (page, told):
        assert "clock-changed" in text
        assert "tegrastats:GPU ran at 620 to 1020 MHz" in text
    assert "smat-tensorrt-fp16, window by window" in page
    assert "540 to 600" in page


def test_the_attainable_limit_has_a_column_where_it_was_asked_for(tmp_path: Path) -> None:
    def shown(record):
        (tmp_path / "bench.json").write_bytes(record.to_json())
        return texts(speed_table(read_results([tmp_path])))

    limit = Attainable(limit_ms=6.0, model=1.5, engine="listed")
    asked = benchmark(contestant("a-b-fp32", 9.0, attainable=limit), contestant("a-b-int8", 5.0))
    titles, *rows = shown(asked)
    column = titles.index("vs attainable")
    assert [row[column] for row in rows] == ["-", "1.50 (of 6.00 ms)"]
    plain = benchmark(contestant("a-b-fp32", 9.0))
    assert "vs attainable" not in shown(plain)[0]


def test_the_table_has_energy_and_late_frames_of_a_soak(soak) -> None:
    titles, row = texts(speed_table(soak))
    assert row[titles.index("late frames")] == "0.3% (at 30 fps)"
    assert float(row[titles.index("mJ per frame")]) == pytest.approx(1000 * 6.39 * 60 / 1800, abs=1)


def test_a_record_without_sensors_has_no_such_plot(tmp_path: Path) -> None:
    source = write(tmp_path / "x.json", benchmark(contestant("smat-openvino-fp32", 20.0)))
    assert "Sensors over time" not in html(read_results([source]))
