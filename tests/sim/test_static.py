"""engine.scheduling: static. Batches that begin and end together, rows of padding, and that nothing is lost."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError

CHECKED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
STATIC = {"scheduling": "static"}


def ids(i, tokens):
    return [10 * i + k for k in range(-(-tokens // 512))]


@st.composite
def cases(draw):
    now, rows = 0.0, []
    for i in range(draw(st.integers(2, 14))):
        now += draw(st.sampled_from([0, 0, 0.003, 0.05, 1]))
        tokens, output = draw(st.sampled_from([16, 100, 512, 1200])), draw(st.sampled_from([1, 3, 17, 80, 300]))
        rows.append((now, tokens, output, ids(i, tokens)))
    longest = max(i + o - 1 for _, i, o, _ in rows)
    block = draw(st.sampled_from([16, 64]))
    engine = {
        **STATIC,
        "block_tokens": block,
        "max_num_seqs": draw(st.sampled_from([1, 2, 4, 16])),
        "max_num_batched_tokens": draw(st.sampled_from([16, 100, 512, 2048])),
    }
    blocks = -(-int(longest * draw(st.sampled_from([1.0, 1.7, 3.0, 20.0]))) // block)
    return rows, {"engine": engine, "blocks": blocks}


def batches(requests):
    """Requests by when they were taken: those of one batch together."""
    return [batch for _, batch in requests.groupby("admit_s")]


@CHECKED
@given(case=cases())
def test_limits_hold_nobody_is_lost_and_strides_are_exact(run, same_requests, case):
    rows, keywords = case
    result = run(rows, **keywords)
    engine, steps, requests = keywords["engine"], result.frames["steps"], result.frames["requests"]
    assert (requests.status == "finished").all()
    assert (steps.prefill_tokens <= engine["max_num_batched_tokens"]).all()
    assert (steps.decode_seqs + steps.padding_seqs <= engine["max_num_seqs"]).all()
    assert ((steps.decode_seqs == 0) | (steps.prefill_seqs == 0)).all()
    assert result.summary["preemptions"] == 0
    assert result.summary["tiers"]["hbm"]["peak_bytes"] <= result.summary["tiers"]["hbm"]["capacity_bytes"]
    assert (np.diff(requests.admit_s) >= 0).all()  # in order of arrival, nobody is passed
    singles = run(rows, **keywords, single_step=True)
    same_requests(result, singles)


@CHECKED
@given(case=cases())
def test_batches_do_not_overlap_and_take_what_fits(run, case):
    rows, keywords = case
    result = run(rows, **keywords)
    requests = result.frames["requests"]
    engine, capacity = keywords["engine"], keywords["blocks"]
    found = batches(requests)
    assert result.summary["batches"]["count"] == len(found)
    for batch, following in zip(found, [*found[1:], None], strict=True):
        longest = batch.output_tokens.max()

        def needed(part, longest=longest):
            return sum(-(-(tokens + longest - 1) // engine["block_tokens"]) for tokens in part.input_tokens)

        assert len(batch) <= engine["max_num_seqs"]
        assert needed(batch) <= capacity
        if following is None:
            continue
        assert following.admit_s.iloc[0] >= batch.finish_s.max()
        head = following.iloc[:1]
        there = head.arrival_s.iloc[0] <= batch.admit_s.iloc[0]
        more = pd.concat([batch, head])
        fits = needed(more, more.output_tokens.max()) <= capacity and len(more) <= engine["max_num_seqs"]
        assert not (there and fits)


def test_rows_that_ended_compute_on(run, hand):
    """Two rows of which one ends after 2 tokens: every decode step is one of two rows, with the context of both."""
    rows = [(0, 500, 2, ids(0, 500)), (0, 500, 50, ids(1, 500))]
    result = run(rows, engine=STATIC)
    steps = result.frames["steps"]
    assert steps.decode_seqs.tolist() == [0, 2, 1]
    assert steps.padding_seqs.tolist() == [0, 0, 1]
    expected = hand.mixed_step([(500, 0), (500, 0)], 2) + sum(hand.decode_step(2, 2 * (501 + i)) for i in range(49))
    assert result.frames["requests"].finish_s[1] == pytest.approx(expected, rel=1e-9)
    assert result.summary["batches"] == {"count": 1, "padding_rows": 48, "padding_share": 48 / 98}
    gaps = [hand.decode_step(2, 2 * (501 + i)) for i in range(49)]
    mean = (sum(gaps) + gaps[0]) / 50  # of tokens that somebody gets
    assert result.summary["itl_ms"]["mean"] == pytest.approx(1e3 * mean, rel=1e-6)


def test_the_next_batch_waits_for_the_last(run):
    rows = [(0, 100, 300, ids(0, 100)), (0.001, 100, 2, ids(1, 100)), (0.002, 100, 2, ids(2, 100))]
    static, fcfs = (run(rows, engine=e).frames["requests"] for e in (STATIC, {"prefix_caching": False}))
    assert static.admit_s.tolist() == [0, static.finish_s[0], static.finish_s[0]]
    assert fcfs.finish_s[1] < fcfs.finish_s[0]
    assert static.ttft_s[1] > fcfs.ttft_s[1]


def test_memory_of_a_batch_is_held_until_its_end(run):
    """Room for three rows of 16 + 299: those of the batch that ended early are no room for the fourth."""
    rows = [(0, 16, 300 if not i else 1, ids(i, 16)) for i in range(4)]
    requests = run(rows, engine=STATIC, blocks=3 * 20).frames["requests"]
    assert requests.admit_s.tolist() == [0, 0, 0, requests.finish_s[0]]


def test_nobody_decodes_before_the_last_prompt(run, hand):
    """1,400 tokens of prompts in steps of 512; each has its first token with its own prompt, and waits for the rest."""
    rows = [(0, 100, 3, ids(0, 100)), (0, 1200, 3, ids(1, 1200)), (0, 100, 1, ids(2, 100))]
    result = run(rows, engine={**STATIC, "max_num_batched_tokens": 512})
    steps, requests = result.frames["steps"], result.frames["requests"]
    assert steps.prefill_tokens.tolist() == [512, 512, 376, 0]
    first = hand.mixed_step([(100, 0), (412, 0)], 1)
    prompts = first + hand.mixed_step([(512, 412)], 0) + hand.mixed_step([(276, 924), (100, 0)], 2)
    assert requests.first_token_s.tolist() == pytest.approx([first, prompts, prompts])
    gaps = [hand.decode_step(3, 1400 + 3), hand.decode_step(3, 1400 + 6)]
    assert requests.finish_s.tolist() == pytest.approx([prompts + sum(gaps)] * 2 + [prompts])
    assert steps.padding_seqs.tolist() == [0, 0, 0, 1]
    mean = (2 * sum(gaps) + prompts - first) / 4  # of two rows with two gaps, the first of which waited
    assert result.summary["itl_ms"]["mean"] == pytest.approx(1e3 * mean, rel=1e-6)


def test_static_batching_shares_nothing(scenario):
    assert not scenario([(0, 100, 5, [1])], engine=STATIC).spec.engine.prefix_caching
    with pytest.raises(InputError, match=r"prefix_caching: static batching shares no KV.*found True"):
        scenario([(0, 100, 5, [1])], engine={**STATIC, "prefix_caching": True})
    with pytest.raises(InputError, match=r"tiers: .*static batching shares no KV"):
        scenario([(0, 100, 5, [1])], engine=STATIC, dram="10 GiB")
