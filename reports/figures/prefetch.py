"""Prefetching: how much was fetched ahead of need, when, and over which link."""

from reports import bins as b
from reports.figures.base import CYCLE, Figure, TimeAxis, area, time_layout
from reports.figures.links import link_order, of_link
from reports.load import RunData
from reports.text import link_label, percent


def prefetch_figures(run: RunData, axis: TimeAxis) -> list[Figure]:
    """The prefetch section: bytes fetched ahead per second, by the link that they crossed."""
    key, title = "prefetch-rate", "Fetched ahead of need"
    read = f"Bytes that prefetches moved per second, all links of a name together ({axis.every})."
    data = []
    fetched = total = 0.0
    for i, name in enumerate(link_order(run)):
        every = of_link(run, name)
        t = every.where(every.texts["reason"].mask("prefetch"))
        if not t.rows:
            continue
        (moved,) = b.spread(axis.bins, t["start_s"], t["end_s"], t["bytes"])
        data.append(area(link_label(name), moved / axis.bins.width / 1e9, axis, CYCLE[i % len(CYCLE)], "GB/s"))
        fetched += float(moved.sum())
        total += float(every["bytes"].sum())
    if not data:
        return [Figure(key, title, read, empty="Nothing was fetched ahead of need in this run.")]
    finding = f"{percent(fetched / total)} of the bytes that these links moved."
    return [Figure(key, title, read, finding, data, time_layout(axis, "GB/s"))]
