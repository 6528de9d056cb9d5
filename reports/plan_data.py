"""A plan as its report needs it, read from `plan.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.documents import as_written, read_document
from reports.text import is_number, slo_label
from sim.whatif.plan_document import FILE, SCHEMA

ATTAINMENT = "attainment"


@dataclass(frozen=True)
class Bill:
    """What hardware costs by the hour, its parts, and by 10^6 output tokens; without tiers that are `unpriced`."""

    currency: str
    parts: Mapping[str, float]
    total: float
    per_mtok: float | None
    watts: float | None
    j_per_token: float | None
    unpriced: tuple[str, ...]


@dataclass(frozen=True)
class Tried:
    """One run of a search. values and limits by target, in seconds (of attainment, shares); None: it has no value.

    lost: the target that it lost early, "rejected" if rejected requests decided. why: what ended it, or kept it from
    running.
    """

    index: int
    shown: str
    met: bool
    values: Mapping[str, float | None]
    limits: Mapping[str, float]
    hit: Mapping[str, bool]
    requests_per_s: float | None
    bill: Bill | None
    lost: str | None
    why: str | None
    failed: bool
    rejected: str | None
    gpus: int | None

    @property
    def whole(self) -> bool:
        """True if it ran to its end."""
        return self.lost is None and not self.failed

    def of_limit(self, key: str) -> float | None:
        """Value / limit of a target (of attainment: requests beyond a limit / those that may be)."""
        value, limit = self.values.get(key), self.limits.get(key)
        if value is None or limit is None:
            return None
        if key == ATTAINMENT:
            return (1 - value) / (1 - limit) if limit < 1 else (0.0 if value >= 1 else None)
        return value / limit

    @property
    def tightest(self) -> tuple[str, float] | None:
        """The target that is nearest to its limit, or furthest beyond it, and value / limit."""
        found = [(key, ratio) for key in self.limits if (ratio := self.of_limit(key)) is not None]
        return max(found, key=lambda pair: (not self.hit[pair[0]], pair[1]), default=None)


@dataclass(frozen=True)
class Seeds:
    """One value with several seeds: verdicts and values (s) seed by seed, and intervals of their means."""

    shown: str
    seeds: tuple[int, ...]
    met: tuple[bool, ...]
    values: Mapping[str, tuple[float | None, ...]]
    intervals: Mapping[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Searched:
    """The search of one variant; `variant`: its settings by name."""

    label: str
    variant: str
    what: str
    path: str
    answer: Tried | None
    tried: tuple[Tried, ...]
    notes: tuple[str, ...]
    seeds: tuple[Seeds, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def targets(self) -> dict[str, float]:
        """Limits by target, in seconds (attainment as a share)."""
        return {key: limit for one in self.tried for key, limit in one.limits.items()}

    @property
    def nearest(self) -> Tried | None:
        """The run that came nearest to the SLO, of those that ended."""
        ended = [one for one in self.tried if one.whole and one.tightest is not None]
        return min(ended, key=lambda one: (one.tightest or ("", 0.0))[1], default=None)

    def beside(self, step: int) -> Tried | None:
        """What was run next below (-1) or above (1) the answer."""
        if self.answer is None:
            return None
        ran = [one for one in self.tried if not one.failed]
        at = next(place for place, one in enumerate(ran) if one.index == (self.answer.index)) + step
        return ran[at] if 0 <= at < len(ran) else None


@dataclass(frozen=True)
class PlanData:
    """What `kvsim plan` found, for one variant or several."""

    find: str
    facts: tuple[tuple[str, str], ...]
    searches: tuple[Searched, ...]
    best: Searched | None
    price_sources: tuple[str, ...]
    worth: tuple[Mapping[str, Any], ...]
    """Steps in the capacity of a tier, as `sim.whatif.worth.Worth` has them."""


def load_plan(folder: Path) -> PlanData:
    """Read `folder`/plan.json. Raises InputError, one line, for what is missing, corrupt or of another version."""
    path = folder / FILE
    document = read_document(path, SCHEMA)
    with as_written(path):
        return _data(document)


def target_label(key: str) -> str:
    """`ttft_p99` -> `TTFT p99`; attainment as it is."""
    return ATTAINMENT if key == ATTAINMENT else slo_label(key)


def _data(document: Mapping[str, Any]) -> PlanData:
    asked, searches = document["asked"], tuple(_searched(plan) for plan in document["plans"])
    if not searches:
        raise ValueError("no plans")
    facts = (
        ("scenario", str(asked["scenario"])),
        ("trace", str(asked["trace"])),
        ("model", str(asked["model"])),
        ("hardware", str(asked["profile"])),
        ("seed", str(asked["seed"])),
        ("runs", str(sum(len(one.tried) for one in searches))),
        ("kvsim", str(document["version"])),
    )
    best = next((one for one in searches if one.label == document["cheapest"]), None)
    prices = tuple(map(str, document["price_sources"]))
    return PlanData(str(asked["find"]), facts, searches, best, prices, tuple(map(_step, document["worth"])))


def _searched(plan: Mapping[str, Any]) -> Searched:
    answer = plan["answer"]
    tried = tuple(_tried(point) for point in plan["points"])
    found = None if answer is None else next(one for one in tried if one.index == answer["index"])
    texts: dict[str, Sequence[str]] = {key: tuple(map(str, plan[key])) for key in ("notes", "assumptions", "warnings")}
    return Searched(
        label=str(plan["label"]),
        variant=str(plan["variant"]),
        what=str(plan["what"]),
        path=str(plan["path"]),
        answer=found,
        tried=tried,
        notes=tuple(texts["notes"]),
        seeds=tuple(_seeds(one) for one in plan["seeds"]),
        assumptions=tuple(texts["assumptions"]),
        warnings=tuple(texts["warnings"]),
    )


def _tried(point: Mapping[str, Any]) -> Tried:
    targets = point["targets"]
    values = {str(key): _seconds(target["value_ms"]) for key, target in targets.items()}
    limits = {str(key): float(target["target_ms"]) / 1e3 for key, target in targets.items()}
    hit = {str(key): bool(target["met"]) for key, target in targets.items()}
    share = point["attainment"]
    if share is not None:
        values[ATTAINMENT], limits[ATTAINMENT] = float(share["value"]), float(share["target"])
        hit[ATTAINMENT] = bool(share["met"])
    texts = {key: None if point[key] is None else str(point[key]) for key in ("lost", "stopped", "rejected", "failed")}
    return Tried(
        index=int(point["index"]),
        shown=str(point["shown"]),
        met=bool(point["met"]),
        values=values,
        limits=limits,
        hit=hit,
        requests_per_s=_number(point["requests_per_s"]),
        bill=None if point["cost"] is None else _bill(point["cost"]),
        lost=texts["lost"],
        why=texts["stopped"] or texts["failed"],
        failed=texts["failed"] is not None,
        rejected=texts["rejected"],
        gpus=None if point["gpus"] is None else int(point["gpus"]),
    )


def _step(step: Mapping[str, Any]) -> Mapping[str, Any]:
    texts = {key: str(step[key]) for key in ("tier", "less", "more", "beside", "currency")}
    return {**texts, **{key: _number(step[key]) for key in ("saves", "gib", "pays_below", "price")}}


def _bill(cost: Mapping[str, Any]) -> Bill:
    names = (("GPUs", "gpu"), ("hosts", "host"), ("memory", "memory"), ("energy", "energy"))
    return Bill(
        str(cost["currency"]),
        {name: float(cost[key]) for name, key in names},
        float(cost["total"]),
        _number(cost["per_mtok"]),
        _number(cost["watts"]),
        _number(cost["j_per_token"]),
        tuple(map(str, cost["unpriced"])),
    )


def _seeds(check: Mapping[str, Any]) -> Seeds:
    return Seeds(
        str(check["shown"]),
        tuple(int(seed) for seed in check["seeds"]),
        tuple(bool(met) for met in check["met"]),
        {str(key): tuple(_seconds(value) for value in found) for key, found in check["values"].items()},
        {
            str(key): None if ends is None else (float(ends[0]) / 1e3, float(ends[1]) / 1e3)
            for key, ends in check["intervals"].items()
        },
    )


def _seconds(value: Any) -> float | None:
    found = _number(value)
    return None if found is None else found / 1e3


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value):
        raise TypeError(f"{value!r} is no number")
    return float(value)
