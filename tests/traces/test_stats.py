import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.request import Trace
from traces.stats import ideal_hits, stat_labels, stats

BLOCK = 4


def plain_hits(rows):
    """Oracle: a set of blocks, looked up one after the other until the first miss."""
    seen, hits = set(), []
    for tokens, ids in rows:
        run = 0
        for i in ids:
            if i not in seen:
                break
            run += 1
        hits.append(min(run * BLOCK, tokens))
        seen.update(ids)
    return hits


def row(tokens):
    blocks = -(-tokens // BLOCK)
    ids = st.lists(st.integers(0, 12), min_size=blocks, max_size=blocks)
    return st.tuples(st.just(tokens), ids)


rows_of = st.lists(st.integers(1, 30).flatmap(row), min_size=1, max_size=15)


@given(rows_of)
def test_ideal_hits_match_a_plain_infinite_cache(rows):
    trace = Trace(
        name="made",
        block_tokens=BLOCK,
        arrival_s=np.arange(len(rows), dtype=float),
        input_tokens=np.array([tokens for tokens, _ in rows]),
        output_tokens=np.ones(len(rows), int),
        hash_ids=np.array([i for _, ids in rows for i in ids]),
        hash_offsets=np.cumsum([0, *(len(ids) for _, ids in rows)]),
        content_sha256="",
        source="made",
    ).validate()
    assert ideal_hits(trace).tolist() == plain_hits(rows)
    assert stats(trace)["ideal_hit_tokens"] == sum(plain_hits(rows))


def test_a_repeated_partial_block_counts_with_its_tokens(make_trace):
    trace = make_trace([(0.0, 600, 5, [1, 2]), (1.0, 600, 5, [1, 2]), (2.0, 700, 5, [1, 3])])
    assert ideal_hits(trace).tolist() == [0, 600, 512]


def test_every_figure_by_hand(make_trace):
    trace = make_trace([(10.0, 600, 5, [1, 2]), (10.0, 1024, 15, [1, 3]), (14.0, 600, 1, [1, 2])])
    assert stats(trace) == pytest.approx(
        {
            "requests": 3,
            "duration_s": 4.0,
            "rate_per_s": 0.5,
            "distinct_arrivals": 2,
            "largest_burst": 2,
            "input_tokens": 2224,
            "input_mean": 2224 / 3,
            "input_p50": 600,
            "input_p99": 600 + 0.98 * 424,
            "input_max": 1024,
            "output_tokens": 21,
            "output_mean": 7,
            "output_p50": 5,
            "output_p99": 5 + 0.98 * 10,
            "output_max": 15,
            "block_tokens": 512,
            "blocks": 6,
            "distinct_blocks": 3,
            "distinct_tokens": 512 + 88 + 512,
            "ideal_hit_tokens": 512 + 600,
            "ideal_hit_ratio": 1112 / 2224,
            "requests_with_hit": 2,
            "reused_blocks": 2,
            "uses_per_block": 2.0,
        }
    )
    assert {type(value) for value in stats(trace).values()} == {int, float}  # plain, so json can write them


def test_every_figure_has_a_label_in_printing_order(make_trace):
    figures = stats(make_trace([(0.0, 600, 5, [1, 2])]))
    assert list(figures) == list(stat_labels())
    assert all(label.label and label.definition for label in stat_labels().values())
    assert stat_labels()["duration_s"].unit == "s"
    assert figures["rate_per_s"] == 0  # one request has no rate


def test_without_prefix_information_there_are_no_prefix_figures(make_trace):
    figures = stats(make_trace([(0.0, 600, 5, []), (2.0, 10, 1, [])], block_tokens=0))
    assert figures["input_tokens"] == 610
    assert "ideal_hit_ratio" not in figures
    assert ideal_hits(make_trace([(0.0, 600, 5, [])], block_tokens=0)).tolist() == [0]
