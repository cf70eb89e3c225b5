"""Files are recognised by content, and hostile ones are refused with their name."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetrack.benchmark.record import BenchRecord
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.evaluation.comparison import CompareRecord
from edgetrack.io import read_bytes
from edgetrack.quantization.accuracy_control import Sensitivity
from edgetrack.report import model as reading
from edgetrack.report.model import Results, Sourced, clean, read_file, read_results
from edgetrack.report.page import contents, markdown
from tests.report.conftest import benchmark, comparison, contestant, difference, jetson_soak, sensitivity, side, write

ONE_OF_EACH = "1 benchmark, 1 evaluation, 1 comparison, 1 sensitivity map"


def test_folder_gives_each_kind_by_content(results_folder: Path) -> None:
    found = read_results([results_folder])
    kinds = (found.benchmarks, found.evaluations, found.comparisons, found.sensitivities)
    assert [[Path(one.source).name for one in kind] for kind in kinds] == [
        ["a.json"],
        ["b.json"],
        ["c.json"],
        ["d.json"],
    ]
    assert found.skipped == ()
    assert contents(found) == ONE_OF_EACH


def test_file_that_is_named_twice_is_read_once(results_folder: Path) -> None:
    found = read_results([results_folder / "a.json", results_folder, results_folder / "a.json"])
    assert contents(found) == ONE_OF_EACH


@pytest.mark.parametrize(
    "text", ["{", "[]", "7", '{"results": 1}', '{"schema": 1}', "[" * 100_000, "\xff", '"\\ud800"']
)
def test_named_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, "latin-1")
    with pytest.raises(EdgetrackError, match=r"x\.json"):
        read_results([path])


def test_damaged_result_in_a_folder_is_left_out_by_name(results_folder: Path) -> None:
    record = json.loads((results_folder / "a.json").read_text())
    record["results"][0]["latency_ms"]["track"]["p50"] = "fast"
    (results_folder / "e.json").write_text(json.dumps(record))
    found = read_results([results_folder])
    assert contents(found) == ONE_OF_EACH
    assert [Path(one.source).name for one in found.skipped] == ["e.json"]
    assert "p50" in found.skipped[0].reason


def test_nothing_found_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="edgetrack bench"):
        read_results([tmp_path])
    with pytest.raises(UsageError, match="does not exist"):
        read_results([tmp_path / "nothing"])


def test_links_to_folders_and_deep_folders_are_not_followed(results_folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / "s.json", sensitivity())
    (results_folder / "link").symlink_to(outside)
    write(results_folder.joinpath(*"abcdefgh") / "s.json", sensitivity())
    assert contents(read_results([results_folder])) == ONE_OF_EACH


def test_too_large_a_file_is_not_read(results_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read_bytes", functools.partial(read_bytes, largest=100))
    with pytest.raises(EdgetrackError, match="larger than"):
        read_file(results_folder / "a.json")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("samples_ms.track.0.0", -1.0, "expected at least 0"),
        ("samples_ms.track.0.0", 1e200, "expected a finite one"),
        ("samples_ms.track", [], "no samples of track"),
        ("samples_ms.track.1", [], "no samples of track"),
        ("latency_ms.track.p50", 0.0, "0 ms"),
        ("latency_ms.model.p99", -3.0, "expected at least 0"),
        ("fps.track", -3.0, "expected at least 0"),
        ("size_mb", -3.0, "expected at least 0"),
        ("waterfall_ms.read", -3.0, "expected at least 0"),
        ("bundle", 7, "bundle"),
    ],
)
def test_impossible_speed_is_refused_by_name(tmp_path: Path, path: str, value: object, words: str) -> None:
    record = msgspec.to_builtins(benchmark(contestant("smat-openvino-fp32", 20.0)))
    *way, last = path.split(".")
    place = record["results"][0]
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    file = tmp_path / "x.json"
    file.write_text(json.dumps(record))
    with pytest.raises(EdgetrackError, match=words) as caught:
        read_file(file)
    assert "x.json" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("telemetry.series.0.values", [1.0], "as many readings"),
        ("telemetry.series", [{"source": "a", "quantity": "power_w", "name": "b", "values": []}] * 201, "201 sensors"),
        ("telemetry.series.0.quantity", "volts", "volts"),
        ("telemetry.t_s.1", 1e9, "not in order"),
        ("telemetry.t_s.0", -1.0, "expected at least 0"),
        ("telemetry.windows.0.busy_s", 1e9, "the part of a window"),
        ("results.0.energy.soak.mean_w", -1.0, "an energy"),
        ("results.0.soak.paced.miss_rate", 1.5, "late frames"),
        ("results.0.soak.windows.0.p50", -1.0, "a window's figure"),
    ],
)
def test_impossible_sensors_and_scenarios_are_refused_by_name(
    tmp_path: Path, path: str, value: object, words: str
) -> None:
    record = msgspec.to_builtins(jetson_soak())
    *way, last = path.split(".")
    place = record
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    file = tmp_path / "x.json"
    file.write_text(json.dumps(record))
    with pytest.raises(EdgetrackError, match=words):
        read_file(file)


@pytest.mark.parametrize(
    ("path", "value"),
    [("a.ao", 1.5), ("sequences.0.iou.1", -0.1), ("sequences.0.first_divergence", 400), ("delta_ao.low", -2.0)],
)
def test_impossible_comparison_is_refused(tmp_path: Path, path: str, value: float) -> None:
    delta = difference(-0.02, -0.03, -0.01, "worse")
    record = msgspec.to_builtins(comparison(side("smat-openvino-fp32", 0.7), side("smat-openvino-int8", 0.6), delta))
    *way, last = path.split(".")
    place = record
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    file = tmp_path / "x.json"
    file.write_text(json.dumps(record))
    with pytest.raises(EdgetrackError, match="expected"):
        read_file(file)


def test_later_schema_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", benchmark(contestant("smat-openvino-fp32", 20.0), schema=2))
    with pytest.raises(EdgetrackError, match="schema 2"):
        read_file(path)


def test_text_loses_what_could_deceive() -> None:
    assert clean("smat-é-跟踪") == "smat-é-跟踪"
    assert clean("a\x00b\x1b[31m\u202e\nc") == "a\ufffdb\ufffd[31m\ufffd\ufffdc"
    assert len(clean("x" * 10_000)) == reading.LONGEST_TEXT


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


def places(value, way=()):
    """The ways to all values of nested data, except that of long lists only the ends are taken."""
    yield way
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*way, key))


KINDS = {
    "speed": benchmark(contestant("smat-openvino-fp32", 20.0, rounds=2), contestant("smat-onnx-fp32", 24.0, rounds=2)),
    "apart": comparison(
        side("smat-openvino-fp32", 0.7), side("smat-openvino-int8", 0.6), difference(-0.02, -0.03, -0.01, "worse")
    ),
    "stages": sensitivity(),
}
PLAIN = {name: msgspec.to_builtins(record) for name, record in KINDS.items()}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_can_be_read_can_be_reported_and_all_else_is_our_error(tmp_path: Path, data) -> None:
    plain = copy.deepcopy(PLAIN[data.draw(st.sampled_from(sorted(PLAIN)))])
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([way for way in places(plain) if way]))
        place = plain
        for step in way:
            place = place[step]
        place[last] = data.draw(JUNK)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(plain), "utf-8")
    try:
        record = read_file(path)
    except EdgetrackError:
        return
    if record is not None:
        names = {BenchRecord: "benchmarks", CompareRecord: "comparisons", Sensitivity: "sensitivities"}
        name = names.get(type(record), "evaluations")
        assert markdown(Results(**{name: (Sourced("x.json", record),)})).startswith("# ")
