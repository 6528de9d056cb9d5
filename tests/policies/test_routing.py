"""Routers: where each sends a request, by what it sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from policies.build import build_policy, policy_options
from policies.routing.approximate_prefix import ApproximatePrefix
from policies.routing.base import Router
from policies.routing.cache_aware import CacheAware
from policies.routing.kv_load_aware import KVLoadAware
from policies.routing.least_loaded import LeastLoaded
from policies.routing.power_of_two import PowerOfTwo
from policies.routing.prefix_aware import PrefixAware
from policies.routing.session_sticky import SessionSticky
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


@pytest.mark.parametrize("name", [name for name in ROUTING if name not in ("power_of_two", "approximate_prefix")])
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


def test_power_of_two_draws_by_seed_and_request_and_takes_the_less_loaded() -> None:
    replicas = [Replica(index, running=index) for index in range(5)]
    requests = [Request(index) for index in range(2000)]

    def counts(choices: int, seed: int = 0) -> list[int]:
        router = PowerOfTwo(choices=choices)
        router.seed = seed
        chosen = [router.choose(request, replicas) for request in requests]
        assert chosen == [router.choose(request, replicas) for request in requests]
        return [chosen.count(index) for index in range(5)]

    assert all(abs(count - 400) < 100 for count in counts(1))
    # The least of two of five: of 10 pairs the k-th least loaded is the less loaded one in 4 - k.
    assert all(abs(count - 200 * (4 - index)) < 100 for index, count in enumerate(counts(2)))
    assert counts(5) == [2000, 0, 0, 0, 0]
    assert counts(9) == counts(5)
    assert counts(2, seed=1) != counts(2)


def test_a_conversation_stays_until_its_replica_is_overloaded() -> None:
    replicas = [Replica(index) for index in range(3)]
    router, bounded = SessionSticky(), SessionSticky(overload=1.5)
    assert [r.choose(Request(0, session=7), replicas) for r in (router, bounded)] == [0, 0]
    replicas[0].running = 2
    assert [r.choose(Request(1, session=7), replicas) for r in (router, bounded)] == [0, 1]  # 2 is 1.5 x 3 / 3, up
    replicas[0].running = 0
    assert [r.choose(Request(2, session=7), replicas) for r in (router, bounded)] == [0, 1]
    assert [r.choose(Request(3, session=7), replicas[1:]) for r in (router, bounded)] == [1, 0]  # replica 0 is gone
    assert [r.choose(Request(4, session=-1), replicas) for r in (router, bounded)] == [0, 2]


def test_kv_load_aware_counts_tokens_and_not_requests() -> None:
    few, many = Replica(0, running=1, active_tokens=9000), Replica(1, running=8, active_tokens=4000, waiting=1)
    assert KVLoadAware().choose(Request(), [few, many]) == 1
    many.prompt_tokens = 6000
    assert KVLoadAware().choose(Request(), [few, many]) == 0
    assert KVLoadAware(asked_weight=0).choose(Request(), [few, many]) == 1


def test_approximate_prefix_remembers_what_it_sent_until_its_limit() -> None:
    replicas = [Replica(index) for index in range(2)]
    prompts = {name: Request(0, keys=[name * 10 + i for i in range(4)], input_tokens=4000) for name in range(9)}
    router = ApproximatePrefix()
    assert [router.choose(prompts[i], replicas) for i in (1, 2, 2, 1, 1)] == [0, 1, 1, 0, 0]
    replicas[0].running = 100
    assert [router.choose(prompts[i], replicas) for i in (1, 1)] == [1, 1]
    replicas[0].running = 0
    forgetful = ApproximatePrefix(limit=6000)
    assert [forgetful.choose(prompts[i], replicas) for i in (1, 2, 3, 4)] == [0, 1, 0, 1]  # smallest record first
    assert forgetful.choose(prompts[1], replicas) == 0  # its first two blocks are still there: half of it
    strict = ApproximatePrefix(limit=6000, threshold=0.6)
    assert [strict.choose(prompts[i], replicas) for i in (1, 2, 3, 4)] == [0, 1, 0, 1]
    replicas[0].running = 1
    assert strict.choose(prompts[1], replicas) == 1


@pytest.mark.parametrize("name", [name for name, cls in ROUTING.items() if "stale" in policy_options(cls)])
def test_a_router_says_how_old_its_knowledge_may_be(name: str) -> None:
    def built(**options: object) -> Router:
        router: Router = build_policy("routing", {"name": name, **options}, base_dir=Path(), path="routing")
        return router

    assert built().stale_s == 0
    assert built(stale="100 ms").stale_s == 0.1
    with pytest.raises(InputError, match=r"routing.stale: found '5 tokens'"):
        built(stale="5 tokens")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "power_of_two", "choices": 0}, "choices: found 0"),
        ({"name": "session_sticky", "overload": 0.5}, "overload: found 0.5"),
        ({"name": "kv_load_aware", "asked_weight": -1}, "asked_weight: found -1"),
        ({"name": "approximate_prefix", "limit": 1.5}, "limit: found 1.5"),
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
