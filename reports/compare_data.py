"""A comparison as its report needs it: `compare.json`, and the run directory of each variant that it names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from policies.tables import EVICTION_BOUNDS
from reports.documents import as_written, read_document
from reports.figures.base import CYCLE, DASHES
from reports.load import RunData, Table, load_run, section
from sim.whatif.compare import Comparison, Difference, Row

FILE = "compare.json"
SCHEMA = "kvsim-compare/1"


@dataclass(frozen=True)
class Variant:
    """One of what is compared: its first run, and how many runs (seeds) its metrics are the mean of.

    since_s  requests sent after this time are compared, s; None: all
    name     its label, with "(bound)" for a policy that knows the future: nobody can deploy it
    """

    name: str
    run: RunData
    seeds: int
    bound: bool
    place: int
    since_s: float | None = None

    @property
    def judged(self) -> Table:
        """The finished requests that are compared: all, or those sent after `since_s`."""
        found = self.run.finished
        return found if self.since_s is None else found.where(found["arrival_s"] > self.since_s)

    @property
    def line(self) -> dict[str, Any]:
        """How its lines are drawn, the same in every figure."""
        dash = DASHES[(self.place // len(CYCLE)) % len(DASHES)] if not self.bound else "dot"
        return {"color": CYCLE[self.place % len(CYCLE)], "width": 2, "dash": dash}


@dataclass(frozen=True)
class Compared:
    """The comparison of metrics, and the runs behind it in the same order."""

    found: Comparison
    variants: tuple[Variant, ...]

    @property
    def named(self) -> Comparison:
        """The comparison with bounds called so."""
        return replace(self.found, labels=tuple(one.name for one in self.variants))


def load_comparison(folder: Path) -> Compared:
    """Read `folder`/compare.json and its runs. InputError, one line, for what is missing, corrupt or of another run."""
    path = folder / FILE
    document = read_document(path, SCHEMA)
    with as_written(path):
        entries = [dict(entry) for entry in document["variants"]]
        places = [None if entry["run"] is None else folder / str(entry["run"]) for entry in entries]
        seeds = [int(entry["seeds"]) for entry in entries]
        digests = [str(entry["config_sha256"]) for entry in entries]
    runs = []
    for place, digest in zip(places, digests, strict=True):
        if place is None:
            raise InputError("names no run directories: compare again with --out", where=path, path="variants.run")
        run = load_run(place)
        if run.summary.get("config_sha256") != digest:
            text = "is of another configuration than the comparison: compare again"
            raise InputError(text, where=place / "summary.json", path="config_sha256")
        runs.append(run)
    with as_written(path):
        found = _comparison(document, [run.summary for run in runs])
        if len(found.labels) < 2:
            raise ValueError("fewer than two variants")
        names = [
            f"{label} (bound)" if knows_the_future(r) else label for label, r in zip(found.labels, runs, strict=True)
        ]
    variants = [
        Variant(name, run, many, knows_the_future(run), place, found.since_s)
        for place, (name, run, many) in enumerate(zip(names, runs, seeds, strict=True))
    ]
    return Compared(found, tuple(variants))


def _comparison(document: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> Comparison:
    labels = tuple(str(entry["label"]) for entry in document["variants"])
    rows = []
    for metric in document["metrics"]:
        about = {key: str(metric[key]) for key in ("key", "label", "unit", "better", "definition")}
        values = tuple(_number(metric["values"][label]) for label in labels)
        found = (metric["differences"][label] for label in labels[1:])
        rows.append(Row(about, values, tuple(None if one is None else _difference(one) for one in found)))
    methods = tuple(str(document["methods"][label]) for label in labels[1:])
    return Comparison(labels, tuple(rows), methods, tuple(summaries), _number(document.get("since_s")))


def _difference(found: Mapping[str, Any]) -> Difference:
    low, high = _number(found["low"]), _number(found["high"])
    return Difference(float(found["value"]), low, high, str(found["verdict"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


WHOLE = " Of whole runs, the part before the snapshot included."


def of_whole_runs(variants: Sequence[Variant]) -> str:
    """What to say beside numbers of whole runs, where others are of a part: empty where all are of whole runs."""
    return WHOLE if any(one.since_s is not None for one in variants) else ""


def knows_the_future(run: RunData) -> bool:
    """True if an eviction policy of the run is a bound."""
    tiers = run.scenario.get("tiers")
    places = [section(run.scenario, "policies"), *(tiers if isinstance(tiers, list) else [])]
    named = [place.get("eviction") for place in places if isinstance(place, Mapping)]
    return any((one.get("name") if isinstance(one, Mapping) else one) in EVICTION_BOUNDS for one in named)


def changed(variants: Sequence[Variant]) -> list[tuple[str, list[str]]]:
    """What differs between the resolved scenarios: (dotted path, its value in each variant, "" where it is absent)."""
    flat = [dict(_flat(variant.run.scenario)) for variant in variants]
    paths = dict.fromkeys(path for one in flat for path in one)
    rows = [(path, [str(one.get(path, "")) for one in flat]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted paths and values; items of a list by their name, or their number."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and node and all(isinstance(item, Mapping) for item in node):
        for place, item in enumerate(node):
            yield from _flat(item, f"{path}.{item.get('name', place)}")
    else:
        yield path, str(node).lower() if node is None or isinstance(node, bool) else str(node)
