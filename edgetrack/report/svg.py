"""Matplotlib's figures as SVG that lives in a page: in its colours, with marks that can be pointed at.

Figures are drawn in the colours of `INK`; what is put into the page refers to them by class, so that the style sheet
decides. No style attributes, no scripts, no ids but those that are referred to: the page's security policy forbids the
first two, and ids must be unique among all figures of a page.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "accent": "#000004",
    "soft": "#000005",
    "ground": "#000006",
    "shade": "#000007",
}
"""Names of the style sheet's colours, and what a figure is drawn in to get them."""
WIDE, NARROW = 660, 340
"""Widths in CSS pixels: the column of a large screen, and a phone of 390 pixels less its margins."""
PX = 1 / 72
"""A figure's inch is 72 units of its SVG, so that a unit is a pixel."""
_CLASS = {colour: name for name, colour in INK.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = frozenset({"font-family", "stroke-linejoin", "stroke-miterlimit"})
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK["ink"],
    "axes.labelcolor": INK["muted"],
    "axes.edgecolor": INK["line"],
    "xtick.color": INK["line"],
    "ytick.color": INK["line"],
    "xtick.labelcolor": INK["muted"],
    "ytick.labelcolor": INK["muted"],
    "grid.color": INK["line"],
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
    "figure.dpi": 72,
    "axes.axisbelow": True,
    "path.simplify": False,
    "scatter.edgecolors": "none",
}


@dataclass
class Marks:
    """What a reader may point at: an artist's `gid` and its text."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, text: str) -> str:
        """A new mark's gid."""
        gid = f"{self.name}-{len(self.texts)}"
        self.texts[gid] = text
        return gid


def both(name: str, title: str, draw: Callable[[float, Marks], Figure]) -> Markup:
    """A figure drawn twice, for large screens and for phones; the style sheet shows one of them.

    Args:
        name: unique in the page; letters, digits and dashes.
        title: what the figure shows, for those who cannot see it.
        draw: makes it for a width in pixels.
    """
    drawings = []
    for width, kind in ((WIDE, "wide"), (NARROW, "narrow")):
        marks = Marks(f"{name}-{kind}")
        with _style(marks.name):
            drawings.append(inline(draw(width, marks), title, marks, kind))
    return Markup("\n").join(drawings)


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        # The browser chooses the font: whether matplotlib's own has a name's letters does not matter.
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from", category=UserWarning)
        yield


def inline(figure: Figure, title: str, marks: Marks, kind: str) -> Markup:
    """A figure as an `<svg>` element of class `kind`."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # Made by matplotlib a moment ago, which escapes what it is given.
    root = ET.fromstring(written.getvalue())  # noqa: S314
    _strip(root)
    referred = _referred(root)
    for element in root.iter():
        _restyle(element)
        _mark(element, marks.texts)
        if "id" in element.attrib and element.get("id") not in referred:
            del element.attrib["id"]
    root.set("class", f"figure {kind}")
    root.set("role", "group" if marks.texts else "img")
    root.set("aria-label", title)
    ET.register_namespace("", _SVG.strip("{}"))
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704


def _strip(root: ET.Element) -> None:
    """Take out what a page does not need: metadata, a style sheet, the size in points."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    width, height = root.get("viewBox", "0 0 0 0").split()[2:]
    root.set("width", f"{float(width):g}")
    root.set("height", f"{float(height):g}")
    root.attrib.pop("version", None)


def _referred(root: ET.Element) -> set[str]:
    found = set()
    for element in root.iter():
        link = element.attrib.pop(_LINK, None)
        if link is not None:
            element.set("href", link)
            found.add(link.removeprefix("#"))
        found.update(re.findall(r"url\(#([^)]+)\)", element.get("clip-path", "")))
    return found


def _restyle(element: ET.Element) -> None:
    """Declarations of a style attribute become classes for the page's colours, and plain attributes."""
    classes = []
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if value in _CLASS and name in ("fill", "stroke"):
            classes.append(f"{name[0]}-{_CLASS[value]}")
        elif name and name not in _DROPPED:
            element.set(name, value.removesuffix("px") if name == "font-size" else value)
    if classes:
        element.set("class", " ".join(classes))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in ("d", "x", "y"):
        if name in element.attrib:
            element.set(name, _short(element.attrib[name]))
    if not (element.text or "").strip():
        element.text = None
    element.tail = None


def _short(numbers: str) -> str:
    """A tenth of a pixel is enough."""
    return " ".join(_NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), numbers).split())


def _mark(element: ET.Element, texts: Mapping[str, str]) -> None:
    text = texts.get(element.get("id", ""))
    if text is None:
        return
    element.set("class", "mark")
    element.set("tabindex", "0")
    element.set("role", "img")
    element.set("aria-label", text)
    title = ET.Element(f"{_SVG}title")
    title.text = text
    element.insert(0, title)


def panels(
    width: float, margin: float, height: float, rows: int, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Axes below each other, each of `height` pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * PX, (margin + height * rows) * PX))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def annotate(axis: Axes, text: str, at: tuple[float, float], coordinates: Any = "data", **options: Any) -> None:
    """Text on the ground's colour."""
    style = {"ha": "center", "va": "bottom", "color": INK["ink"], "textcoords": "offset points", "xytext": (0, 0)}
    ground = {"facecolor": INK["ground"], "edgecolor": "none", "pad": 1}
    axis.annotate(text, at, xycoords=coordinates, bbox=ground, **{**style, **options})
