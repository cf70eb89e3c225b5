"""The page in a real browser: drawn, sorted, readable on a phone and a desk, by keyboard, in light and dark."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgetrack.evaluation.datasets import open_dataset
from edgetrack.report.leaderboard import admitted
from edgetrack.report.leaderboard import page as leaderboard
from edgetrack.report.model import read_results
from edgetrack.report.page import html
from tests.report.conftest import FRAMES, MACHINE, SCENE, benchmark, contestant, write, write_comparison_with_runs

LONG = "a_tracker_with_quite_a_long_name-openvino-fp32"
VIEWS = [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")]
# What is wider than its place: text that is cut, or a page that scrolls sideways. The table's own region may scroll.
TOO_WIDE = """
() => [...document.querySelectorAll("body *")].filter((one) => {
  if (one.closest(".scroll, pre, #tip, .skip, svg")) return false;
  const box = one.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((one) => one.outerHTML.slice(0, 80))
"""
# Letters of a figure that lie outside of it.
OUTSIDE = """
() => [...document.querySelectorAll("svg.figure")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  if (!frame.width) return [];
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 3 || box.right > frame.right + 3 || box.top < frame.top - 3
      || box.bottom > frame.bottom + 3;
  }).map((text) => text.textContent);
})
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    ones = [
        contestant("smat-openvino-fp32", 20.0, seed=1, pytorch=2.8),
        contestant("smat-openvino-int8", 8.0, seed=2, size=5.0, pytorch=7.0),
        contestant(LONG, 100.0, seed=3),
        contestant("smat-torch-fp32", 57.0, seed=4),
    ]
    write(folder / "bench.json", benchmark(*ones))
    source = write_comparison_with_runs(folder / "compare")
    made = html(read_results([folder, source]), open_dataset(f"synthetic:{SCENE}?frames={FRAMES}"))
    path = folder / "report.html"
    path.write_text(made, "utf-8")
    return path


@pytest.fixture
def opened(chromium, page_file: Path):
    """opened(width, scheme) -> the page; what it complains of or asks for fails the test."""
    pages, complaints = [], []

    def show(width: int, scheme: str, file: Path = page_file):
        one = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        one.on("console", lambda message: complaints.append(message.text))
        one.on("pageerror", lambda error: complaints.append(str(error)))
        one.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        one.goto(file.as_uri())
        pages.append(one)
        return one

    yield show
    for one in pages:
        one.close()
    assert complaints == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_page_fits_and_every_plot_is_drawn(opened, width: int, scheme: str) -> None:
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(OUTSIDE) == []
    shown = page.locator("svg.figure:visible")
    assert shown.count() == page.locator("svg.figure").count() / 2 == 6
    for index in range(shown.count()):
        box = shown.nth(index).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 100
    assert page.locator(".strip img").evaluate_all("all => all.every((one) => one.complete && one.naturalWidth > 0)")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_leaderboard_fits_whatever_machines_are_called(opened, tmp_path: Path, width: int, scheme: str) -> None:
    long = msgspec.structs.replace(
        MACHINE, cpu_model="A processor of a name that is longer than a phone is wide, 2.60 GHz"
    )
    for name, machine in (("a", MACHINE), ("b", long)):
        ones = [contestant("smat-openvino-fp32", 20.0, seed=1), contestant(LONG, 100.0, seed=3)]
        write(tmp_path / f"{name}.json", benchmark(*ones, machine=machine, date="2026-11-30T08:00:00Z"))
    file = tmp_path / "leaderboard.html"
    file.write_text(leaderboard(admitted(read_results([tmp_path])), "machines"), "utf-8")
    page = opened(width, scheme, file)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(OUTSIDE) == []
    assert page.locator("svg.figure:visible").count() == 2
    page.locator("th", has_text="fps").first.click()
    assert page.locator("tbody tr").first.locator("th").inner_text().startswith(LONG)


def test_no_column_is_clipped_on_a_desk_and_a_phone_shows_that_a_table_goes_on(opened) -> None:
    wide = "all => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)"
    page = opened(1440, "light")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.locator(".scroll").count() >= 3
    assert page.locator(".scroll").evaluate_all(wide) == []
    page = opened(390, "light")
    assert page.locator("#table .scroll").evaluate("(one) => one.scrollWidth > one.clientWidth")
    assert "local" in page.locator("#table .scroll").evaluate("(one) => getComputedStyle(one).backgroundAttachment")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme: str) -> None:
    page = opened(1440, scheme)
    contrast = """(name) => {
      const probe = document.createElement("i");
      document.body.append(probe);
      const light = (colour) => {
        probe.style.color = `var(--${colour})`;
        const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
        const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
      };
      const pair = [light(name), light("ground")].sort((a, b) => b - a);
      probe.remove();
      return pair[0] / pair[1];
    }"""
    for name in ("ink", "muted", "accent"):
        assert page.evaluate(contrast, name) >= 4.5, name
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 60) == (scheme == "dark")


def test_table_sorts_by_click_and_by_key(opened) -> None:
    page = opened(1440, "light")
    table = page.locator("#table table")

    def names() -> list[str]:
        return [text.splitlines()[0] for text in table.locator("tbody th").all_inner_texts()]

    heading = table.locator("thead th", has_text="size MiB")
    first = names()
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names()[0] == "smat-openvino-int8"
    ratio = table.locator("thead th", has_text="x PyTorch")
    ratio.get_by_role("button").press("Space")
    assert names()[:2] == ["smat-openvino-int8", "smat-openvino-fp32"], "rows without a figure come last"
    ratio.get_by_role("button").press("Space")
    assert names()[:2] == ["smat-openvino-fp32", "smat-openvino-int8"], "rows without a figure come last"
    assert heading.get_attribute("aria-sort") is None
    table.locator("thead th", has_text="bundle").get_by_role("button").click()
    assert names() == sorted(first, key=str.lower)


def test_marks_speak_when_focused_and_fall_silent(opened) -> None:
    page = opened(1440, "light")
    mark = page.locator("svg.wide .mark").first
    mark.focus()
    assert page.locator("#tip").inner_text() == mark.get_attribute("aria-label")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.locator("svg.wide .mark").nth(1).hover()
    assert page.locator("#tip").is_visible()


def test_keyboard_reaches_the_findings_first_and_all_that_can_be_opened(opened) -> None:
    page = opened(390, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#findings"
    for index in range(page.locator("summary").count()):
        page.locator("summary").nth(index).press("Enter")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate(TOO_WIDE) == []


def test_page_is_readable_without_script(chromium, page_file: Path) -> None:
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#table tbody tr").count() == 4
    assert page.locator("svg.wide .mark title").first.text_content()
    assert not page.locator("#tip").is_visible()
    context.close()
