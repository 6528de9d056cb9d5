"""What memory is worth: the price below which more of a tier costs less than the hardware that it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hw_profiles.units import parse_bytes
from sim.whatif.plan import Plan
from sim.whatif.prices import Prices
from sim.whatif.variants import short_paths, value_label


@dataclass(frozen=True)
class Worth:
    """A step up in the capacity of `tier`, from one variant to the next, both with an answer and all else the same.

    less, more     capacities as they were given; beside: the settings that both have
    saves          per hour: the rest of the cost (GPUs, hosts, other tiers) with `less`, less that with `more`
    gib            more GiB of the tier over all nodes
    pays_below     saves / gib, per GiB and hour; 0 where nothing is saved, None where there is no more to buy
    price          of the price table, None without
    """

    tier: str
    less: str
    more: str
    beside: str
    saves: float
    gib: float
    pays_below: float | None
    price: float | None
    currency: str

    @property
    def text(self) -> str:
        """The step in a sentence."""
        beside = f" ({self.beside})" if self.beside else ""
        step = f"{self.tier}, {self.more} instead of {self.less}{beside}"
        if self.pays_below is None:
            return f"{step}: no more of it is bought, since fewer nodes do"
        if self.pays_below == 0:
            return f"{step}: saves no other hardware, so it does not pay at any price"
        table = "no price in the table" if self.price is None else f"the table has {self.price:.3g}"
        return (
            f"{step}: {self.gib:,.0f} GiB more save {self.saves:.4g} {self.currency}/h of other hardware, "
            f"so they pay below {self.pays_below:.3g} {self.currency} per GiB-hour ({table})"
        )


def worth(plans: Sequence[Plan], settings: Sequence[Mapping[str, Any]], prices: Prices) -> list[Worth]:
    """The steps in the capacities that `settings` (of each plan) vary, where hardware was searched for."""
    if not plans or plans[0].path == "trace.rate_scale":
        return []
    varied = [path for path in settings[0] if path.startswith("tiers.") and path.endswith(".capacity")]
    return [one for path in varied for one in _steps(path, plans, settings, prices)]


def _steps(path: str, plans: Sequence[Plan], settings: Sequence[Mapping[str, Any]], prices: Prices) -> list[Worth]:
    groups: dict[str, list[tuple[int, Plan, str]]] = {}
    for plan, given in zip(plans, settings, strict=True):
        names = short_paths(list(given))
        beside = ", ".join(f"{names[key]}={value_label(value)}" for key, value in given.items() if key != path)
        groups.setdefault(beside, []).append((parse_bytes(given[path]), plan, value_label(given[path])))
    found = []
    for beside, group in groups.items():
        group.sort(key=lambda one: one[0])
        for (_, small, less), (_, large, more) in pairwise(group):
            step = _step(path.split(".")[1], small, large, prices)
            if step is not None:
                found.append(Worth(path.split(".")[1], less, more, beside, *step, prices.currency))
    return found


def _step(
    tier: str, small: Plan, large: Plan, prices: Prices
) -> tuple[float, float, float | None, float | None] | None:
    """saves, gib, pays_below, price; None where one of both has no answer with a cost."""
    bills = [None if plan.answer is None else plan.answer.cost for plan in (small, large)]
    if bills[0] is None or bills[1] is None:
        return None
    price = prices.tiers.get(tier)
    sizes = [bill.gib.get(tier, 0.0) for bill in bills if bill is not None]
    rest = [bill.total - size * (price or 0.0) for bill, size in zip(bills, sizes, strict=True) if bill is not None]
    saves, gib = rest[0] - rest[1], sizes[1] - sizes[0]
    if abs(saves) < 1e-9 * max(rest):
        saves = 0.0
    return saves, gib, None if gib <= 0 else max(0.0, saves / gib), price
