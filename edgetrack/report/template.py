"""A page from its template: one file with style and script in it, which loads nothing.

Its policy allows style and script by their hashes, so that nothing that slipped through could run.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edgetrack import __version__
from edgetrack.report.svg import INK

_ASSETS = Path(__file__).parent / "assets"


def render(name: str, title: str, made: datetime | None, **values: Any) -> str:
    """The page.

    Args:
        name: of the template, in `assets`.
        title: of the page.
        made: when; None leaves the date out, so that the same results give the same page.
        values: what the template draws, beside these and the style.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The style sheet, and a class for the fill and stroke of each of the figures' colours.
    inks = "".join(f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in INK)
    style, script = (_ASSETS / "page.css").read_text("utf-8") + inks, (_ASSETS / "page.js").read_text("utf-8")
    return environment.get_template(name).render(
        title=title,
        version=__version__,
        made="" if made is None else f"{made:%Y-%m-%d %H:%M} UTC",
        policy=_policy(style, script),
        # Both are files of this package.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        **values,
    )


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: nothing from anywhere, but for this style, this script, and pictures in the page."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
