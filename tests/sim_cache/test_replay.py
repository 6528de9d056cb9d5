"""The rule of the study, by hand and against a plain model; LRU's fast path against the general one."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy
from policies.eviction.lru import LRU
from policies.tables import EVICTION
from sim.cache.accesses import Hits, accesses_of
from sim.cache.replay import Replay, cache_info
from sim.cache.stack import count_below, lru_hits
from traces.stats import ideal_hits

BLOCK = 4


def row(tokens, ids=8):
    blocks = -(-tokens // BLOCK)
    return st.tuples(st.just(tokens), st.lists(st.integers(0, ids), min_size=blocks, max_size=blocks))


rows_of = st.lists(st.integers(1, 24).flatmap(row), min_size=1, max_size=15)  # ids may repeat within a request


def plain_lru(rows, capacity):
    """The rule in its own words, with an OrderedDict."""
    held, tokens, blocks, engine = OrderedDict(), 0, 0, 0
    for length, ids in rows:
        run = next((i for i, key in enumerate(ids) if key not in held), len(ids))
        tokens += min(run * BLOCK, length)
        engine += next(t for t in range(length - 1, -1, -1) if t % 16 == 0 and t <= run * BLOCK)
        for key in reversed(ids):
            if key in held:
                blocks += 1
                held.move_to_end(key)
                continue
            if len(held) == capacity:
                held.popitem(last=False)
            held[key] = None
    return Hits(tokens, blocks, engine)


def replayed(trace, name, capacity):
    return Replay(accesses_of(trace)).hits(EVICTION[name](cache_info(capacity)), capacity)


def test_a_partial_last_block_takes_a_whole_one_and_is_hit_by_its_id(make_trace):
    rows = [(6, [1, 2]), (6, [1, 2]), (8, [1, 3])]
    assert replayed(make_trace(rows), "lru", 2) == Hits(6 + 4, 2 + 1)
    assert replayed(make_trace(rows), "lru", 1) == Hits(4 + 4, 0)  # 1 stays, the start of the prompt


def test_a_policy_sees_which_block_comes_before(make_trace):
    seen = {}

    class Watching(LRU):
        def insert(self, block):
            seen[block.key] = (block.start, block.parent)
            super().insert(block)

    replay = Replay(accesses_of(make_trace([(12, [10, 20, 30]), (8, [10, 40])])))
    replay.hits(Watching(cache_info(9)), 9)
    first, second, third = (next(k for k, v in seen.items() if v[0] == start) for start in (0, 4, 8))
    assert seen[first] == (0, None)
    assert seen[third] == (8, second)
    assert [parent for start, parent in seen.values() if start == 4] == [first, first]


def test_only_the_leading_run_of_blocks_is_a_prefix_hit_but_every_resident_block_is_a_block_hit(make_trace):
    rows = [(12, [1, 2, 3]), (12, [9, 2, 3])]
    assert replayed(make_trace(rows), "lru", 9) == Hits(0, 2)


def test_a_request_is_looked_up_before_it_changes_anything(make_trace):
    # With room for two, request 2 finds 1 resident; the insert of 4 evicts 2 and that of 3 evicts 1 before its use.
    rows = [(8, [1, 2]), (12, [1, 3, 4]), (4, [1])]
    assert replayed(make_trace(rows), "lru", 2) == Hits(4 + 4, 0 + 1)


def test_parents_outlive_their_children(make_trace):
    rows = [(12, [1, 2, 3]), (4, [7]), (8, [1, 2])]
    assert replayed(make_trace(rows), "lru", 3) == Hits(8, 2)


@given(rows_of, st.integers(1, 12))
def test_lru_matches_a_plain_model(make_trace, rows, capacity):
    assert replayed(make_trace(rows), "lru", capacity) == plain_lru(rows, capacity)


@given(rows_of)
def test_the_fast_path_of_lru_equals_the_general_path_at_every_capacity(make_trace, rows):
    accesses = accesses_of(make_trace(rows))
    replay = Replay(accesses)
    capacities = range(1, 12)
    assert lru_hits(accesses, capacities) == [replay.hits(LRU(cache_info(c)), c) for c in capacities]


@pytest.mark.parametrize("name", EVICTION)
def test_room_for_everything_makes_all_policies_equal(make_trace, name):
    rng = np.random.default_rng(5)
    rows = [(int(n), rng.integers(0, 12, -(-n // BLOCK)).tolist()) for n in rng.integers(1, 30, 60)]
    trace = make_trace(rows)
    unbounded = replayed(trace, name, accesses_of(trace).distinct)
    assert unbounded.tokens == ideal_hits(trace).sum()
    assert unbounded == lru_hits(accesses_of(trace), [99])[0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 12)), max_size=30))
def test_count_below_counts(triples):
    values, ends, limits = (np.array([t[i] for t in triples], np.int64) for i in range(3))
    ends = np.minimum(ends, len(values))
    expected = [sum(v < limit for v in values[:end]) for end, limit in zip(ends, limits, strict=True)]
    assert count_below(values, ends, limits).tolist() == expected


class Recorder(LRU):
    def __init__(self, tier):
        super().__init__(tier)
        self.calls = []

    def miss(self, key):
        self.calls.append(("miss", key))

    def insert(self, block):
        self.calls.append(("insert", block.key, block.uses))
        super().insert(block)

    def touch(self, block):
        self.calls.append(("touch", block.key, block.uses))
        super().touch(block)

    def release(self, block):
        self.calls.append(("release", block.key))

    def remove(self, block):
        self.calls.append(("remove", block.key))
        super().remove(block)


def test_hooks_come_in_the_order_of_the_contract_and_a_replay_can_be_used_again(make_trace):
    replay = Replay(accesses_of(make_trace([(4, [0]), (4, [0]), (8, [0, 1])])))
    calls = []
    for _ in range(2):  # blocks are shared by passes: nothing of the first may be seen in the second
        policy = Recorder(cache_info(1))
        assert replay.hits(policy, 1) == Hits(4 + 4, 1)
        calls.append(policy.calls)
    first = [("miss", 0), ("insert", 0, 0), ("release", 0)]
    again = [("touch", 0, 1), ("release", 0)]
    child = [("miss", 1), ("remove", 0), ("insert", 1, 0), ("release", 1)]
    parent = [("miss", 0), ("remove", 1), ("insert", 0, 0), ("release", 0)]
    assert calls == [[*first, *again, *child, *parent]] * 2


class Empty(LRU):
    def victims(self):
        return iter(())


class Stale(LRU):
    def remove(self, block):
        """Keeps it, so it is offered again."""


@pytest.mark.parametrize(("policy", "said"), [(Empty, "no block although"), (Stale, "key=0.*not resident")])
def test_a_policy_that_breaks_its_contract_is_named(make_trace, policy: type[EvictionPolicy], said):
    replay = Replay(accesses_of(make_trace([(4, [i]) for i in range(4)])))
    with pytest.raises(InputError, match=rf"{policy.__name__} broke its contract: .*{said}"):
        replay.hits(policy(cache_info(1)), 1)


class Watcher(LRU):
    """Notes when blocks are used, and in which turn; lets everything expire that was used before `since`."""

    def __init__(self, tier, since=0.0):
        super().__init__(tier)
        self.since = since
        self.seen = []
        self.used = {}

    def insert(self, block):
        super().insert(block)
        self.note(block)

    def touch(self, block):
        super().touch(block)
        self.note(block)

    release = LRU.touch

    def note(self, block):
        self.seen.append((block.key, self.tier.now(), block.turn))
        self.used[block.key] = self.tier.now()

    def expired(self):
        return iter([block for block in self._order.values() if self.used[block.key] < self.since <= self.tier.now()])


def test_the_clock_of_a_policy_is_the_arrival_and_turns_are_those_of_the_trace(make_trace):
    trace = make_trace([(4, [0]), (8, [0, 1]), (4, [0])]).select(np.arange(3), np.array([0.5, 2.0, 2.0]))
    plain, told = Replay(accesses_of(trace)), Replay(accesses_of(replace(trace, turns=np.array([0, 3, -1]))))
    for replay, turns in ((plain, (-1, -1, -1)), (told, (0, 3, -1))):
        policy = Watcher(replay.info(9))
        replay.hits(policy, 9)
        assert policy.seen == [(0, 0.5, turns[0]), (1, 2.0, turns[1]), (0, 2.0, turns[1]), (0, 2.0, turns[2])]


def test_what_has_expired_leaves_before_the_lookup_and_its_room_can_be_used(make_trace):
    rows = [(4, [0]), (4, [1]), (4, [2]), (4, [1]), (4, [2])]
    replay = Replay(accesses_of(make_trace(rows)))  # arrivals 0, 1, 2, ...
    assert replay.hits(Watcher(replay.info(2)), 2) == Hits(4 + 4, 2)
    assert replay.hits(Watcher(replay.info(2), since=2.0), 2) == Hits(4, 1)  # 0 and 1 are gone when 2 comes


class Wrong(LRU):
    def expired(self):
        return iter([Block(7, 0, 4, 1, 4)])


def test_a_policy_whose_expired_block_is_not_there_is_named(make_trace):
    replay = Replay(accesses_of(make_trace([(4, [i]) for i in range(9)])))
    with pytest.raises(InputError, match=r"Wrong broke its contract: expired\(\) offered .*key=7.* not resident"):
        replay.hits(Wrong(replay.info(1)), 1)
