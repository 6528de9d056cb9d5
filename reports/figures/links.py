"""Links: bytes per second and busy share per direction, and how long transfers wait for the copy engine."""

import numpy as np

from reports import bins as b
from reports.figures.base import CYCLE, Figure, TimeAxis, line, time_layout
from reports.load import RunData, Table, section
from reports.text import link_label, percent, seconds

NOTHING = "No transfer in this run: every KV block stayed in the GPU."


def link_figures(run: RunData, axis: TimeAxis) -> list[Figure]:
    """The links section, top to bottom."""
    keys = ("link-rate", "link-busy", "link-queue")
    titles = ("Link throughput", "Link utilisation", "Link queue delay")
    read = (
        f"Bytes moved per second ({axis.every}), dashed away from the GPU; of several links of a name, the mean.",
        "Share of the time a direction was moving data; near 100 % the link is the bottleneck.",
        "How long transfers waited for the link before they started: p99 of those queued in each bin.",
    )
    names = link_order(run)
    if not names:
        return [Figure(keys[0], titles[0], read[0], empty=NOTHING)]
    rate, busy, wait = [], [], []
    notes_busy, notes_wait, notes_rate = [], [], []
    for i, name in enumerate(names):
        t = of_link(run, name)
        style = {"color": CYCLE[i % len(CYCLE)], "dash": "dash" if away(name) else "solid"}
        label = link_label(name)
        share = axis.bins.width * instances(run, name)
        moved, used = b.spread(axis.bins, t["start_s"], t["end_s"], t["bytes"], t["end_s"] - t["start_s"])
        delay = t["start_s"] - t["queued_s"]
        (p99,) = b.percentiles(axis.bins, t["queued_s"], delay, (99.0,))
        rate.append(line(label, moved / share / 1e9, axis, unit="GB/s", **style))
        busy.append(line(label, 100 * used / share, axis, unit="%", **style))
        wait.append(line(label, 1e3 * p99, axis, unit="ms", connectgaps=True, **style))
        notes_rate.append(f"{label} {float(moved.max()) / share / 1e9:.3g} GB/s")
        utilization = section(section(run.summary, "links"), name).get("utilization")
        notes_busy.append(f"{label} {percent(utilization)}")
        notes_wait.append(f"{label} {seconds(b.percentile(delay, 99))}")
    finding = (
        f"Busiest bin: {'; '.join(notes_rate)}.",
        f"Over the whole run: {'; '.join(notes_busy)}.",
        f"p99 over the whole run: {'; '.join(notes_wait)}.",
    )
    top = max(float(np.nanmax(np.array(trace["y"], dtype=np.float64), initial=0.0)) for trace in busy)
    layouts = (
        time_layout(axis, "GB/s per link"),
        time_layout(axis, "busy time (%)", range=[0, 100 if top > 50 else max(5.0, 1.2 * top)]),
        time_layout(axis, "wait before start (ms)"),
    )
    return [
        Figure(k, t, r, f, d, layout)
        for k, t, r, f, d, layout in zip(keys, titles, read, finding, (rate, busy, wait), layouts, strict=True)
    ]


def link_order(run: RunData) -> list[str]:
    """Links that moved something: in the summary's order, then by name."""
    column = run.transfers.texts["link"]
    seen = {column.names[i] for i in np.unique(column.index) if i >= 0}
    listed = [name for name in section(run.summary, "links") if name in seen]
    return [*listed, *sorted(seen.difference(listed))]


def of_link(run: RunData, name: str) -> Table:
    """The transfers over the links of one name."""
    return run.transfers.where(run.transfers.texts["link"].mask(name))


def away(name: str) -> bool:
    """True for the direction away from the GPU."""
    return name.endswith(("_d2h", "_write"))


def instances(run: RunData, name: str) -> int:
    """Links of that name: one per GPU, per drive or per node."""
    count = section(section(run.summary, "links"), name).get("count")
    return count if isinstance(count, int) and count > 0 else run.replicas
