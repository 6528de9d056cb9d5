"""A sweep as its report needs it: axes, metrics and runs, read from `sweep.json`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from reports.documents import as_written, read_document
from reports.figures.base import plot_text
from reports.text import binary_unit, number, seconds
from sim.whatif.sweep_document import FILE, SCHEMA, WAYS
from sim.whatif.sweep_file import Search

COST, GPUS, PER_MTOK = "cost_per_hour", "gpus", "cost_per_mtok"
FIRST = ("ttft_p99_ms", "tpot_p95_ms", "e2e_mean_ms", "goodput_per_s", "output_tokens_per_s", "hit_ratio")
"""Metrics that figures offer, behind those that the search and the SLO are about."""
GRID, SAMPLED = 24, 8
"""Distinct numbers up to which an axis is a grid: of every combination, and of samples from a range."""


@dataclass(frozen=True)
class Axis:
    """What varies: `values` in order (numbers ascending, else as they first come); `scale` divides numbers for show."""

    path: str
    label: str
    values: tuple[str, ...]
    numeric: bool
    unit: str = ""
    scale: float = 1.0
    grid: bool = True
    """True if its values are few enough to show each one; else its numbers are a scale."""

    @property
    def title(self) -> str:
        """Its name with the unit of its numbers."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Measure:
    """What a run is judged by: a metric, or a cost. better: lower, higher or "" (neither)."""

    key: str
    label: str
    unit: str
    better: str
    definition: str = ""

    @property
    def title(self) -> str:
        """Its name with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class SweepRun:
    """One run: `values` and `numbers` by path of an axis (numbers in units of its scale), `measures` by key.

    number    its row of the table, from 1. name: what points of figures are called, the label if runs are not many
    worst     the target of the SLO that is furthest beyond its limit and missed, its value and limit (s); None without
    """

    number: int
    label: str
    name: str
    values: Mapping[str, str]
    numbers: Mapping[str, float]
    measures: Mapping[str, float]
    error: str | None
    slo_met: bool | None
    rejected: int
    worst: tuple[str, float, float] | None


@dataclass(frozen=True)
class SweepData:
    """A sweep that has ended."""

    name: str
    facts: tuple[tuple[str, str], ...]
    axes: tuple[Axis, ...]
    measures: tuple[Measure, ...]
    runs: tuple[SweepRun, ...]
    search: Search | None
    slo: Mapping[str, float]
    way: str
    common: Mapping[str, str]
    price_sources: tuple[str, ...]
    no_price: tuple[str, ...]

    def measure(self, key: str) -> Measure | None:
        """The measure of that key, None if no run has it."""
        return next((one for one in self.measures if one.key == key), None)

    @property
    def metrics(self) -> list[Measure]:
        """Metrics that figures offer: of the search, of the SLO, then FIRST."""
        keys = [*([self.search.metric] if self.search else []), *(f"{key}_ms" for key in self.slo), *FIRST]
        found = (self.measure(key) for key in dict.fromkeys(keys))
        return [one for one in found if one is not None][: None if len(self.runs) <= HUGE else 3]

    @property
    def costs(self) -> list[Measure]:
        """Cost measures that differ between runs."""
        found = (self.measure(key) for key in (COST, GPUS))
        return [m for m in found if m and len({r.measures[m.key] for r in self.runs if m.key in r.measures}) > 1]

    @property
    def done(self) -> list[SweepRun]:
        """Runs that ran."""
        return [run for run in self.runs if run.error is None]


MANY, HUGE = 300, 1500
"""Runs beyond which points of figures have the number of their run only, and figures offer three metrics: page size."""


def load_sweep_runs(folder: Path) -> SweepData:
    """Read `folder`/sweep.json. Raises InputError, one line, for what is missing, corrupt or of another version."""
    path = folder / FILE
    if not path.is_file() and (folder / "rows").is_dir():
        text = "this sweep has not ended: go on with `kvsim sweep FILE --out DIR --resume`"
        raise InputError(text, where=path)
    document = read_document(path, SCHEMA)
    with as_written(path):
        return _data(document)


def _data(document: Mapping[str, Any]) -> SweepData:
    most = GRID if document["way"] == WAYS[0] else SAMPLED
    axes = tuple(_axis(axis, document["runs"], most) for axis in document["axes"])
    currency = str(document["currency"])
    measures = [
        Measure(*(str(metric[key]) for key in ("key", "label", "unit", "better", "definition")))
        for metric in document["metrics"]
    ]
    measures += [
        Measure(COST, "Cost", f"{currency}/h", "lower", "GPUs, hosts and memory by the price table."),
        Measure(GPUS, "GPUs", "", "lower", "GPUs of all replicas."),
        Measure(PER_MTOK, "Cost of output", f"{currency}/Mtok", "lower", "Cost / output tokens."),
    ]
    many = len(document["runs"]) > MANY
    runs = tuple(_run(number, run, axes, many=many) for number, run in enumerate(document["runs"], 1))
    known = {key for run in runs for key in run.measures}
    search = document["search"]
    facts = (
        ("scenario", str(document["scenario"])),
        ("trace", str(document["trace"])),
        ("model", str(document["model"])),
        ("runs", number(len(runs))),
        ("chosen by", str(document["way"])),
        *((("seed", str(document["seed"])),) if document["seed"] is not None else ()),
        ("kvsim", str(document["version"])),
    )
    return SweepData(
        name=str(document["name"]),
        facts=facts,
        axes=axes,
        measures=tuple(one for one in measures if one.key in known),
        runs=runs,
        search=None
        if search is None
        else Search(str(search["metric"]), bool(search["largest"]), bool(search["meet_slo"])),
        slo={str(key): float(limit) for key, limit in document["slo"].items()},
        way=str(document["way"]),
        common={str(path): str(value) for path, value in document["common"].items()},
        price_sources=tuple(map(str, document["price_sources"])),
        no_price=tuple(map(str, document["no_price"])),
    )


def _axis(axis: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], most: int) -> Axis:
    path, numeric, unit, scale = str(axis["path"]), bool(axis["numeric"]), str(axis["unit"]), 1.0
    seen = {str(run["values"][path]): run["numbers"][path] for run in runs}
    values = sorted(seen, key=lambda value: float(seen[value])) if numeric else list(seen)
    if unit == "B":
        scale, unit = binary_unit(max(abs(float(size)) for size in seen.values()) if seen else 1.0)
    return Axis(path, str(axis["label"]), tuple(values), numeric, unit, scale, not numeric or len(values) <= most)


def _run(place: int, run: Mapping[str, Any], axes: Sequence[Axis], *, many: bool) -> SweepRun:
    error, met = run["error"], run["slo_met"]
    measured = {**run["metrics"], **{key: run[key] for key in (COST, GPUS, PER_MTOK)}}
    return SweepRun(
        number=place,
        label=str(run["label"]),
        name=f"run {place}" if many else str(run["label"]),
        values={axis.path: str(run["values"][axis.path]) for axis in axes},
        numbers={axis.path: float(run["numbers"][axis.path]) / axis.scale for axis in axes if axis.numeric},
        measures={str(key): float(value) for key, value in measured.items() if value is not None},
        error=None if error is None else str(error),
        slo_met=None if met is None else bool(met),
        rejected=int(run["rejected"]),
        worst=_worst(run["slo"]),
    )


def _worst(slo: Mapping[str, Any]) -> tuple[str, float, float] | None:
    found = [
        (str(key), float(target["value_ms"]) / 1e3, float(target["target_ms"]) / 1e3)
        for key, target in slo.items()
        if target["value_ms"] is not None and not target["met"]
    ]
    return max(found, key=lambda one: one[1] / one[2], default=None)


def axis_of(measure: Measure, found: Sequence[float]) -> tuple[float, dict[str, Any]]:
    """What values of a measure are divided by for an axis, and the axis: seconds for long times, log for wide spans."""
    long = measure.unit == "ms" and max(found) >= 2000
    divisor, unit = (1e3, "s") if long else (1.0, measure.unit)
    title = {"text": plot_text(f"{measure.label} ({unit})" if unit else measure.label)}
    if wide(found):
        return divisor, {"title": title, **log_axis([value / divisor for value in found])}
    return divisor, {"title": title, "zeroline": False, "rangemode": "tozero"}


def log_axis(found: Sequence[float]) -> dict[str, Any]:
    """A log axis over the values, with ticks of 1, 2 and 5, of 1 alone beyond four decades."""
    low, high = math.log10(min(found)) - 0.1, math.log10(max(found)) + 0.15
    steps = (1, 2, 5) if high - low < 4 else (1,)
    marks = [step * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    shown = [mark for mark in marks if low <= math.log10(mark) <= high]
    return {
        "type": "log",
        "range": [low, high],
        "tickvals": shown,
        "ticktext": [number(mark, 3) for mark in shown],
        "zeroline": False,
    }


def wide(found: Sequence[float]) -> bool:
    """True for values that span more than a factor of 20, which a linear scale would crush."""
    return min(found) > 0 and max(found) / min(found) > 20


def value_text(measure: Measure, value: float) -> str:
    """A value with its unit, as people read it."""
    if measure.unit == "ms":
        return seconds(value / 1e3)
    return f"{number(value)} {measure.unit}".strip()
