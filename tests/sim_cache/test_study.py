import pytest

from hw_profiles.errors import InputError
from policies.tables import EVICTION
from sim.cache.study import BELADY, Row, run_study
from traces.arrivals import limit

ROWS = [(6, [1, 2]), (6, [1, 2]), (8, [1, 3]), (4, [5]), (8, [1, 3])]


def test_rows_come_policy_by_policy_and_bounds_beside_them(make_trace):
    study = run_study(make_trace(ROWS), ["lru", "fifo"], [8, None, 11])
    assert [(row.policy, row.capacity_tokens) for row in study.rows] == [
        ("lru", 8), ("lru", None), ("lru", 11), ("fifo", 8), ("fifo", None), ("fifo", 11),
    ]  # fmt: skip
    # Two blocks: of 32 tokens 0 + 6 + 4 + 0 + 4 hit; of accesses 2 1 | 2 1 | 3 1 | 5 | 3 1 the second request's and the
    # 1 of the third: 3 evicted 2 before it, then 5 evicts 3, and in the last request 3 evicts 1.
    assert study.rows[0] == Row("lru", 8, 14 / 32, 3 / 9)
    assert study.rows[2] == Row("lru", 11, 14 / 32, 3 / 9)  # 11 tokens: two blocks of 4 as well
    assert study.rows[1] == Row("lru", None, 18 / 32, 5 / 9)
    assert study.unbounded == Row("unbounded", None, 18 / 32, 5 / 9)
    assert [(row.policy, row.capacity_tokens) for row in study.belady] == [(BELADY, 8), (BELADY, 11)]
    assert [row.capacity_tokens for row in study.curve("fifo")] == [8, 11]
    assert study.curve(BELADY) == study.belady
    assert (study.requests, study.input_tokens, study.accesses, study.distinct_blocks) == (5, 32, 9, 4)


def test_what_expires_is_lost_without_a_limit_too(make_trace):
    """Requests come a second apart; a block that is dropped half a second after its use is never hit."""
    study = run_study(make_trace(ROWS), [{"name": "ttl", "ttl": "500 ms"}, "lru"], [8])
    assert [row.hit_ratio for row in study.ceilings] == [0, 18 / 32]
    assert [row.capacity_tokens for row in study.ceilings] == [None, None]


def test_belady_is_run_when_asked_for_or_wanted(make_trace):
    trace = make_trace(ROWS)
    assert run_study(trace, ["lru"], [8], bounds=False).belady == ()
    asked = run_study(trace, ["belady"], [8], bounds=False)
    assert asked.rows == asked.belady == run_study(trace, ["lru"], [8]).belady
    assert asked.policies == ("belady",)


def test_options_and_own_policies(make_trace, tmp_path):
    (tmp_path / "mine.py").write_text("from policies.eviction.fifo import FIFO\n\nclass Mine(FIFO):\n    pass\n")
    specs = [{"name": "s3fifo", "small_ratio": 0.5}, "mine.py:Mine", "fifo"]
    study = run_study(make_trace(ROWS), specs, [8], base_dir=tmp_path)
    assert study.policies == ("s3fifo(small_ratio=0.5)", "mine.py:Mine", "fifo")
    mine, fifo = study.rows[1:]
    assert (mine.hit_ratio, mine.block_hit_ratio) == (fifo.hit_ratio, fifo.block_hit_ratio)


@pytest.mark.parametrize(
    ("policies", "capacities", "said"),
    [
        (["lruu"], [8], "policy: unknown eviction policy, found 'lruu', expected one of .*; did you mean 'lru'"),
        (["belayd"], [8], "did you mean 'belady'"),
        (["unbounded"], [8], "policy: unbounded is a capacity"),
        ([{"name": "belady", "k": 2}], [8], "belady has no options"),
        ([{"name": "lru_k", "kk": 2}], [8], "lru_k has no such option.*did you mean 'k'"),
        ([{"small": 2}], [8], "policy: found {'small': 2}, expected a name"),
        ([3], [8], "policy: found 3"),
        (["none.py:Mine"], [8], "policy: policy file not found"),
        ([], [8], "policy: none given"),
        (["lru"], [], "capacity: none given"),
        (["lru"], [8, 3], "capacity: less than one block, found '3 tok', expected at least 4 tok"),
        (["lru"], [0], "capacity: less than one block"),
    ],
)
def test_wrong_input(make_trace, policies, capacities, said):
    with pytest.raises(InputError, match=said):
        run_study(make_trace(ROWS), policies, capacities)


PUBLISHED = {1: 5.4, 3: 13.9, 10: 29.1, 30: 36.6, 100: 37.4}
"""LRU on the conversation trace: Mtok -> hit ratio in per cent of input tokens, counted independently."""


def test_the_conversation_trace(conversation):
    sizes = [10**6 * size for size in PUBLISHED]
    study = run_study(conversation, ["lru"], [*sizes, None])
    for row, ratio in zip(study.rows, [*PUBLISHED.values(), 37.4], strict=True):
        assert 100 * row.hit_ratio == pytest.approx(ratio, abs=0.1)
    for row, bound in zip(study.rows, study.belady, strict=False):
        assert row.block_hit_ratio <= bound.block_hit_ratio <= study.unbounded.block_hit_ratio


@pytest.mark.parametrize("name", EVICTION)
def test_no_policy_beats_belady_on_the_conversation_trace(conversation, name):
    study = run_study(limit(conversation, 2000), [name], [10**6])
    assert study.rows[0].block_hit_ratio < study.belady[0].block_hit_ratio
    assert study.rows[0].hit_ratio <= study.unbounded.hit_ratio


def test_a_time_to_live_costs_hits_however_large_the_cache(make_trace):
    trace = make_trace([(4, [1]), (4, [2]), (4, [1]), (4, [1])])  # one a second
    study = run_study(trace, [{"name": "ttl", "ttl": "1 s"}, "ttl"], [4, 8, None])
    assert [row.hit_ratio for row in study.rows] == [1 / 4, 1 / 4, 1 / 4, 1 / 4, 2 / 4, 2 / 4]
    assert study.unbounded.hit_ratio == 2 / 4


def test_a_policy_that_lets_blocks_expire_never_shows_what_time_has_taken(make_trace, tmp_path):
    (tmp_path / "mine.py").write_text("from policies.eviction.ttl import TTL\n\nclass Mine(TTL):\n    pass\n")
    study = run_study(make_trace([(4, [1]), (4, [2]), (4, [1])]), [{"name": "mine.py:Mine", "ttl": 1}], [4, 80, None],
                      base_dir=tmp_path)  # fmt: skip
    assert [row.hit_ratio for row in study.rows] == [0, 0, 0]
