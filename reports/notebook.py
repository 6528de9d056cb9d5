"""The figures of a report for a notebook: the same data as Plotly objects, with the page's light palette."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from reports.document import Section, template_file
from reports.figures.base import Choice, Figure
from reports.kinds import kind_of

COLOR_KEYS = frozenset({"color", "fillcolor", "bgcolor"})
"""Where figures name colours of the style sheet; `templates/render.js` has the same keys."""
HEADING = 120
"""Pixels that title and axis take, which on the page stand outside of a figure that says its height."""


def figures(folder: str | Path) -> dict[str, go.Figure]:
    """The figures of a folder's report by name (the anchor in the page), in the order of the page.

    Each has the page's title with its finding below; `figure.layout.meta` holds the sentence on how to read it.
    One that has nothing to draw says why. Raises InputError, one line, for a folder that cannot be read.
    """
    kind = kind_of(Path(folder))
    return drawn(kind.sections(kind.read(Path(folder))))


def drawn(sections: Iterable[Section]) -> dict[str, go.Figure]:
    """The figures of a page by name; of one with menus, the pick of options k and m is called <name>-k-m."""
    found: dict[str, go.Figure] = {}
    for figure in (one for section in sections for one in section.figures):
        if isinstance(figure, Choice):
            found[figure.key] = plotly_figure(figure.first)
            picks = list(figure.figures.items())[1:]
            found |= {figure.data_key(k).removesuffix("-data"): plotly_figure(one) for k, one in picks}
        else:
            found[figure.key] = plotly_figure(figure)
    return found


def plotly_figure(figure: Figure) -> go.Figure:
    """One figure of a page as a Plotly object."""
    made = go.Figure({"data": resolved(figure.data), "layout": resolved(figure.layout)})
    made.update_layout(
        template="plotly_white",
        title={"text": figure.title, "subtitle": {"text": figure.finding or figure.empty}},
        meta={"read": figure.read},
        legend_traceorder="normal",
    )
    made.update_annotations(bgcolor=palette()["--c-card"], opacity=0.95)  # as the page has them
    if "height" in figure.layout:
        made.update_layout(height=figure.layout["height"] + HEADING)
    return made


def resolved(node: Any, key: str = "") -> Any:
    """A copy with every name of a colour replaced by the colour, as `templates/render.js` does on the page."""
    if isinstance(node, dict):
        return {name: resolved(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [resolved(value, key) for value in node]
    if key in COLOR_KEYS and isinstance(node, str) and node.startswith("--c-"):
        return _color(node)
    return node


def _color(name: str) -> str:
    """`#rrggbb` of a colour's name; `rgba(...)` with a fifth of its strength for one that ends in -soft."""
    plain = palette()[name.removesuffix("-soft")]
    if not name.endswith("-soft"):
        return plain
    red, green, blue = (int(plain[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


@cache
def palette() -> dict[str, str]:
    """The colours of the page in its light theme, by name: the first block of the style sheet."""
    root, _, _ = template_file("style.css").partition("}")
    return dict(re.findall(r"(--c-[\w-]+): (#[0-9a-f]{6})", root))
