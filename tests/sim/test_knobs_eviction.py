"""Every eviction policy and every option of one moves hits, in the direction that it is for.

One replica and requests that do not overlap, so that hits follow from the order of requests alone. Each pattern is one
that a policy was made for, or the one that it is known to be bad at; the tables name all policies and all options, and
a test holds them to that.
"""

import random

import pytest

from policies.build import policy_options
from policies.tables import EVICTION, EVICTION_BOUNDS

BLOCK = 512
ROOM = 8
"""Hash blocks that the HBM holds in the patterns of one block a prompt."""


def one_block(keys, gap=5.0):
    """A prompt of one block for each key."""
    return [(gap * i, BLOCK, 1, [key]) for i, key in enumerate(keys)]


def scan():
    """Two popular prompts, and as many prompts as the memory holds, once each, between their uses."""
    keys = [1, 2]
    for turn in range(6):
        keys += [1, 2, *range(100 + ROOM * turn, 100 + ROOM * (turn + 1))]
    return one_block(keys)


def loop():
    """Round and round over two prompts more than the memory holds."""
    return one_block([*range(ROOM + 2)] * 6)


def hot():
    """Every second request is for the same prompt, all others come once."""
    return one_block([key for i in range(60) for key in (1, 100 + i)])


def shift():
    """Six prompts are popular, then six others."""
    return one_block([1, 2, 3, 4, 5, 6] * 8 + [11, 12, 13, 14, 15, 16] * 8)


def zipf():
    """Few prompts are popular and many are not; half-way they are other ones."""
    draw = random.Random(1)
    return one_block([min(60, int(draw.paretovariate(0.6))) + 1000 * (i > 200) for i in range(400)])


def tails():
    """Twelve system prompts of a block in turn, each followed by a block of its request's own."""
    return [(5.0 * i, 2 * BLOCK, 1, [i % 12, 1000 + i]) for i in range(60)]


def mixed():
    """Prompts of one to four blocks over 30 popular beginnings."""
    draw, rows = random.Random(3), []
    for i in range(300):
        first, blocks = 1000 * min(30, int(draw.paretovariate(0.8))), draw.choice((1, 2, 4))
        middle = [first + 1 + draw.randrange(3)] if blocks > 1 else []
        own = [10**6 + 10 * i, 10**6 + 10 * i + 1] if blocks > 2 else []
        rows.append((5.0 * i, BLOCK * blocks, 1, [first, *middle, *own]))
    return rows


PATTERNS = {"scan": 8, "loop": 8, "hot": 8, "shift": 8, "zipf": 8, "tails": 16, "mixed": 24}
"""Hash blocks that the HBM holds, by pattern."""


