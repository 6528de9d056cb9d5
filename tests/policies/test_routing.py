"""Routers: where each sends a request, by what it sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.routing.base import Router
from policies.routing.cache_aware import CacheAware
from policies.routing.least_loaded import LeastLoaded
from policies.routing.prefix_aware import PrefixAware
from policies.tables import ROUTING


@dataclass
class Replica:
    """A replica (policies.routing.base.ReplicaView); `cached` are tokens in HBM and behind it."""

    index: int = 0
    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    active_tokens: int = 0
    cached: tuple[int, int] = (0, 0)

    def cached_tokens(self, keys: Sequence[int], level: int | None = None) -> int:
        return self.cached[0] if level == 0 else sum(self.cached)


@dataclass
class Request:
    index: int = 0
    keys: Sequence[int] = (1, 2)
    input_tokens: int = 1000
    turn: int = -1
    session: int = -1
    think_s: float | None = None


@pytest.mark.parametrize("name", ROUTING)
def test_idle_replicas_take_turns(name: str) -> None:
    router = ROUTING[name]()
    replicas = [Replica(index) for index in range(3)]
    assert [router.choose(Request(index), replicas) for index in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(("weight", "chosen"), [(4.0, 1), (1.0, 0), (0.0, 0)])
def test_a_waiting_request_counts_as_several_running(weight: float, chosen: int) -> None:
    replicas = [Replica(0, running=5, waiting=2), Replica(1, running=8, waiting=1)]
    assert LeastLoaded(waiting_weight=weight).choose(Request(), replicas) == chosen


def test_prefix_aware_weighs_prompts_against_memory_in_use() -> None:
    cold, warm = Replica(0, active_tokens=400), Replica(1, active_tokens=1000, cached=(500, 200))
    assert PrefixAware().choose(Request(), [cold, warm]) == 1  # 1,400 against 300 + 1,000
    assert PrefixAware(hbm_only=True).choose(Request(), [cold, warm]) == 0  # 1,400 against 1,500
    assert PrefixAware(prefill_weight=0).choose(Request(), [cold, warm]) == 0
    warm.prompt_tokens = 200
    assert PrefixAware().choose(Request(), [cold, warm]) == 0  # 1,400 against 1,500


def test_cache_aware_follows_the_cache_until_loads_differ_too_much() -> None:
    cold, warm = Replica(0, running=10), Replica(1, running=60, cached=(301, 0))
    assert CacheAware().choose(Request(), [cold, warm]) == 1
    assert CacheAware(threshold=0.4).choose(Request(), [cold, warm]) == 0
    assert CacheAware(balance_abs=49).choose(Request(), [cold, warm]) == 0
    assert CacheAware(balance_abs=49, balance_rel=6).choose(Request(), [cold, warm]) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "prefix_awar"}, "unknown routing policy.*did you mean 'prefix_aware'"),
        ({"name": "prefix_aware", "weight": 2}, "no such option.*did you mean 'prefill_weight'"),
        ({"name": "prefix_aware", "prefill_weight": -1}, "prefill_weight: found -1"),
        ({"name": "prefix_aware", "hbm_only": 3}, "hbm_only is 3"),
        ({"name": "cache_aware", "threshold": 2}, "threshold: found 2"),
    ],
)
def test_wrong_options_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_policy("routing", spec, base_dir=Path(), path="routing")


def test_all_are_routers() -> None:
    assert all(issubclass(router, Router) for router in ROUTING.values())
