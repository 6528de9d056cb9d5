"""Speculative decoding: closed forms of steps with drafted tokens."""

import pytest

from tests.sim.speculation_cases import DRAFT, engine


def test_wrong_drafts_cost_their_verification(run, hand, prompt):
    """acceptance 0: a token per step, each at the cost of a step of four rows per sequence."""
    rows = [(0, 1000, 9, prompt(0, 1000))]
    result = run(rows, engine=engine(acceptance=0.0))
    end = hand.mixed_step([(1000, 0)], 1)
    for i in range(8):
        kernels = hand.linear(4, 0) + hand.head(4) + hand.decode_attention(1, 1000 + i + 4)
        end += kernels
    assert result.frames["requests"].finish_s[0] == pytest.approx(end, rel=1e-9)
    summary = result.summary["speculation"]
    assert (summary["verified"], summary["drafted"], summary["accepted"], summary["kept"]) == (8, 24, 0, 8)
    assert summary["accepted_length"] == 1


def test_right_drafts_save_their_steps(run, hand, prompt):
    """acceptance 1: four tokens per step; of the last step's, those past the end are dropped."""
    rows = [(0, 1000, 1 + 4 + 4 + 3, prompt(0, 1000))]
    result = run(rows, engine=engine(acceptance=1.0))
    end = hand.mixed_step([(1000, 0)], 1)
    for i in range(3):
        end += hand.linear(4, 0) + hand.head(4) + hand.decode_attention(1, 1000 + 4 * i + 4)
    assert result.frames["requests"].finish_s[0] == pytest.approx(end, rel=1e-9)
    summary = result.summary["speculation"]
    assert (summary["verified"], summary["accepted"], summary["kept"], summary["past_the_end"]) == (3, 9, 11, 1)
    assert summary["accepted_length"] == 4
    assert result.frames["steps"]["count"].sum() == 4


def test_gaps_are_those_between_steps(run, prompt):
    """Tokens of one step come together: one gap per step, as vLLM's benchmark counts pieces of a stream; TPOT is by
    token."""
    rows = [(0, 1000, 1 + 16, prompt(0, 1000))]
    summary = run(rows, engine=engine(acceptance=1.0)).summary
    requests = summary["tpot_ms"]["mean"]
    assert summary["itl_ms"]["mean"] == pytest.approx(4 * requests, rel=1e-9)


def test_a_missing_match_drafts_nothing(run, prompt):
    """match 0: the steps of a run without speculation, to the last bit."""
    rows = [(0.01 * i, 700 + 100 * i, 60, prompt(i, 700 + 100 * i)) for i in range(6)]
    sizes = [1, 2, 4, 8]
    plain = run(rows, engine={"graph_batch_sizes": sizes, "graphs": False, "eager_launch": "0 s"})
    none = run(rows, engine={**engine(match=0.0), "graphs": False, "eager_launch": "0 s"})
    assert none.summary["speculation"]["drafted"] == 0
    for name in ("first_token_s", "finish_s"):
        assert list(none.frames["requests"][name]) == pytest.approx(list(plain.frames["requests"][name]), rel=1e-12)


@pytest.mark.parametrize(("kind", "rows"), [("vllm", 1), ("sglang", 4), ("tensorrt_llm", 4)])
def test_who_fills_up_a_draft_that_is_missing(run, hand, prompt, kind, rows):
    """SGLang and TensorRT-LLM verify as many rows of every sequence (graphs by sequences), vLLM those that there are;
    its graph is of four."""
    requests = [(0, 1000, 9, prompt(0, 1000))]
    more = {"capacity_policy": "guaranteed_no_evict"} if kind == "tensorrt_llm" else {}
    engine_ = {**engine(match=0.0), "kind": kind, "graph_batch_sizes": [1, 2, 4, 8], **more}
    result = run(requests, engine=engine_)
    each = hand.linear(4, 0) + hand.head(rows)
    expected = sum(each + hand.decode_attention(1, 1000 + i + rows) for i in range(8))
    done = result.frames["requests"].iloc[0]
    assert done.finish_s - done.first_token_s == pytest.approx(expected, rel=1e-9)
    summary = result.summary["speculation"]
    assert (summary["verified"], summary["drafted"], summary["accepted"]) == (8, 0, 0)


@pytest.mark.parametrize("kind", ["sglang", "tensorrt_llm"])
def test_graphs_of_the_drafters_first_pass_are_of_sequences(run, prompt, kind):
    """Ten sequences of four rows: a graph is captured for ten sequences, though none for 40 rows."""
    draft = {"speculation": {**DRAFT, "acceptance": 0.0}, "kind": kind, "graph_batch_sizes": [8, 10, 32]}
    works = []
    for seqs in (8, 10):
        rows = [(0, 100, 20, prompt(i, 100)) for i in range(seqs)]
        result = run(rows, model="llama-3.1-70b", hardware={"profile": "h100-sxm", "tp": 4}, engine=draft)
        steps = result.frames["steps"]
        works.append(steps[(steps.prefill_seqs == 0) & (steps.decode_seqs == seqs)].works_s.iloc[0])
    assert works[0] < works[1] < 1.1 * works[0]


def test_launching_a_drafters_kernels_hides_its_attention(run, prompt):
    """Without graphs a pass takes as long as its launches, or as its kernels: attention is one of these."""
    found = []
    for tokens in (100, 4000):
        eager = {"speculation": {**DRAFT, "acceptance": 0.0}, "graphs": False, "eager_launch": "100 us"}
        result = run(
            [(0, tokens, 5, prompt(0, tokens))],
            model="llama-3.1-70b",
            hardware={"profile": "h100-sxm", "tp": 4},
            engine=eager,
        )
        steps = result.frames["steps"]
        alone = steps[steps.prefill_seqs == 0].iloc[-1]
        found.append(alone.works_s / alone["count"])
    assert found[0] == pytest.approx(found[1], rel=1e-12)
