"""The report of a run: its text, tables and figures, put into the template."""

from collections.abc import Mapping
from typing import Any

from reports.assumptions import ASSUMPTIONS
from reports.bins import time_bins
from reports.document import Section, document
from reports.figures.base import time_axis
from reports.figures.cache import cache_figures
from reports.figures.flow import flow_figures
from reports.figures.goodput import goodput, interactivity
from reports.figures.latency import latency_figures
from reports.figures.links import link_figures
from reports.figures.load import engine_time, load_figures
from reports.figures.memory import budget_table, hbm_budget
from reports.figures.replica_time import replica_time
from reports.figures.slowest import slowest_figures, slowest_tables
from reports.figures.tornado import explain_table, tornado_figures
from reports.limits import limits
from reports.load import RunData, section
from reports.panels import with_panels
from reports.provenance import provenance, times_of, trust_line
from reports.request_tables import percentile_table, reuse_table
from reports.tables import (
    bound_tables,
    link_tables,
    part_tables,
    priority_tables,
    tier_table,
    time_table,
)
from reports.text import NBSP, NO_VALUE, is_number, metric_value, number, percent, seconds
from reports.verdict import verdict

NO_METRICS = "The summary of this run lists no metrics."


def render(run: RunData) -> str:
    """The whole report of `run` as one HTML document."""
    summary = run.summary
    values, sources = provenance(run.profile)
    return document(
        "run.html.j2",
        limits=limits_section(run),
        names=names(run),
        facts=facts(run),
        tiles=tiles(summary),
        verdict=verdict(summary),
        rejected=rejected_note(run),
        warnings=[str(w) for w in summary.get("warnings") or []],
        bands=bands_note(section(summary, "uncertainty")),
        metrics=[metric_row(m) for m in summary.get("metrics") or [] if isinstance(m, Mapping)],
        no_metrics=NO_METRICS,
        sections=run_sections(run),
        trust=trust_line(summary),
        values=values,
        sources=sources,
        scenario=run.scenario_text.strip(),
        assumptions=[str(a) for a in summary.get("assumptions") or ASSUMPTIONS],
    )


def every_section(run: RunData) -> list[Section]:
    """Every section, with the limits of the run's service first."""
    return [limits_section(run), *run_sections(run)]


def run_sections(run: RunData) -> list[Section]:
    """Every section with figures and tables of numbers, in the order of the page."""
    axis = time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))
    sections = [
        Section(
            "latency",
            "Latency",
            latency_figures(run, axis),
            [percentile_table(run), *part_tables(run), *priority_tables(run)],
        ),
        Section("slowest", "Slowest requests", slowest_figures(run), slowest_tables(run)),
        Section("load", "Load", [*load_figures(run, axis), goodput(run, axis), interactivity(run, axis)]),
        Section("time", "Replica time", [replica_time(run), engine_time(run, axis)], [time_table(run)]),
        Section("cache", "Cache", cache_figures(run, axis), [tier_table(run), *bound_tables(run)]),
        Section("flow", "KV bytes", [*flow_figures(run), *hbm_budget(run)], [*reuse_table(run), *budget_table(run)]),
        Section("links", "Links", link_figures(run, axis), link_tables(run)),
    ]
    return with_panels(sections, run, axis)


def limits_section(run: RunData) -> Section:
    """What limits the run, and what would move it if that was asked for."""
    study = run.explain
    moved = [] if study is None else tornado_figures(study)
    tables = [] if study is None else [explain_table(study)]
    return Section("limits", "What limits this run", moved, tables, limits(run))


def names(run: RunData) -> dict[str, str]:
    """Trace, model and hardware of the run as short names."""
    hardware = run.scenario.get("hardware")
    profile = section(run.summary, "profile").get("name")
    return {
        "trace": short_name(run.summary.get("trace")) or short_name(run.scenario.get("trace")) or "unnamed trace",
        "model": short_name(run.summary.get("model")) or short_name(run.scenario.get("model")) or "unnamed model",
        "hardware": str(profile or short_name(hardware) or "unnamed hardware"),
    }


