"""The page as one file: style, script and pictures inside, and a policy that lets it load nothing.

Every text of a result is escaped by the template engine; what is taken as markup is made by `svg.py` alone. Style and
script are allowed by their hashes, so that nothing that slipped through could run.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from pathlib import Path

from markupsafe import Markup

from edgetrack import __version__
from edgetrack.errors import BackendMissingError
from edgetrack.evaluation.datasets import Dataset
from edgetrack.report import words
from edgetrack.report.model import Results
from edgetrack.report.page import make_page
from edgetrack.report.sentences import findings
from edgetrack.report.svg import INK
from edgetrack.report.table import speed_table

_ASSETS = Path(__file__).parent / "assets"


def check_packages() -> None:
    """Check that a page can be made, before anything is read.

    Raises:
        BackendMissingError: a package of the extra `report` is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise BackendMissingError(
                f"a report needs the package {package}, which is not installed; type: pip install 'edgetrack[report]'"
            )


def html(results: Results, dataset: Dataset | None = None, title: str = "edgetrack report") -> str:
    """The page.

    Args:
        results: at least one record.
        dataset: frames for the contact sheet of comparisons on it; without it there is none.
        title: of the page.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _style(), (_ASSETS / "page.js").read_text("utf-8")
    return environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        policy=_policy(style, script),
        # Both are files of this package.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        results=results,
        page=make_page(results, dataset),
        findings=findings(results),
        headlines=words.headlines(results),
        table=speed_table(results),
        notices=list(words.notices(results)),
        processors=words.processors(results),
        contents=words.contents(results),
        missing=words.missing(results),
        machine_facts=words.machine_facts,
        measured=words.measured,
    )


def _style() -> str:
    """The style sheet, and a class for the fill and stroke of each of the figures' colours."""
    inks = "".join(f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in INK)
    return (_ASSETS / "page.css").read_text("utf-8") + inks


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: nothing from anywhere, but for this style, this script, and pictures in the page."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
