"""Speculative decoding: strides are single steps to the bit, and draws belong to requests."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.sim.speculation_cases import engine

CHECKED = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def loads(draw):
    """Requests with little room, so that many are preempted, and an engine with speculation."""
    count = draw(st.integers(2, 10))
    now, rows = 0.0, []
    for i in range(count):
        now += draw(st.sampled_from([0, 0, 0.01, 0.1, 1]))
        tokens = draw(st.sampled_from([1, 17, 300, 512, 1024, 1500]))
        output = draw(st.sampled_from([1, 2, 3, 17, 80, 300]))
        shared = draw(st.integers(0, 1))
        blocks = -(-tokens // 512)
        ids = [1000 * shared + j for j in range(tokens // 512)] + [10_000 + i] * (blocks - tokens // 512)
        rows.append((now, tokens, output, ids))
    k = draw(st.integers(1, 5))
    method = draw(st.sampled_from(["ngram", "mtp", "draft"]))
    chance = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    spec = {"method": method, "tokens": k, "acceptance": chance}
    if method == "ngram":
        spec["match"] = draw(st.sampled_from([0.4, 1.0]))
    if method == "draft":
        spec["model"] = "llama-3.1-8b"
    kind = draw(st.sampled_from(["vllm", "sglang", "tensorrt_llm"]))
    block = draw(st.sampled_from([16, 64]))
    longest = max(i + o + 2 * k for _, i, o, _ in rows)
    seqs = draw(st.sampled_from([1, 2, 4, 16]))
    engine = {
        "kind": kind,
        "speculation": spec,
        "max_num_seqs": seqs,
        "max_num_batched_tokens": max(seqs * (k + 1), draw(st.sampled_from([16, 100, 512, 2048]))),
        "block_tokens": block,
        "chunked_context": True,
    }
    if kind == "tensorrt_llm":
        engine["capacity_policy"] = draw(st.sampled_from(["guaranteed_no_evict", "max_utilization"]))
    if kind == "vllm":
        engine["scheduling"] = draw(st.sampled_from(["fcfs", "priority"]))
    return rows, {
        "engine": engine,
        "blocks": -(-int(longest * draw(st.sampled_from([1.02, 1.3, 2.0, 4.0]))) // block) + 2,
        "dram": draw(st.sampled_from([None, "400 MiB", "10 GiB"])),
        "offload": draw(st.sampled_from(["write_through", "write_back"])),
        "hardware": {"profile": draw(st.sampled_from(["h100-sxm", "a100-80"])), "replicas": draw(st.integers(1, 2))},
    }


@CHECKED
@given(case=loads())
def test_strides_are_exactly_single_steps(run, same_requests, case):
    rows, keywords = case
    strides, singles = run(rows, **keywords), run(rows, **keywords, single_step=True)
    same_requests(strides, singles)
    for name in ("transfers", "samples"):
        pd.testing.assert_frame_equal(strides.frames[name], singles.frames[name], check_exact=True)
    for key, value in strides.summary["speculation"].items():
        assert singles.summary["speculation"][key] == (pytest.approx(value) if key == "draft_s" else value)
    assert set(strides.frames["requests"].status) == {"finished"}


@pytest.mark.parametrize(
    ("model", "hardware", "speculation"),
    [
        ("gpt-oss-120b", {"tp": 2}, {"method": "mtp"}),  # windows in some layers
        ("mixtral-8x7b", {"tp": 4, "expert_parallel": True}, {"method": "draft", "model": "mistral-7b"}),
        ("deepseek-v3", {"tp": 16, "gpus_per_node": 16}, {"method": "mtp"}),  # latents
    ],
)
def test_strides_are_exact_with_windows_latents_and_experts(run, same_requests, prompt, model, hardware, speculation):
    rows = [(0.05 * i, 100 + 900 * (i % 5), 60 + 40 * (i % 3), prompt(i, 100 + 900 * (i % 5))) for i in range(8)]
    keywords = {
        "model": model,
        "hardware": {"profile": "h100-sxm", "interconnect": "450 GB/s", **hardware},
        "blocks": 500,
        "dram": "4 GiB",
        "engine": {"max_num_seqs": 64, "speculation": {"tokens": 3, "acceptance": 0.7, **speculation}},
    }
    strides, singles = (run(rows, **keywords, single_step=single) for single in (False, True))
    same_requests(strides, singles)
    assert strides.frames["steps"]["count"].max() > 1


def test_more_rows_over_a_latent_take_longer_and_over_heads_do_not(run):
    """Decode attention over KV heads is bound by HBM for a few rows; over a latent by arithmetic from the first."""
    from hw_profiles.loader import load_profile
    from hw_profiles.models import load_model
    from sim.cost.step import StepCost
    from sim.cost.verify import VerifyLoad

    def attention(model, queries):
        stage = StepCost(load_model(model), load_profile("h100-sxm")).stages[0]
        attended = np.array([64 * 8000.0])
        rows = np.array([64 * queries])
        return float(stage.verify(VerifyLoad(64, rows, attended, attended * queries, []))[0])

    assert attention("llama-3.1-8b", 4) == attention("llama-3.1-8b", 1)
    assert attention("llama-3.1-8b", 128) > 2 * attention("llama-3.1-8b", 1)
    assert attention("deepseek-v3", 2) == pytest.approx(2 * attention("deepseek-v3", 1), rel=0.1)


def test_expected_steps_are_those_of_a_run(scenario, run, prompt):
    """What admission control expects of a step of equal sequences, and of its tokens."""
    from sim.inputs import load_inputs
    from sim.replicas import step_cost

    rows = [(0, 1000, 400, prompt(i, 1000)) for i in range(8)]
    mtp = {"speculation": {"method": "mtp", "tokens": 3, "acceptance": 1.0}}
    built = scenario(rows, engine=mtp)
    inputs = load_inputs(built)
    cost = step_cost(built.spec, inputs)
    steps = run(rows, engine=mtp).frames["steps"]
    first = steps[steps.prefill_seqs == 0].iloc[0]
    expected = cost.decode_steps(8, 8 * 1001, (), int(first["count"])).seconds
    assert first.end_s - first.start_s == pytest.approx(expected.sum(), rel=1e-6)
    assert cost.tokens_per_step == 4
    speculation = load_inputs(scenario(rows, engine=engine(tokens=4, match=0.5))).speculation
    assert speculation.tokens_per_step == pytest.approx(1 + 0.5 * (0.7 + 0.49 + 0.343 + 0.2401))


def test_preemption_happens_and_draws_stay(run, prompt):
    """Preempted or not, an answer takes as many verifications as its draws say, but for the tokens that end a
    recomputation."""
    rows = [(0, 512, 400, prompt(i, 512)) for i in range(4)]
    roomy, tight = (run(rows, blocks=blocks, engine=engine(acceptance=0.6)) for blocks in (400, 120))
    assert tight.summary["preemptions"] > 0
    assert roomy.summary["preemptions"] == 0
    for result in (roomy, tight):
        s = result.summary["speculation"]
        resumed = int(result.frames["requests"].output_tokens.sum()) - 4 - s["kept"]
        assert resumed == (0 if result is roomy else tight.summary["preemptions"])


def test_batches_do_not_change_what_is_accepted(run, prompt):
    rows = [(0.3 * i, 512, 100, prompt(i, 512)) for i in range(6)]
    alone, together = (run(rows, engine={**engine(), "max_num_seqs": seqs}) for seqs in (1, 6))
    for key in ("verified", "accepted", "kept"):
        assert alone.summary["speculation"][key] == together.summary["speculation"][key]
