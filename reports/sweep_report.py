"""`sweep.html`: the front, maps, lines and table of many runs, written by `kvsim sweep` and `kvsim report DIR`."""

from collections.abc import Sequence
from math import inf

from reports.document import Section, document
from reports.figures.parallel import parallel_choice
from reports.figures.pareto import pareto_choice
from reports.figures.sweep_axes import heat_choice, line_choice
from reports.sweep_data import COST, GPUS, PER_MTOK, Measure, SweepData, SweepRun, value_text
from reports.tables import DataTable, TextTable
from reports.text import NO_VALUE, number, seconds, slo_label

STATES = {True: "met", False: "missed", None: ""}
FILTERS = (
    "Sort by a heading, filter below it: words, or for numbers <5, >=3, =4 and 1..8. Every metric of every run is in "
    "sweep.parquet."
)


def render(data: SweepData) -> str:
    """The whole sweep as one HTML document."""
    return document(
        "study.html.j2",
        scripts=("explore.js",),
        title=f"{data.name} · sweep",
        eyebrow="kvsim sweep",
        name=data.name,
        about=f"{len(data.runs)} runs over {', '.join(axis.label for axis in data.axes)}",
        facts=[*data.facts, *((path, value) for path, value in data.common.items())],
        state="none",
        headline=headline(data),
        tiles=tiles(data),
        sections=sections(data),
        notes=notes(data),
    )


def sections(data: SweepData) -> list[Section]:
    """Every section with figures and tables, in the order of the page."""
    front, lines, heat, parallel = pareto_choice(data), line_choice(data), heat_choice(data), parallel_choice(data)
    failed = failed_table(data)
    return [
        *([Section("front", "What is worth its cost", [front])] if front else []),
        Section(
            "best", "Best runs", [], [best_table(data)] if data.done else [], () if data.done else ("No run ran.",)
        ),
        *([Section("along", "Along the axes", [one for one in (lines, heat) if one])] if lines else []),
        *([Section("together", "All axes at once", [parallel])] if parallel else []),
        Section("runs", "Every run", [], [run_table(data)]),
        *([Section("failed", "Runs that failed", [], [failed])] if failed else []),
    ]


def target(data: SweepData) -> SweepRun | None:
    """The run to name first: what the search was for; else, of those that meet the SLO, the cheapest or the best."""
    runs = [run for run in data.done if run.slo_met is not False]
    if data.search is not None:
        goal = data.measure(data.search.metric)
        runs = runs if data.search.meet_slo else data.done
        return _best(runs, goal, data, largest=data.search.largest) if goal else None
    if not runs:
        return None
    goals = [*(data.costs[:1] if data.slo else []), *data.metrics]
    return _best(runs, goals[0], data, largest=goals[0].better == "higher") if goals else None


def _best(runs: Sequence[SweepRun], goal: Measure, data: SweepData, *, largest: bool) -> SweepRun | None:
    """The best of the runs by `goal`; of equal ones that furthest below the SLO's limits, else the first."""
    known = [run for run in runs if goal.key in run.measures]
    sign = -1 if largest else 1
    return min(known, key=lambda run: (sign * run.measures[goal.key], _nearest_limit(run, data)), default=None)


def _nearest_limit(run: SweepRun, data: SweepData) -> float:
    """How much of its limit the metric takes that is nearest to it, of those that the SLO limits; 0 without one."""
    shares = (run.measures.get(f"{key}_ms", inf) / limit for key, limit in data.slo.items())
    return max(shares, default=0.0)


def headline(data: SweepData) -> list[str]:
    """What the sweep found, in a sentence or three."""
    said, run = [], target(data)
    if run is not None:
        told = [data.measure(COST), *data.metrics[:3]]
        values = "; ".join(
            f"{one.label} {value_text(one, run.measures[one.key])}" for one in told if one and one.key in run.measures
        )
        said.append(f"{_role(data)}: {run.label} ({values})")
    elif data.search is not None or data.slo:
        said.append(f"No run meets the SLO{_nearest(data)}." if data.done else "No run ran.")
    if data.slo and data.done:
        met = sum(run.slo_met is True for run in data.done)
        limits = ", ".join(f"{slo_label(key)} ≤ {seconds(limit / 1e3)}" for key, limit in data.slo.items())
        said.append(f"{met} of {len(data.runs)} runs meet the SLO ({limits}).")
    failed = sum(run.error is not None for run in data.runs)
    if failed:
        said.append(f"{failed} of {len(data.runs)} runs failed: the reasons are at the end.")
    return said or ["No run ran."]


def _role(data: SweepData) -> str:
    if data.search is not None:
        goal = data.measure(data.search.metric)
        way = "Largest" if data.search.largest else "Least"
        among = " of runs that meet the SLO" if data.search.meet_slo else ""
        return f"{way} {goal.label if goal else data.search.metric}{among}"
    if data.slo and data.costs:
        return "Cheapest that meets the SLO" if data.costs[0].key == COST else "Fewest GPUs that meet the SLO"
    return f"Best {data.metrics[0].label}{' of runs that meet the SLO' if data.slo else ''}"