@pytest.fixture(scope="module")
def hits(run):
    """Engine blocks hit under a policy on a pattern; each run once."""
    known = {}

    def go(policy, pattern):
        key = (str(policy), pattern)
        if key not in known:
            rows = globals()[pattern]()
            result = run(rows, blocks=PATTERNS[pattern] * BLOCK // 16, policies={"eviction": policy})
            known[key] = result.summary["prefix"]["hit_tokens"]["hbm"] // 16
            tiers = result.summary["tiers"]["hbm"]
            assert tiers["evicted_blocks"] + tiers["expired_blocks"] > 0
        return known[key]

    return go


# Policy, pattern, how its hits compare with LRU's there.
AGAINST_LRU = [
    ("fifo", "hot", "fewer"),
    ("lfu", "scan", "more"),
    ("lfu", "shift", "fewer"),
    ("clock", "scan", "more"),
    ("clock", "loop", "equal"),
    ("sieve", "scan", "more"),
    ("sieve", "shift", "fewer"),
    ("s3fifo", "scan", "more"),
    ("s3fifo", "loop", "more"),
    ("arc", "scan", "more"),
    ("arc", "shift", "fewer"),
    ("2q", "scan", "more"),
    ("2q", "loop", "more"),
    ("lru_k", "scan", "more"),
    ("lru_k", "tails", "more"),
    ("gdsf", "scan", "more"),
    ("gdsf", "shift", "fewer"),
    ("length_aware", "tails", "more"),
    ("length_aware", "shift", "fewer"),
    ("workload_aware", "tails", "more"),
    ("queue_aware", "zipf", "equal"),  # nothing queues
    ("ttl", "zipf", "equal"),  # five minutes are longer than anything stays
]

# Policy, option, values from which hits grow on a pattern, in this order.
OPTIONS = [
    ("clock", "max_hits", (1, 3), "zipf"),
    ("s3fifo", "small_ratio", (0.5, 0.1), "tails"),
    ("s3fifo", "ghost_ratio", (0, 0.9), "mixed"),
    ("s3fifo", "threshold", (3, 1), "scan"),
    ("2q", "in_ratio", (0.75, 0.25), "tails"),
    ("2q", "out_ratio", (0, 0.5), "mixed"),
    ("lru_k", "k", (1, 4, 2), "mixed"),
    ("lru_k", "history_ratio", (0, 1.0), "tails"),
    ("gdsf", "attention_tokens", (100.0, 1e9), "mixed"),  # the dearer depth, the less is kept of what is shared
    ("length_aware", "keep", ("tail", "head"), "tails"),
    ("ttl", "ttl", ("12 s", "60 s", "1 h"), "zipf"),
    ("workload_aware", "interval", ("1 s", "1 h"), "mixed"),
    ("workload_aware", "ghost_ratio", (0, 1.0), "tails"),
    ("workload_aware", "window", (0.5, 8.0), "mixed"),
]


@pytest.mark.parametrize(("policy", "pattern", "expected"), AGAINST_LRU)
def test_a_policy_does_what_it_is_for(hits, policy, pattern, expected):
    mine, lru = hits(policy, pattern), hits("lru", pattern)
    assert {"more": mine > lru, "fewer": mine < lru, "equal": mine == lru}[expected], (mine, lru)


@pytest.mark.parametrize(("policy", "option", "values", "pattern"), OPTIONS)
def test_an_option_moves_hits(hits, policy, option, values, pattern):
    found = [hits({"name": policy, option: value}, pattern) for value in values]
    assert sorted(set(found)) == found


def test_one_use_looked_back_over_is_lru(hits):
    for pattern in PATTERNS:
        assert hits({"name": "lru_k", "k": 1}, pattern) == hits("lru", pattern)


def test_turns_told_apart_move_hits(run):
    """The blocks of a first turn come back, those of a second do not: only a policy that tells turns apart can know."""
    load = {"requests": 300, "rate": 6, "turns": 3, "think_time": "20 s", "system_prompts": 5}
    load |= {"first_tokens": {"mean": 2000, "sigma": 1}, "output_tokens": {"mean": 60, "sigma": 0.8}}
    policies = [{"eviction": {"name": "workload_aware", "turns": turns}} for turns in (1, 4)]
    found = [run(trace={"generate": load}, blocks=2000, policies=p).summary["prefix"]["hit_tokens"] for p in policies]
    assert found[0] != found[1]


@pytest.mark.parametrize("pattern", ["scan", "loop", "hot", "shift", "zipf"])
def test_no_policy_beats_the_clairvoyant_one(hits, pattern):
    """One block a prompt, and no overlap: here the engine sees the fixed sequence that the bound is for."""
    bound = hits("belady", pattern)
    assert all(bound >= hits(policy, pattern) for policy in EVICTION)
    assert bound > hits("lru", pattern) or pattern in ("hot", "shift")


def test_the_tables_name_every_policy_and_every_option():
    named = {"lru", "belady"} | {policy for policy, _, _ in AGAINST_LRU}
    assert named == {*EVICTION, *EVICTION_BOUNDS}
    options = {(name, option) for name, policy in EVICTION.items() for option in policy_options(policy, skip=1)}
    assert {(policy, option) for policy, option, _, _ in OPTIONS} | {("workload_aware", "turns")} == options
