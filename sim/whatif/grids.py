"""What `plan` can search for: a path of the scenario, and the values that it tries, the hardest to serve with first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.loader import list_profiles
from hw_profiles.units import parse_bytes
from sim.scenario import Scenario
from sim.whatif.prices import Prices

PATHS = {"replicas": "hardware.replicas", "rate": "trace.rate_scale", "gpu": "hardware.profile"}
CLIENTS = ("trace.clients.clients", "trace.closed_loop.clients")
POOLS = ("disaggregation.prefill", "disaggregation.decode")
REPLICAS = 64
GIB = 2**30
CAPACITIES = (0, *(GIB * size * 2**k for k in range(4, 14) for size in (1, 1.5)))
"""0 B, then 16 GiB to 12 TiB, two to an octave."""
RATES = tuple(2 ** (k / 8) for k in range(40, -41, -1))
"""Multiples of the trace's own rate, or of its clients, 9 % apart, from 32 down to 1/32."""


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
    complete: bool = False
    """Nothing comes before the first value: the fewest replicas that there can be, or no capacity."""

    @property
    def what(self) -> str:
        """The answer in words."""
        names = {
            "trace.rate_scale": "highest rate",
            "hardware.replicas": "fewest replicas",
            "hardware.profile": "cheapest GPU",
            **dict.fromkeys(CLIENTS, "most clients"),
            **{path: f"fewest {path.rpartition('.')[2]} instances" for path in POOLS},
        }
        return names.get(self.path, f"least {self.path.removeprefix('tiers.')}")


def search_of(find: str, scenario: Scenario, among: Sequence[Any] = (), prices: Prices | None = None) -> Search:
    """The search for `find`: replicas, rate, clients, gpu, tiers.<name>.capacity, or disaggregation.prefill or .decode;
    `among` replaces the values that are tried.

    GPUs are hardware profiles, by the hour of one from the cheapest on, those of the price table if `among` has none.
    Replicas of two pools keep the ratio that the scenario has; one pool's leave the other as it is. Clients are those
    of a closed loop: more of them, as quick as they are, where a higher rate is the same ones in more of a hurry.

    Raises InputError for anything else.
    """
    path = PATHS.get(find, find)
    sizes = {f"tiers.{tier.name}.capacity": tier for tier in scenario.spec.tiers[1:]}
    pools = scenario.spec.disaggregation
    sides = POOLS if pools is not None else ()
    users = _clients(scenario)
    names = (*PATHS, *(["clients"] if users else []), *sizes, *sides)
    if users and find in ("clients", users[0]):
        heads = {_count(value) for value in among} or {max(1, round(users[1] * factor)) for factor in RATES}
        most_first = tuple(sorted(heads, reverse=True))
        return Search(find, users[0], most_first, tuple(map(str, most_first)), _nearest(most_first, users[1]))
    if path == "hardware.profile" and prices is not None:
        return _gpus(find, path, among, prices)
    if path not in ("hardware.replicas", "trace.rate_scale", *sizes, *sides):
        raise InputError("cannot be searched for", where="--find", found=find, allowed=names, near=names)
    if path in sizes:
        values = tuple(sorted({_bytes(value) for value in among} or {int(size) for size in CAPACITIES}))
        now = float(sizes[path].capacity or 0)
        shown = tuple(_size(value) for value in values)
        bytes_of = tuple(f"{value} B" for value in values)
        return Search(find, path, bytes_of, shown, _nearest(values, now), complete=values[0] == 0)
    if path == "hardware.replicas":
        least = 1 if pools is None else (pools.prefill + pools.decode) // gcd(pools.prefill, pools.decode)
        counts = _counts(among, least, _least_on(scenario))
        shown = tuple(_of_pools(scenario, value) for value in counts)
        start = _nearest(counts, scenario.spec.hardware.replicas)
        return Search(find, path, counts, shown, start, complete=not among)
    if pools is not None and path in sides:
        counts = _counts(among, 1)
        now = pools.prefill if path == POOLS[0] else pools.decode
        return Search(find, path, counts, tuple(map(str, counts)), _nearest(counts, now), complete=not among)
    rates = tuple(sorted({_rate(value) for value in among} or set(RATES), reverse=True))
    shown = tuple(f"{value:.4g}x" for value in rates)
    return Search(find, path, rates, shown, _nearest(rates, scenario.spec.trace.rate_scale))


def _clients(scenario: Scenario) -> tuple[str, int] | None:
    """Where a closed loop says how many clients it has, and how many; None for any other load."""
    trace = scenario.spec.trace
    if trace.clients is not None:
        return CLIENTS[0], trace.clients.clients
    if trace.closed_loop is not None and trace.closed_loop.clients is not None:
        return CLIENTS[1], trace.closed_loop.clients
    return None


def gpus_beside(path: str, shown: str, gpus: int | None) -> str:
    """` (56 GPUs)`, to put after a number of replicas, or of instances of a pool, that is another one; else nothing."""
    counted = path in (PATHS["replicas"], *POOLS)
    return f" ({gpus} GPUs)" if counted and gpus is not None and str(gpus) != shown.partition(" ")[0] else ""


def with_value(scenario: Scenario, path: str, value: Any) -> Scenario:
    """The scenario with a value of a search; instances of two pools change with their sum. Raises InputError."""
    pools = scenario.spec.disaggregation
    if pools is None or path not in ("hardware.replicas", *POOLS):
        return scenario.set(path, value)
    if path == "hardware.replicas":
        sizes = _shares(scenario, value)
    else:
        sizes = (value, pools.decode) if path == POOLS[0] else (pools.prefill, value)
    return scenario.set_all([*zip(POOLS, sizes, strict=True), ("hardware.replicas", sum(sizes))])


def _shares(scenario: Scenario, replicas: int) -> tuple[int, int]:
    """Prefill and decode instances among so many, in the scenario's ratio."""
    pools = scenario.spec.disaggregation
    assert pools is not None
    prefill = replicas * pools.prefill // (pools.prefill + pools.decode)
    return prefill, replicas - prefill


def _of_pools(scenario: Scenario, replicas: int) -> str:
    if scenario.spec.disaggregation is None:
        return str(replicas)
    prefill, decode = _shares(scenario, replicas)
    return f"{replicas} ({prefill} + {decode})"


def _least_on(scenario: Scenario) -> int:
    """Replicas that a fleet needs: no fewer than `fleet` says are on, or may be."""
    fleet = scenario.spec.fleet
    return 1 if fleet is None or not fleet.on else max(1, fleet.min, fleet.initial or 0, fleet.max or 0)


def _counts(among: Sequence[Any], least: int, first: int = 1) -> tuple[int, ...]:
    """Multiples of `least`, from `first` on."""
    for value in among:
        if _count(value) % least:
            allowed = f"multiples of {least}: prefill and decode instances keep their ratio"
            raise InputError("", where="--among", found=value, allowed=allowed)
    lowest = -(-first // least) * least
    return tuple(sorted(set(among) or range(lowest, max(REPLICAS, lowest) + 1, least)))


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
