"""`explain.json` of a run directory: read, checked, and told as changes from the run as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from reports.text import NBSP, is_number, metric_value, percent

SCHEMA = "kvsim-explain/1"
SMALL = 0.005
"""Relative changes below this are none: a run is a sample of its load."""


@dataclass(frozen=True)
class Change:
    """What one rerun did to one metric. `value` is None where it could not be run, and `problem` says why.

    interval: of the ratio, 90 %; None where none is known.
    """

    resource: str
    now: str
    to: str
    factor: float
    value: float | None
    ratio: float | None
    problem: str = ""
    interval: tuple[float, float] | None = None

    @property
    def unsure(self) -> bool:
        """Whether it cannot be told from no change."""
        return self.interval is not None and self.interval[0] <= 1 <= self.interval[1] and self.ratio != 1


def checked(study: Any, where: Path, config_sha256: Any) -> Mapping[str, Any]:
    """`study` if it is what `kvsim run --explain` wrote for this run; else InputError, one line."""
    if not isinstance(study, dict) or study.get("schema") != SCHEMA:
        found = study.get("schema") if isinstance(study, dict) else type(study).__name__
        raise InputError("", where=where, path="schema", found=found, allowed=SCHEMA)
    if study.get("config_sha256") != config_sha256:
        raise InputError("of another run than the summary beside it: remove it", where=where, path="config_sha256")
    _rows(study, "metrics", ("key", "label", "unit", "value"), where)
    _rows(study, "resources", ("key", "label", "value", "runs"), where)
    for resource in study["resources"]:
        _rows(resource, "runs", ("factor",), where)
        if not all(is_number(run["factor"]) for run in resource["runs"]):
            raise InputError("expected numbers", where=where, path="resources.runs.factor")
    if not all(is_number(study.get(key)) for key in ("requests", "of")):
        raise InputError("expected numbers", where=where, path="requests")
    return study


def _rows(node: Mapping[str, Any], key: str, needed: Sequence[str], where: Path) -> None:
    rows = node.get(key)
    if not isinstance(rows, list) or not rows or any(not isinstance(r, dict) or not {*needed} <= {*r} for r in rows):
        raise InputError(f"expected a list of mappings with {', '.join(needed)}", where=where, path=key)


def changes(study: Mapping[str, Any], metric: Mapping[str, Any]) -> list[list[Change]]:
    """The reruns of each resource as they moved `metric`, the resource that moves it most first."""
    base = metric["value"]
    rows = []
    for resource in study["resources"]:
        row = []
        for run in resource["runs"]:
            measured = run.get("metrics")
            value = measured.get(metric["key"]) if isinstance(measured, Mapping) else None
            known = value if is_number(value) else None
            ratio = known / base if known is not None and is_number(base) and base > 0 else None
            row.append(
                Change(
                    str(resource["label"]),
                    str(resource["value"]),
                    str(run.get("value", "")),
                    float(run["factor"]),
                    known,
                    ratio,
                    str(run.get("problem") or ""),
                    _interval(run, str(metric["key"]), base),
                )
            )
        rows.append(row)
    return sorted(rows, key=lambda row: -max((swing(change) for change in row), default=0.0))


def _interval(run: Mapping[str, Any], key: str, base: Any) -> tuple[float, float] | None:
    """The interval of the ratio that a rerun's interval of the difference gives."""
    intervals = run.get("intervals")
    ends = intervals.get(key) if isinstance(intervals, Mapping) else None
    if not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)) and is_number(base) and base > 0):
        return None
    return max(0.0, 1 + ends[0] / base), max(0.0, 1 + ends[1] / base)


def swing(change: Change) -> float:
    """How far a rerun is from the run as it is: 0 for none, 1 for twice or half of it; endless where it fell to 0."""
    if change.ratio is None:
        return 0.0
    return max(change.ratio, 1 / change.ratio) - 1 if change.ratio > 0 else float("inf")


def best(study: Mapping[str, Any], metric: Mapping[str, Any]) -> Change | None:
    """The rerun that improves `metric` most; None where none does by more than SMALL, and surely."""
    lower = metric.get("better") == "lower"
    found = [c for row in changes(study, metric) for c in row if c.ratio is not None and not c.unsure]
    if not found:
        return None
    top = min(found, key=lambda c: c.ratio or 0.0) if lower else max(found, key=lambda c: c.ratio or 0.0)
    better = (top.ratio or 0.0) < 1 - SMALL if lower else (top.ratio or 0.0) > 1 + SMALL
    return top if better else None


def change_text(ratio: float | None) -> str:
    """`+12 %`, `−40 %`, `× 3.1`, `as it is`."""
    if ratio is None:
        return "–"
    if abs(ratio - 1) < SMALL:
        return "as it is"
    if ratio >= 2:
        return f"×{NBSP}{ratio:.2g}" if ratio < 100 else f"×{NBSP}{ratio:,.0f}"
    return f"{'+' if ratio > 1 else '−'}{percent(abs(ratio - 1))}"


def told(change: Change) -> str:
    """`change_text`, with a ~ before what cannot be told from no change."""
    text = change_text(change.ratio)
    return f"~{NBSP}{text}" if change.unsure and text != change_text(1.0) else text


def said(change: Change) -> str:
    """`2 x compute rate`, `HBM for KV 107 GiB instead of 53.5 GiB`."""
    if change.now == "as profiled":
        return f"{change.factor:g} times the {change.resource}"
    return f"{change.resource} of {change.to} instead of {change.now}"


def sentence(study: Mapping[str, Any], key: str) -> str:
    """What of the tried would improve a metric most; empty for a metric that the study has not."""
    metric = next((m for m in study["metrics"] if m["key"] == key), None)
    if metric is None or not is_number(metric["value"]):
        return ""
    top = best(study, metric)
    if top is None:
        sure = " beyond chance" if any(c.unsure for row in changes(study, metric) for c in row) else ""
        return f"Nothing that was tried improves {metric['label']} by more than {percent(SMALL)}{sure}."
    before, after = (" ".join(metric_value(v, metric["unit"])).strip() for v in (metric["value"], top.value))
    some = f" (of the first {study['requests']:,} requests)" if study["requests"] < study["of"] else ""
    return f"{_capital(said(top))} would take {metric['label']}{some} from {before} to {after}{_between(top, metric)}."


def _between(top: Change, metric: Mapping[str, Any]) -> str:
    """The interval of what it would be."""
    if top.interval is None:
        return ""
    ends = [" ".join(metric_value(end * metric["value"], metric["unit"])).strip() for end in top.interval]
    return f" (90 %: {ends[0]} to {ends[1]})"


def first_line(study: Mapping[str, Any]) -> str:
    """The line for the console."""
    keys: Sequence[str] = [str(metric["key"]) for metric in study["metrics"]]
    return "explain: " + (sentence(study, keys[0]) or "nothing finished, so nothing moved")


def scope(study: Mapping[str, Any]) -> str:
    """What the reruns were."""
    text = (
        "Each resource was halved and doubled, one at a time; seed, requests and everything else as in this run. "
        "~ marks what these requests cannot tell from no change (it lies within the 90 % interval)."
    )
    if not any(
        run.get("intervals") and any(run["intervals"].values()) for r in study["resources"] for run in r["runs"]
    ):
        text = text.partition(" ~")[0] + " No intervals are known: small changes may be chance."
    if study["requests"] < study["of"]:
        text += (
            f" These runs take the first {study['requests']:,} of {study['of']:,} requests, the one that they are "
            "compared with too: capacity that only fills later looks less important than it is "
            "(--explain-requests takes more)."
        )
    return text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
