"""What a figure is, and the few Plotly pieces all families share.

Figures are plain dicts in Plotly's JSON form: `graph_objects` would cost more time than the rest of a report.
Colours are names of CSS variables (`--c-blue`) that `templates/render.js` resolves for light, dark and print:
the palette lives in `templates/style.css` alone.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reports.bins import TimeBins
from reports.load import Floats
from reports.text import seconds

BLUE, ORANGE, GREEN, VERMILLION = "--c-blue", "--c-orange", "--c-green", "--c-vermillion"
SKY, PURPLE, GREY, INK, QUIET = "--c-sky", "--c-purple", "--c-grey", "--c-ink", "--c-quiet"
BROWN, TEAL = "--c-brown", "--c-teal"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Figure:
    """One figure: heading, one sentence on how to read it, what it shows in this run, and the Plotly JSON."""

    key: str  # HTML id
    title: str
    read: str
    finding: str = ""
    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    empty: str = ""  # why there is nothing to draw
    items: list[str] = field(default_factory=list)  # what numbers in the figure stand for, from 1 on
    broad: bool = False  # needs the width of a page: narrower ones scroll it

    def json(self) -> str:
        """Data and layout as JSON that is safe inside a script element of type application/json."""
        text = json.dumps({"data": self.data, "layout": self.layout}, allow_nan=False, separators=(",", ":"))
        return script_safe(text)


Picks = dict[tuple[int, ...], Figure]
"""Figures by the index of the option that is chosen in each menu."""


@dataclass(frozen=True)
class Choice:
    """Figures of which the reader chooses one: menus (label, options), and a figure for every pick of options.

    The first options of all menus are shown first.
    """

    key: str
    title: str
    read: str
    menus: Sequence[tuple[str, Sequence[str]]]
    figures: Picks

    @property
    def first(self) -> Figure:
        """What is shown until something is chosen."""
        return self.figures[(0,) * len(self.menus)]

    def data_key(self, picked: Sequence[int]) -> str:
        """The id of the data of a pick in the page."""
        return "-".join([self.key, *map(str, picked), "data"])


def script_safe(text: str) -> str:
    """Escape what could end a script element or a JavaScript line: the result is still the same JSON."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def plot_text(text: str) -> str:
    """A name from the data for a Plotly label: Plotly reads a little HTML in labels, so it is escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def values(series: Floats, digits: int = 5) -> list[float | None]:
    """A JSON list of `digits` significant digits; NaN and infinity become gaps (null)."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in series.tolist()]


@dataclass(frozen=True)
class TimeAxis:
    """Simulated time since the first arrival, in the unit that suits the length of the run."""

    bins: TimeBins
    divisor: float
    unit: str

    @property
    def layout(self) -> dict[str, Any]:
        """The `xaxis` entry."""
        span = self.bins.width * self.bins.count / self.divisor
        return {
            "title": {"text": f"time since first arrival ({self.unit})"},
            "range": [0, span],
            "zeroline": False,
            "unifiedhovertitle": {"text": f"at %{{x:,.4~r}} {self.unit}"},
        }

    @property
    def every(self) -> str:
        """`bins of 29.6 s`, for captions."""
        return f"bins of {seconds(self.bins.width)}"

    def grid(self) -> dict[str, float]:
        """`x0`/`dx` of a trace with one value per bin, placed at bin centres."""
        width = self.bins.width / self.divisor
        return {"x0": width / 2, "dx": width}

    def at(self, times: Floats) -> list[float | None]:
        """Explicit x values for times in simulated seconds."""
        return values((times - self.bins.start) / self.divisor, 6)


def time_axis(bins: TimeBins) -> TimeAxis:
    """Seconds below ten minutes, minutes below five hours, hours above."""
    span = bins.width * bins.count
    divisor, unit = (1.0, "s") if span < 600 else (60.0, "min") if span < 18000 else (3600.0, "h")
    return TimeAxis(bins, divisor, unit)


def y_axis(title: str, **more: Any) -> dict[str, Any]:
    """A `yaxis` entry that starts at zero."""
    return {"title": {"text": title}, "rangemode": "tozero", "zeroline": False, **more}


def line(name: str, y: Floats, axis: TimeAxis, color: str, unit: str, **more: Any) -> dict[str, Any]:
    """A line with one value per bin; `dash` and `width` style it, other keywords go to the trace."""
    style = {"color": color, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plot_text(name),
        **axis.grid(),
        "y": values(y),
        "line": style,
        "hovertemplate": hover(unit),
        **more,
    }


def area(name: str, y: Floats, axis: TimeAxis, color: str, unit: str, **more: Any) -> dict[str, Any]:
    """A layer of a stacked area with one value per bin."""
    trace = line(name, np.nan_to_num(y), axis, color, unit, width=0, **more)
    return {**trace, "stackgroup": "one", "fillcolor": color}


def hover(unit: str, form: str = ",.4~r") -> str:
    """Hover label `name  value unit`, under the unified time header."""
    spelled = f" {unit}" if unit and unit != "%" else unit and " %"
    return f"%{{fullData.name}}  %{{y:{form}}}{spelled}<extra></extra>"


def time_layout(axis: TimeAxis, y_title: str, **y_more: Any) -> dict[str, Any]:
    """Layout of a figure over time."""
    return {"xaxis": axis.layout, "yaxis": y_axis(y_title, **y_more), "hovermode": "x unified"}


def level_line(y: float, text: str, color: str = INK) -> tuple[dict[str, Any], dict[str, Any]]:
    """A dashed horizontal line across the plot and its label: (shape, annotation)."""
    shape = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "line": {"color": color, "width": 1.5, "dash": "dash"},
    }
    label = {
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": y,
        "yanchor": "bottom",
        "showarrow": False,
        "text": plot_text(text),
        "font": {"color": color},
    }
    return shape, label
