"""What `plan` can search for: a path of the scenario, and the values that it tries, the hardest to serve with first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.loader import list_profiles
from hw_profiles.units import parse_bytes
from sim.scenario import Scenario
from sim.whatif.prices import Prices

PATHS = {"replicas": "hardware.replicas", "rate": "trace.rate_scale", "gpu": "hardware.profile"}
REPLICAS = 64
GIB = 2**30
CAPACITIES = (0, *(GIB * size * 2**k for k in range(4, 14) for size in (1, 1.5)))
"""0 B, then 16 GiB to 12 TiB, two to an octave."""
RATES = tuple(2 ** (k / 8) for k in range(40, -41, -1))
"""Multiples of the trace's own rate, 9 % apart, from 32 down to 1/32."""


@dataclass(frozen=True)
class Search:
    """Values of a path, from the one with which an SLO is hardest to meet; `shown` are their names."""

    find: str
    path: str
    values: tuple[Any, ...]
    shown: tuple[str, ...]
    start: int
    linear: bool = False
    """Values without an order in what they serve: tried one by one, the cheapest first."""

    @property
    def what(self) -> str:
        """The answer in words."""
        names = {
            "trace.rate_scale": "highest rate",
            "hardware.replicas": "fewest replicas",
            "hardware.profile": "cheapest GPU",
        }
        return names.get(self.path, f"least {self.path.removeprefix('tiers.')}")


def search_of(find: str, scenario: Scenario, among: Sequence[Any] = (), prices: Prices | None = None) -> Search:
    """The search for `find`: replicas, rate, gpu, or tiers.<name>.capacity; `among` replaces the values that are tried.

    GPUs are hardware profiles, by the hour of one from the cheapest on, those of the price table if `among` has none.

    Raises InputError for anything else.
    """
    path = PATHS.get(find, find)
    sizes = {f"tiers.{tier.name}.capacity": tier for tier in scenario.spec.tiers[1:]}
    names = (*PATHS, *sizes)
    if path == "hardware.profile" and prices is not None:
        return _gpus(find, path, among, prices)
    if path not in ("hardware.replicas", "trace.rate_scale", *sizes):
        raise InputError("cannot be searched for", where="--find", found=find, allowed=names, near=names)
    if path in sizes:
        values = tuple(sorted({_bytes(value) for value in among} or {int(size) for size in CAPACITIES}))
        now = float(sizes[path].capacity or 0)
        shown = tuple(_size(value) for value in values)
        return Search(find, path, tuple(f"{value} B" for value in values), shown, _nearest(values, now))
    if path == "hardware.replicas":
        counts = tuple(sorted({_count(value) for value in among} or set(range(1, REPLICAS + 1))))
        shown = tuple(str(value) for value in counts)
        return Search(find, path, counts, shown, _nearest(counts, scenario.spec.hardware.replicas))
    rates = tuple(sorted({_rate(value) for value in among} or set(RATES), reverse=True))
    shown = tuple(f"{value:.4g}x" for value in rates)
    return Search(find, path, rates, shown, _nearest(rates, scenario.spec.trace.rate_scale))


def _gpus(find: str, path: str, among: Sequence[Any], prices: Prices) -> Search:
    for name in among:
        if name not in prices.gpu and name not in list_profiles():
            known = {*list_profiles(), *prices.gpu}
            raise InputError("unknown profile", where="--among", found=name, allowed=sorted(known), near=known)
        if name not in prices.gpu:
            raise InputError(
                "no price for this GPU", where="--among", found=name, allowed=[*prices.gpu], near=prices.gpu
            )
    names = tuple(sorted(dict.fromkeys(among) if among else prices.gpu, key=lambda name: prices.gpu[name]))
    if not names:
        raise InputError("the price table has no GPU", where="--prices", path="gpu", allowed="{h100-sxm: 2.5}")
    return Search(find, path, names, names, 0, linear=True)


def _nearest(values: Sequence[float], now: float) -> int:
    return min(range(len(values)), key=lambda index: abs(values[index] - now))


def _size(value: int) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{value / 1024**power:g} {unit}"
    return f"{value} B"


def _bytes(value: Any) -> int:
    try:
        return parse_bytes(value)
    except InputError as error:
        raise error.at(where="--among") from None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError("", where="--among", found=value, allowed="whole numbers >= 1, such as 1,2,4,8")
    return value


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InputError("", where="--among", found=value, allowed="multiples of the trace's rate, such as 0.5,1,2")
    return float(value)
