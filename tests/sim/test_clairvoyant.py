"""Belady inside the engine: what it knows, what that is worth, how it is labelled, and where it is refused."""

import math

import numpy as np
import pytest

from hw_profiles.errors import InputError
from policies.tables import EVICTION
from sim.cluster import Cluster
from sim.hierarchy.future import Future
from sim.inputs import load_inputs
from traces.request import Trace

TURNS = {"clients": {"clients": 2, "rounds": 3, "input_tokens": 600, "output_tokens": 20, "think_time": "1 s"}}


@pytest.fixture
def future(write_trace):
    """A future of requests that each name some keys."""

    def build(*keys):
        ids = [key for request in keys for key in request]
        return Future(
            Trace(
                name="t",
                block_tokens=512,
                arrival_s=np.arange(len(keys), dtype=float),
                input_tokens=np.array([512 * len(k) for k in keys]),
                output_tokens=np.ones(len(keys), int),
                hash_ids=np.array(ids, int),
                hash_offsets=np.cumsum([0, *(len(k) for k in keys)]),
                content_sha256="",
                source="t",
            )
        )

    return build


def test_next_use_is_the_first_request_to_come(future):
    known = future([5, 6], [7], [5], [5, 7])
    next_use = known.of(lambda _: True)
    assert [next_use(key) for key in (5, 6, 7, 8)] == [0, 0, 1, math.inf]
    known.admitted(0)
    assert [next_use(key) for key in (5, 6, 7)] == [2, math.inf, 1]
    known.admitted(3)  # out of order of arrival
    assert [next_use(key) for key in (5, 7)] == [2, 1]
    known.admitted(2)
    known.admitted(1)
    assert [next_use(key) for key in (5, 7)] == [math.inf, math.inf]


def test_only_requests_that_look_into_the_tier_count(future):
    known = future([5], [5], [5, 6], [6])
    odd = known.of(lambda index: index % 2 == 1)
    assert [odd(key) for key in (5, 6)] == [1, 3]
    known.admitted(1)
    assert [odd(key) for key in (5, 6)] == [math.inf, 3]
    assert known.of(lambda _: False)(5) == math.inf


def cycle(prompt, families, rounds, spacing=20):
    return [(spacing * i, 1024, 1, prompt(i % families, 1024)) for i in range(families * rounds)]


def test_it_keeps_what_a_cycle_comes_back_to(run, prompt):
    """Five prompts in turn, room for three and the one in work: LRU finds nothing, MIN all but one or two of each five.

    No request overlaps another one, so the order of use is that of arrival and farthest next use is optimal.
    """
    rows = cycle(prompt, 5, 8)
    hits = {
        name: run(rows, blocks=200, policies={"eviction": name}).summary["prefix"]["hit_ratio"] for name in EVICTION
    }
    best = run(rows, blocks=200, policies={"eviction": "belady"}).summary["prefix"]["hit_ratio"]
    assert hits["lru"] == hits["fifo"] == 0
    assert best > 0.35
    assert best >= max(hits.values())


@pytest.mark.parametrize("tier", ["hbm", "dram"])
def test_it_works_tier_by_tier(run, prompt, tier):
    rows = cycle(prompt, 7, 6)
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "500 MiB"}]
    plain = run(rows, blocks=200, tiers=tiers)
    tiers[tier == "dram"]["eviction"] = "belady"
    bound = run(rows, blocks=200, tiers=tiers)
    tokens = [r.summary["prefix"]["hit_tokens"][tier] for r in (plain, bound)]
    assert tokens[1] > tokens[0]
    said = f"tiers.{tier}.eviction: belady is a bound (clairvoyant, arrival order)"
    assert bound.summary["warnings"][0].startswith(said)
    assert not plain.summary["warnings"]


