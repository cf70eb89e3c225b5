"""Scenario and sensors of a record, as the report shows them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.report.html import html
from edgetrack.report.markdown import markdown
from edgetrack.report.reading import read_results
from edgetrack.report.sensor_plots import columns, drawn, sensor_plot
from edgetrack.report.table import plain, speed_table
from edgetrack.telemetry.timeline import Series, Timeline
from tests.report.conftest import jetson_soak, write

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
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


def test_page_and_markdown_say_what_the_soak_and_the_sensors_found(results) -> None:
    page, told = html(results), markdown(results).replace("\\", "")
    for text in SAID:
        assert text in page
        assert text in told
    for text in (page, told):
        assert "clock-changed" in text
        assert "tegrastats:GPU ran at 620 to 1020 MHz" in text
    assert "smat-tensorrt-fp16, window by window" in page
    assert "540 to 600" in page


def test_the_table_has_energy_and_late_frames_of_a_soak(results) -> None:
    titles, row = plain(speed_table(results))
    assert row[titles.index("late frames")] == "0.3% (at 30 fps)"
    assert float(row[titles.index("mJ a frame")]) == pytest.approx(1000 * 6.39 * 60 / 1800, abs=1)


def test_each_sensor_that_matters_has_a_row_and_the_onset_its_line(results) -> None:
    timeline = results.benchmarks[0].value.telemetry
    assert [series.name for series in drawn(timeline)] == ["VDD_IN", "tj", "GPU", "smat-tensorrt-fp16"]
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
    x, middle, lowest, highest = columns([float(k) for k in range(len(values))], values, most)
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


def test_a_record_without_sensors_has_no_such_plot(tmp_path: Path) -> None:
    from tests.report.conftest import benchmark, contestant

    source = write(tmp_path / "x.json", benchmark(contestant("smat-openvino-fp32", 20.0)))
    assert "Sensors over time" not in html(read_results([source]))
