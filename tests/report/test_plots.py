"""Figures as they stand in the page: in its colours, whole, and true to the samples."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.report.plots import (
    FPS,
    MOST_CURVES,
    PARAMETERS,
    Point,
    divergence_plot,
    drawn_sensors,
    envelope,
    frontier,
    histogram_plot,
    most_different,
    pareto_plot,
    sensitivity_plot,
    sensor_plot,
    speed_plot,
    timeline_plot,
    waterfall_plot,
)
from edgetrack.system.timeline import Series, Timeline
from tests.report.conftest import comparison, contestant, difference, jetson_soak, pair, sensitivity, side

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "$\\frac{<script>alert(1)</script>\"&'"


def drawings(markup) -> list[ET.Element]:
    root = ET.fromstring(f"<both>{markup}</both>")
    assert [one.tag for one in root] == [f"{SVG}svg"] * 2
    return list(root)


def texts(drawing: ET.Element) -> list[str]:
    return [one.text or "" for one in drawing.iter(f"{SVG}text")]


PLOTS = {
    "speed": speed_plot,
    "stages": waterfall_plot,
    "spread": histogram_plot,
    "time": timeline_plot,
}


@pytest.mark.parametrize("name", PLOTS)
def test_every_contestant_is_drawn_and_named_at_both_widths(contestants, name: str) -> None:
    for drawing in drawings(PLOTS[name](name, contestants)):
        shown = texts(drawing)
        for one in contestants:
            assert one.label in shown
        assert len(list(drawing.iter(f"{SVG}path"))) > len(contestants)


@pytest.mark.parametrize("name", PLOTS)
def test_figures_obey_the_page(contestants, name: str) -> None:
    markup = PLOTS[name](name, contestants)
    assert "style=" not in markup
    assert "<style" not in markup
    assert "#0000" not in markup, "a colour of the drawing was not handed to the style sheet"
    assert 'class="s-accent"' in markup or 'class="f-accent' in markup
    ids = re.findall(r' id="([^"]+)"', markup)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', markup))
    assert referred == set(ids)


def test_same_results_give_the_same_figure(contestants) -> None:
    assert timeline_plot("t", contestants) == timeline_plot("t", contestants)


@pytest.mark.parametrize("text", [HOSTILE, "跟踪器-\U0001f600", "x" * 300, ""])
def test_any_name_is_shown_as_it_is(text: str) -> None:
    point = Point(text or "?", 30.0, 0.5, (0.4, 0.6), 3.0)
    for drawing in drawings(pareto_plot("p", [point], "AO")):
        assert point.label in texts(drawing)
        assert drawing.find(f".//{SVG}script") is None


@pytest.mark.parametrize("ms", [1e-7, 1e-3, 5e8])
def test_extreme_latencies_can_be_drawn(ms: float) -> None:
    ones = [contestant("smat-openvino-fp32", ms), contestant("smat-onnx-fp32", 20.0, spread=2.0)]
    for plot in PLOTS.values():
        drawings(plot("x", ones))


def test_marks_can_be_reached_and_say_their_figures() -> None:
    points = [Point("a", 30.0, 0.5, None, 3.0), Point("b", 60.0, 0.4, (0.3, 0.5), 0.0)]
    for drawing in drawings(pareto_plot("p", points, "AO at 30 fps")):
        marks = [one for one in drawing.iter() if one.get("class") == "mark"]
        assert [one.get("aria-label") for one in marks] == [
            "a: AO at 30 fps 0.500, 30.0 fps, 3.0 MiB",
            "b: AO at 30 fps 0.400, 60.0 fps, 0.0 MiB",
        ]
        assert all(one.get("tabindex") == "0" and one.find(f"{SVG}title") is not None for one in marks)


COORDINATE = st.integers(1, 6)


@settings(deadline=None)
@given(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=1, max_size=12), st.sampled_from([FPS, PARAMETERS]))
def test_frontier_is_what_no_other_beats(pairs, across) -> None:
    sign = -1 if across.fewer else 1
    points = [Point(str(i), float(cost), gain / 10, None, 1.0) for i, (cost, gain) in enumerate(pairs)]
    beaten = {
        (p.x, p.y)
        for p in points
        if any(sign * q.x >= sign * p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in points)
    }
    front = frontier(points, across)
    assert {(p.x, p.y) for p in front} == {(p.x, p.y) for p in points} - beaten
    assert [p.x for p in front] == sorted({p.x for p in front})


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    points = [Point("a", 2.4, 0.5, None, None), Point("b", 303.0, 0.6, None, None)]
    for drawing in drawings(pareto_plot("p", points, "AO")):
        assert {"10", "100"} <= set(texts(drawing))
        assert not any("$" in text for text in texts(drawing))


def test_parameters_are_millions_and_files_may_be_unknown() -> None:
    points = [Point("a", 3.77, 0.5, (0.4, 0.6), None), Point("b", 92.1, 0.6, None, None)]
    for drawing in drawings(pareto_plot("p", points, "AUC", PARAMETERS)):
        said = [one.get("aria-label") for one in drawing.iter() if one.get("class") == "mark"]
        assert said == ["a: AUC 0.500, 3.77 million parameters", "b: AUC 0.600, 92.10 million parameters"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(1, 50))
def test_envelope_leaves_no_sample_out(values, columns: int) -> None:
    given_values = np.array(values)
    x, middle, lowest, highest = envelope(given_values, columns)
    assert len(x) == min(columns, len(values))
    assert lowest.min() == given_values.min()
    assert highest.max() == given_values.max()
    assert (lowest <= middle).all()
    assert (middle <= highest).all()
    assert (np.diff(x) > 0).all()


def test_divergence_shows_the_most_different_first() -> None:
    delta = difference(0.0, -0.003, 0.003, "equal")
    curves = [pair(f"clip{i}", [1.0, 0.9 - 0.02 * i], first=None) for i in range(MOST_CURVES + 3)]
    found = comparison(side("smat-openvino-fp32", 0.7), side("smat-openvino-int8", 0.7), delta, curves)
    assert most_different(curves, 1)[0].name == f"clip{MOST_CURVES + 2}"
    for drawing in drawings(divergence_plot("d", found)):
        shown = [text for text in texts(drawing) if text.startswith("clip")]
        assert len(shown) == MOST_CURVES
        assert shown[0] == f"clip{MOST_CURVES + 2}"


def test_nothing_to_draw_is_nothing() -> None:
    delta = difference(0.0, -0.003, 0.003, "equal")
    single = [pair("clip", [1.0])]
    assert divergence_plot("d", comparison(side("a-b-c", 0.7), side("a-b-d", 0.7), delta, single)) == ""


def test_sensitivity_names_stages_and_what_they_cost() -> None:
    for drawing in drawings(sensitivity_plot("s", sensitivity())):
        shown = texts(drawing)
        assert {"reg (kept)", "stem", "+0.06 ms", "0.00 ms"} <= set(shown)


def test_each_sensor_that_matters_has_a_row_and_the_onset_its_line() -> None:
    timeline = jetson_soak().telemetry
    assert [series.name for series in drawn_sensors(timeline)] == ["VDD_IN", "tj", "GPU", "smat-tensorrt-fp16"]
    markup = sensor_plot("sensors", timeline)
    for drawing in ET.fromstring(f"<both>{markup}</both>"):
        shown = [one.text for one in drawing.iter(f"{SVG}text")]
        assert "power VDD_IN" in shown
        assert "6.00 to 7.00 W" in shown
        assert any("stroke-dasharray" in one.attrib for one in drawing.iter(f"{SVG}path"))
    assert "style=" not in markup
    assert "#0000" not in markup


def test_no_sensor_is_no_plot() -> None:
    assert sensor_plot("s", Timeline(interval_s=1.0)) == ""
    silent = Series("a", "power_w", "b", [None, None])
    assert sensor_plot("s", Timeline(interval_s=1.0, t_s=[0.0, 1.0], series=[silent])) == ""


def test_one_reading_and_hostile_names_can_be_drawn() -> None:
    series = [Series("a", "power_w", "<script>$\\frac{", [0.0]), Series("a", "clock_mhz", "", [1e12])]
    drawing = ET.fromstring(f"<both>{sensor_plot('s', Timeline(interval_s=1.0, t_s=[0.0], series=series))}</both>")
    assert drawing.find(f".//{SVG}script") is None


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 50))
def test_columns_leave_no_reading_out_and_invent_none(values, most) -> None:
    x, middle, lowest, highest = envelope(values, most, [2.0 * k for k in range(len(values))])
    known = [value for value in values if value is not None]
    assert len(x) == min(most, len(values))
    if known:
        assert np.nanmin(lowest) == min(known)
        assert np.nanmax(highest) == max(known)
        shown = ~np.isnan(middle)
        assert (lowest[shown] <= middle[shown]).all()
        assert (middle[shown] <= highest[shown]).all()
    else:
        assert np.isnan(middle).all()