def test_a_replica_knows_its_own_future_alone(run, prompt):
    """What comes back only at the other replica is worth nothing in a private tier."""
    a, b, c = (prompt(f, 1024) for f in (1, 2, 3))
    first = [a, b]  # at replicas 0 and 1
    then = [c, a, b, a, c, a, b, a]  # replica 0 serves c and b in turn, replica 1 always a
    rows = [(20 * i, 1024, 1, ids) for i, ids in enumerate([*first, *then])]
    hardware = {"profile": "h100-sxm", "replicas": 2}
    requests = run(rows, blocks=136, hardware=hardware, policies={"eviction": "belady"}).frames["requests"]
    # Room for two prompts: replica 0 drops a, which only replica 1 will see again, and then hits c and b.
    at_0 = requests[requests.replica == 0]
    assert list(at_0.hit_hbm_tokens > 0) == [False, False, False, True, True]


@pytest.mark.parametrize(("routing", "next_uses"), [("round_robin", [0, math.inf]), ("least_loaded", [0, 1])])
def test_who_looks_where_is_known_for_round_robin_alone(scenario, prompt, routing, next_uses):
    """The second request goes to the second replica in turn; with another router it may come to the first as well."""
    rows = [(0, 512, 1, prompt(1, 512)), (1, 512, 1, prompt(2, 512))]
    built = scenario(rows, hardware={"profile": "h100-sxm", "replicas": 2}, routing=routing)
    first = Cluster(built, load_inputs(built)).tiers[0][0]
    assert [first.policy.tier.next_use(prompt(family, 512)[0]) for family in (1, 2)] == next_uses


def test_rejected_requests_use_nothing(run, prompt):
    """The long request can never run: what only it names is not worth keeping."""
    long = [*prompt(1, 1024), *prompt(8, 9000)]
    rows = [(0, 1024, 1, prompt(1, 1024)), (1, 10_000, 1, long[:20]), (2, 1024, 1, prompt(2, 1024))]
    rows += [(20 + 20 * i, 1024, 1, prompt(2 + i % 2, 1024)) for i in range(6)]
    result = run(rows, blocks=136, policies={"eviction": "belady"})
    assert result.summary["requests"]["rejected"] == 1
    assert (result.frames["requests"].hit_hbm_tokens[5:] > 0).all()


def test_strides_are_single_steps(run, same_requests, prompt):
    rows = [(0.2 * i, 900 + 150 * (i % 7), 30, prompt(i % 7, 900 + 150 * (i % 7))) for i in range(60)]
    keywords = {"blocks": 400, "dram": "600 MiB", "policies": {"eviction": "belady"}}
    strides, singles = run(rows, **keywords), run(rows, single_step=True, **keywords)
    same_requests(strides, singles)


@pytest.mark.parametrize("where", ["policies.eviction", "tiers.dram.eviction"])
@pytest.mark.parametrize("trace", [TURNS, {"generate": {"requests": 9, "rate": 1, "turns": 3}, "closed_loop": True}])
def test_closed_loops_have_no_future(scenario, where, trace):
    closed = scenario(trace=trace, dram="1 GiB").set(where, "belady")
    said = f"^scenario: {where}: belady cannot be used here: it needs the trace's future; closed-loop load has none$"
    with pytest.raises(InputError, match=said):
        closed.run()


def test_recorded_conversations_in_an_open_loop_have_a_future(run):
    trace = {"generate": {"requests": 9, "rate": 1, "turns": 3}}
    assert run(trace=trace, policies={"eviction": "belady"}).summary["requests"]["finished"] == 9


def test_it_says_that_it_promises_nothing(run, prompt):
    summary = run(cycle(prompt, 2, 2), policies={"eviction": "belady"}).summary
    label = "belady is a bound (clairvoyant, arrival order), not a policy; it promises nothing on latency"
    assert summary["warnings"] == [f"policies.eviction: {label}"]
    assert any("clairvoyant in arrival order" in text for text in summary["assumptions"])


@pytest.mark.parametrize("where", ["policies.eviction", "tiers.dram.eviction"])
def test_the_other_bound_is_a_capacity(scenario, prompt, where):
    said = (
        f"scenario: {where}: a capacity, not a policy: give the tier more memory than the trace needs, "
        "found 'unbounded', expected a policy such as lru, in a tier with a capacity such as '1 PiB'"
    )
    with pytest.raises(InputError) as error:
        scenario(cycle(prompt, 2, 2), dram="1 GiB").set(where, "unbounded").run()
    assert str(error.value) == said
