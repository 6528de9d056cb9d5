from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.clients import ClientsSpec, converse
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
    labels = list(stat_labels())
    talking = ClientsSpec.model_validate({"clients": 3, "rounds": 2, "max_parallel": 2})
    for made in (figures, stats(converse(talking, 0))):
        assert [labels.index(key) for key in made] == sorted(labels.index(key) for key in made)
    assert {*figures, *stats(converse(talking, 0))} == {*labels}
    assert all(label.label and label.definition for label in stat_labels().values())
    assert stat_labels()["duration_s"].unit == "s"
    assert figures["rate_per_s"] == 0  # one request has no rate


def test_without_prefix_information_there_are_no_prefix_figures(make_trace):
    figures = stats(make_trace([(0.0, 600, 5, []), (2.0, 10, 1, [])], block_tokens=0))
    assert figures["input_tokens"] == 610
    assert "ideal_hit_ratio" not in figures
    assert ideal_hits(make_trace([(0.0, 600, 5, [])], block_tokens=0)).tolist() == [0]


def test_figures_of_conversations_by_hand():
    """Three clients with a common system prompt of two blocks: three rounds of 32 + 16 more tokens each."""
    spec = {
        "clients": 3,
        "rounds": 3,
        "system_tokens": 40,
        "input_tokens": 32,
        "output_tokens": 16,
        "think_time": "5 s",
    }
    figures = stats(converse(ClientsSpec.model_validate({**spec, "conversations": 2}), 0))
    assert (figures["requests"], figures["sessions"], figures["after_another"]) == (18, 6, 15)
    assert [figures[f"turns_{key}"] for key in ("mean", "p50", "p99", "max")] == [3, 3, 3, 3]
    assert figures["think_known"] == 12  # the last round of a conversation has no next turn
    assert [figures[f"think_{key}"] for key in ("mean", "p50", "p99")] == [5, 5, 5]
    assert figures["input_tokens"] == 6 * (72 + 120 + 168)
    assert figures["shared_prefix_mean"] == 32
    assert figures["shared_prefix_ratio"] == pytest.approx(32 * 18 / figures["input_tokens"])
    # the first prompt finds nothing, five the system prompt, later rounds the full blocks of the prompt before
    assert figures["ideal_hit_tokens"] == 5 * 32 + 6 * (64 + 112)
    assert "duration_s" not in figures  # the run decides when requests arrive
    assert "max_parallel" not in figures


def test_requests_of_no_conversation_are_none(make_trace):
    trace = make_trace([(0.0, 600, 5, [1, 2]), (1.0, 600, 5, [1, 2]), (2.0, 512, 5, [1])])
    alone = stats(replace(trace, session_ids=np.full(3, -1)))
    assert "sessions" not in alone
    assert alone["shared_prefix_mean"] == pytest.approx((600 + 600 + 512) / 3)
    one = stats(replace(trace, session_ids=np.array([0, 0, -1])))
    assert one["sessions"] == 1
    assert one["shared_prefix_mean"] == 512  # the second block is of one conversation alone
    assert one["think_known"] == 0
    assert "think_mean" not in one
