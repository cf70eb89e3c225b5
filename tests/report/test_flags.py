"""The curve of the flag, and its place in the page."""

from __future__ import annotations

from edgetrack.evaluation.lost import FlagScores
from edgetrack.evaluation.results import EvalRecord
from edgetrack.report.flags import flag_plot
from edgetrack.report.model import Results, Sourced
from edgetrack.report.page import html, markdown
from tests.report.conftest import evaluated
from tests.report.test_plots import drawings, texts

FOUND = FlagScores(
    frames=100,
    off_target=20,
    flagged=19,
    recall=0.9,
    false_alarms=0.0125,
    auroc=0.987,
    losses=2,
    noticed=1,
    notice=3.0,
    returns=2,
    found=1,
    find=4.0,
    interval={"recall": (0.8, 1.0), "false_alarms": None, "auroc": None, "found": None},
    curve=[(0.1, 0.0, 0.0), (0.5, 0.0125, 0.9), (1.0, 1.0, 1.0)],
)


def test_curve_says_its_area_and_where_the_flag_stands() -> None:
    plot = flag_plot("flag-0", FOUND)
    for drawing in drawings(plot):
        assert "AUROC 0.987" in texts(drawing)
    assert "the flag: recall 0.900, false alarms 1.25%; AUROC 0.987" in plot


def test_page_and_markdown_have_the_flag_of_an_evaluation() -> None:
    flagged = evaluated("smat-openvino-fp32", 0.7, (0.6, 0.8), flag=FOUND)
    results = Results(evaluations=(Sourced("e.json", EvalRecord(results=[flagged])),))
    page, text = html(results), markdown(results)
    assert "Whether a loss is noticed" in page
    assert "smat-openvino-fp32 on clips: the flag lost" in page
    assert "| all | 100 | 20 | 0.900 | 0.0125 | 0.987 | 1/2 | 3.0 | 1/2 | 4.0 |" in text
    plain = Results(evaluations=(Sourced("e.json", EvalRecord(results=[evaluated("a", 0.7, None)])),))
    assert "Whether a loss is noticed" not in html(plain)
