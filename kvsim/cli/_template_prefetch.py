"""The files of a new prefetch policy."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""A prefetch policy for kvsim; as it stands, a prompt comes when its request does."""

from collections.abc import Iterable

from kvsim import CacheView, Fetch, PrefetchPolicy, RequestView, Trigger


class $cls(PrefetchPolicy):
    """Brings what is cached of a request's prompt into HBM while the request waits."""

    # Events that `plan` is called for:
    #     Trigger.ARRIVED     the request has come to the queue of its replica
    #     Trigger.FINISHED    it has its last token, and has released what it held
    #     Trigger.ADMITTED    it has left the queue, of which cache.waiting has the rest
    listens = (Trigger.ARRIVED,)

    # If the request's turn comes before its blocks are there: "best_effort" goes on
    # with what is there, "wait_complete" waits, "timeout" waits for `timeout_s`.
    stop = "best_effort"

    # Keyword arguments of a constructor are options of the scenario:
    #     def __init__(self, *, most: int = 8) -> None:
    # is set by `policies: {prefetch: {name: "$name.py:$cls", most: 16}}`;
    # raise ValueError for a value that makes no sense.

    def plan(
        self, trigger: Trigger, request: RequestView, cache: CacheView
    ) -> Iterable[Fetch]:
        """Fetches to start, now or later (Fetch.after_s)."""
        # A request has keys (its prompt's blocks), input_tokens, session, turn and
        # think_s (time to the next turn, if known). The cache has now, tiers (HBM
        # first), block_bytes, capacity(tier), free(tier) and holds(key, tier).
        return [Fetch(request.keys, cache.tiers[0])] if request.keys else []
'''

TEST = with_contract(
    '''\
class Request:
    """The first request, with a prompt of two blocks."""

    index, keys, input_tokens, turn, session, think_s = 0, (1, 2), 1024, -1, -1, None


class Cache:
    """HBM over "dram", which has both blocks."""

    now, tiers, block_bytes = 0.0, ("hbm", "dram"), 512

    def capacity(self, tier: str) -> int:
        return 1 << 30

    def free(self, tier: str) -> int:
        return 1 << 30

    def holds(self, key: int, tier: str) -> bool:
        return tier == "dram"


def test_it_fetches_the_prompt() -> None:
    plan = $cls().plan(kvsim.Trigger.ARRIVED, Request(), Cache())
    assert list(plan) == [kvsim.Fetch((1, 2), "hbm")]


def test_a_scenario_runs_with_it() -> None:
    assert run("$name.py:$cls")["requests"]["finished"] == 200


def test_it_is_on_arrival_so_far() -> None:
    """Say here what your policy is to do better than fetching on arrival."""
    mine = run("$name.py:$cls")
    arrival = run({"name": "on_arrival", "into": "hbm"})
    assert mine["ttft_ms"] == arrival["ttft_ms"]
    assert mine["tiers"] == arrival["tiers"]
'''
)

PREFETCH = Template(POLICY, TEST)