def tiles(data: SweepData) -> list[tuple[str, str, str]]:
    """The few numbers people look for first: (label, value, what it is)."""
    found = [("Runs", number(len(data.runs)), data.way)]
    if data.slo:
        found.append(("Meet the SLO", number(sum(run.slo_met is True for run in data.done)), "of these runs"))
    for one in [*data.costs[:1], *data.metrics[:4]]:
        values = [run.measures[one.key] for run in data.done if one.key in run.measures]
        if values:
            ends = (min(values), max(values))
            best, other = ends if one.better == "lower" else ends[::-1]
            plain = one.unit not in ("ms", "%", "")  # its unit would take the value's line
            label = f"{one.label}, {one.unit}" if plain else one.label
            shown = [number(end) if plain else value_text(one, end) for end in (best, other)]
            found.append((label, shown[0], f"best; worst {shown[1]}"))
    return found[:6]


def _nearest(data: SweepData) -> str:
    """The run whose worst target is least beyond its limit; nothing where requests that were rejected decide."""
    known = [(run, *run.worst) for run in data.done if run.worst is not None and not run.rejected]
    if not known:
        return ""
    run, key, value, limit = min(known, key=lambda one: one[2] / one[3])
    return f"; {run.label} comes nearest, with {slo_label(key)} at {seconds(value)} of {seconds(limit)}"


def best_table(data: SweepData) -> TextTable:
    """The best run by each measure; of those that meet the SLO where there are any."""
    met = [run for run in data.done if run.slo_met is True]
    runs = met or data.done
    rows = []
    for one in [*(m for m in (data.measure(COST), data.measure(PER_MTOK)) if m), *data.metrics]:
        best = _best(runs, one, data, largest=one.better == "higher") if one.better else None
        if best is not None:
            rows.append((one.label, value_text(one, best.measures[one.key]), best.label))
    among = (
        "Among the runs that meet the SLO."
        if met
        else "Among all runs: none meets the SLO."
        if data.slo
        else "Among all runs."
    )
    return TextTable("best-runs", "Best run by each measure", among, ("By", "Value", "Run"), rows, (1,))


def run_table(data: SweepData) -> DataTable:
    """Every run with its settings, verdict, cost and metrics."""
    axes = data.axes
    costs = [one for one in (data.measure(COST), data.measure(GPUS)) if one]
    measures = [*costs, *data.metrics]
    rejected = any(run.rejected for run in data.runs)
    failed = any(run.error is not None for run in data.runs)
    columns = [
        "Run",
        *(axis.title if axis.numeric and axis.scale != 1 else axis.label for axis in axes),
        *(["SLO"] if data.slo else []),
        *(one.title for one in measures),
        *(["Rejected"] if rejected else []),
        *(["Error"] if failed else []),
    ]
    rows, values, states = [], [], []
    for run in data.runs:
        cells: list[tuple[str, float | str]] = [(str(run.number), float(run.number))]
        for axis in axes:
            text = run.values[axis.path]
            cells.append((text, run.numbers[axis.path] if axis.numeric else text))
        if data.slo:
            told = "failed" if run.error is not None else {True: "met", False: "missed", None: NO_VALUE}[run.slo_met]
            cells.append((told, told))
        for one in measures:
            value = run.measures.get(one.key)
            cells.append((NO_VALUE, NO_VALUE) if value is None else (number(value), value))
        if rejected:
            cells.append((number(run.rejected), float(run.rejected)))
        if failed:
            cells.append((run.error or "", run.error or ""))
        rows.append([text for text, _ in cells])
        values.append([value for _, value in cells])
        states.append("failed" if run.error is not None else STATES[run.slo_met])
    first = 1 + len(axes) + bool(data.slo)
    numbers = [
        *(i for i, axis in enumerate(axes, 1) if axis.numeric),
        *range(first, first + len(measures) + rejected),
    ]
    terms = [(one.title, one.definition) for one in measures]
    return DataTable("run-table", "Runs", FILTERS, columns, rows, values, numbers, states, terms)


def failed_table(data: SweepData) -> TextTable | None:
    """Runs without numbers, and why; None where all ran."""
    rows = [(run.label, run.error) for run in data.runs if run.error is not None]
    read = "These have no numbers; the others are not touched by it. --resume makes them again."
    return TextTable("failed-runs", "Why", read, ("Run", "Reason"), rows, ()) if rows else None


def notes(data: SweepData) -> list[str]:
    """How it is counted."""
    said = [
        f"Runs were chosen by: {data.way}. All share the seed of the scenario unless it is one of the axes, so they "
        "serve the same requests at the same times.",
        "A front, a best run or a map is of these runs alone: values between them were not simulated. Differences "
        "between neighbours may be chance; `kvsim compare` says whether they are.",
    ]
    if data.measure(COST) is not None:
        said.append(
            "Costs are GPUs, hosts and memory by the hour. "
            + " ".join(f"Price: {text}." for text in data.price_sources)
        )
    if data.no_price:
        said.append(f"Without a price, so not in any cost: {', '.join(data.no_price)} (--prices FILE gives your own).")
    return said
