"""Any page of ours: a template with its style, scripts and figures as one HTML document that needs no network.

Every value goes through Jinja's autoescape; figures are data (application/json) and only fixed scripts run: Plotly and
those of `templates/`. The page's Content-Security-Policy allows these by hash, and no connection at all.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from reports.figures.base import Choice, Figure
from reports.tables import DataTable, TextTable


@dataclass(frozen=True)
class Section:
    """A part of the page: paragraphs, tables, figures. `key` is its anchor."""

    key: str
    title: str
    figures: Sequence[Figure | Choice]
    tables: Sequence[TextTable | DataTable] = ()
    notes: Sequence[str] = ()


def document(template: str, *, scripts: Sequence[str] = (), **values: Any) -> str:
    """The page of `templates/<template>`, which extends `base.html.j2`, as one HTML document.

    scripts: files of `templates/` that run before `render.js`, for pages with menus or tables to filter.
    """
    run = [Markup(get_plotlyjs()), *(Markup(template_file(name)) for name in (*scripts, "render.js"))]
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(template_file("style.css")),
            scripts=run,
            policy=content_policy(*run),
            json=lambda figure: Markup(figure.json()),
            **values,
        )
    )


def content_policy(*scripts: str) -> str:
    """A Content-Security-Policy that lets exactly these inline scripts run, and nothing be fetched."""
    hashes = " ".join(
        "'sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() + "'" for s in scripts
    )
    # Plotly styles its SVG inline and saves pictures through data: and blob: URLs.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def template_file(name: str) -> str:
    """The text of a file of `templates/`."""
    return (resources.files("reports") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(template_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