def short_name(value: Any) -> str:
    """A scenario entry as a name: text as it is, a mapping by its `name`, `profile`, `path` or only key."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for key in ("name", "profile", "path", "kind"):
            if isinstance(value.get(key), str):
                return str(value[key])
        for key in ("generate", "clients"):
            if key in value:
                return f"{short_name(value[key]) or key} (generated)"
    return ""


def facts(run: RunData) -> list[tuple[str, str]]:
    """What identifies the run: (label, value), in reading order."""
    summary = run.summary
    requests = section(summary, "requests")
    groups = {key: section(summary, "hardware").get(key, 1) for key in ("tp", "pp")}
    each = "".join(f" × {key.upper()} {n}" for key, n in groups.items() if isinstance(n, int) and n > 1)
    digest = str(summary.get("config_sha256") or "")
    return [
        ("replicas", f"{run.replicas}{each}"),
        ("requests", number(requests.get("arrived", len(run.arrivals)))),
        *load_facts(section(summary, "trace")),
        ("hardware times", times_of([summary])),
        ("simulated", seconds(summary.get("duration_s", run.end_s - run.start_s))),
        ("seed", str(summary.get("seed", NO_VALUE))),
        ("config", digest[:12] or NO_VALUE),
        ("kvsim", str(summary.get("version", NO_VALUE))),
    ]


def load_facts(trace: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How requests come when what is served decides when the next ones are sent."""
    if not trace.get("closed_loop"):
        return []
    most = trace.get("max_parallel")
    return [("load", "closed loop" + (f", {number(most)} at a time" if is_number(most) else ""))]


def tiles(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The few numbers people look for first: (label, value, what it is)."""
    ttft, tpot, e2e = (section(summary, f"{m}_ms") for m in ("ttft", "tpot", "e2e"))
    rate, prefix = section(summary, "throughput"), section(summary, "prefix")

    def ms(value: Any) -> str:
        return seconds(value / 1e3) if is_number(value) else NO_VALUE

    return [
        ("TTFT p50", ms(ttft.get("p50")), "first token, median"),
        ("TTFT p99", ms(ttft.get("p99")), "99 % are faster"),
        ("TPOT p50", ms(tpot.get("p50")), "per token, median"),
        ("E2E p50", ms(e2e.get("p50")), "whole answer, median"),
        (
            "Throughput",
            f"{number(rate.get('requests_per_s'), 3)}{NBSP}req/s",
            f"{number(rate.get('output_tokens_per_s'), 3)} output tokens/s",
        ),
        ("Prefix hits", percent(prefix.get("hit_ratio")), "of prompt tokens"),
    ]


def rejected_note(run: RunData) -> str:
    """A sentence on rejected requests; empty when there were none."""
    requests = section(run.summary, "requests")
    count = requests.get("rejected", run.rejected)
    arrived = requests.get("arrived", len(run.arrivals))
    if not count:
        return ""
    share = f" ({percent(count / arrived)} of arrivals)" if arrived else ""
    what = "request was" if count == 1 else "requests were"
    return f"{number(count)} {what} rejected{share}; latency figures and percentiles leave them out."


def bands_note(about: Mapping[str, Any]) -> str:
    """What the range under each value is, from `summary["uncertainty"]`; empty without."""
    if not about:
        return ""
    ends = [round(100 * end) for end in about.get("interval") or (0.05, 0.95)]
    note = (
        f"Under each value: its {ends[0]}th to {ends[1]}th percentile over {number(about.get('runs'))} machines drawn "
        "from the 90 % intervals of the hardware values."
    )
    failed, outside = about.get("failed"), about.get("outside")
    if failed:
        note += f" {number(failed)} more could not run the scenario."
    if outside:
        note += f" Outside their own range, as they jump where machines differ little: {', '.join(outside)}."
    return note


def metric_row(metric: Mapping[str, Any]) -> dict[str, str]:
    """A row of the metric table from an entry of `summary["metrics"]`."""
    given = str(metric.get("unit") or "")
    value, unit = metric_value(metric.get("value"), given)
    band = metric.get("band") or ()
    return {
        "band": " to ".join(metric_value(end, given)[0] for end in band),
        "label": str(metric.get("label") or metric.get("key") or ""),
        "key": str(metric.get("key") or ""),
        "value": value,
        "unit": unit,
        "better": {"lower": "↓", "higher": "↑"}.get(str(metric.get("better")), ""),
        "better_words": {"lower": "lower is better", "higher": "higher is better"}.get(str(metric.get("better")), ""),
        "definition": str(metric.get("definition") or ""),
    }
