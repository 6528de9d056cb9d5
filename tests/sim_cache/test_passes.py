"""Every pass gives what the general path gives, at any capacity and with any options."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.base import EvictionPolicy
from policies.eviction.lru import LRU
from policies.eviction.ttl import TTL
from policies.tables import EVICTION
from sim.cache.accesses import accesses_of
from sim.cache.passes.facts import play
from sim.cache.passes.table import PASSES, pass_of
from sim.cache.replay import Replay
from sim.cache.stack import lru_hits
from traces.arrivals import limit

BLOCK = 4
NAMES = sorted(name for name, cls in EVICTION.items() if cls in PASSES)
OPTIONS = {
    "clock": st.fixed_dictionaries({"max_hits": st.integers(1, 4)}),
    "s3fifo": st.fixed_dictionaries(
        {"small_ratio": st.floats(0, 1), "ghost_ratio": st.floats(0, 2), "threshold": st.integers(1, 3)}
    ),
    "2q": st.fixed_dictionaries({"in_ratio": st.floats(0, 1), "out_ratio": st.floats(0, 2)}),
    "workload_aware": st.fixed_dictionaries(
        {
            "interval": st.sampled_from([None, 1.0, 20]),
            "turns": st.integers(1, 3),
            "ghost_ratio": st.floats(0, 3),
            "window": st.sampled_from([0.5, 2.0, 8.0]),
        }
    ),
    "lru_k": st.fixed_dictionaries({"k": st.integers(1, 5), "history_ratio": st.floats(0, 3)}),
    "gdsf": st.fixed_dictionaries({"attention_tokens": st.sampled_from([1.0, 28_600.0, float("inf")])}),
    "length_aware": st.fixed_dictionaries({"keep": st.sampled_from(["head", "tail"])}),
}


@st.composite
def prompts(draw):
    """Requests whose prompts are paths of a small tree, sometimes ids without such order."""
    if draw(st.booleans()):
        return [(BLOCK * len(ids), ids) for ids in draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6)))]
    rows = []
    for branch, length, spare in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8), st.integers(0, 3)))):
        ids = [(depth, branch if depth > 2 else branch % 2) for depth in range(length)]
        rows.append((BLOCK * length - spare, [10 * depth + b for depth, b in ids]))
    return rows


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50)
@given(data=st.data())
def test_a_pass_equals_the_general_path(make_trace, name, data):
    rows = data.draw(prompts().filter(bool))
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 1, 7]), min_size=1))
    turns = data.draw(st.none() | st.lists(st.integers(-1, 4), min_size=1))
    capacity = data.draw(st.integers(1, 12))
    options = data.draw(OPTIONS.get(name, st.just({})))
    arrivals = np.cumsum(np.resize(gaps, len(rows))).astype(float)
    trace = make_trace(rows).select(np.arange(len(rows)), arrivals)
    trace = replace(trace, turns=None if turns is None else np.resize(turns, len(rows)))
    replay = Replay(accesses_of(trace))
    one, other = (EVICTION[name](replay.info(capacity), **options) for _ in range(2))
    own = pass_of(one, capacity, replay.facts)
    assert own is not None
    assert play(own, replay.facts) == replay.hits(other, capacity)


@pytest.mark.parametrize("capacity", [40, 700, 3000])
@pytest.mark.parametrize("name", NAMES)
def test_a_pass_equals_the_general_path_on_the_conversation_trace(conversation, name, capacity):
    replay = Replay(accesses_of(limit(conversation, 600)))
    one, other = (EVICTION[name](replay.info(capacity)) for _ in range(2))
    assert play(pass_of(one, capacity, replay.facts), replay.facts) == replay.hits(other, capacity)


def test_a_subclass_is_another_policy(make_trace):
    class Mine(LRU):
        pass

    replay = Replay(accesses_of(make_trace([(4, [1])])))
    assert pass_of(Mine(replay.info(1)), 1, replay.facts) is None
    for cls in PASSES:
        assert issubclass(cls, EvictionPolicy)


@given(rows=prompts().filter(bool), gaps=st.lists(st.integers(0, 5), min_size=1), ttl=st.integers(1, 9))
def test_a_time_to_live_at_every_capacity_equals_the_general_path(make_trace, rows, gaps, ttl):
    arrivals = np.cumsum(np.resize(gaps, len(rows))).astype(float)
    accesses = accesses_of(make_trace(rows).select(np.arange(len(rows)), arrivals))
    replay = Replay(accesses)
    capacities = range(1, 12)
    general = [replay.hits(TTL(replay.info(count), ttl=ttl), count) for count in capacities]
    assert lru_hits(accesses, capacities, ttl) == general
