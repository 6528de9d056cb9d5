"""Speculative decoding: closed forms, draws, exactness of strides, memory, and when it helps."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from sim.engine.calendar import Calendar
from sim.engine.speculative_draws import Acceptance

CHECKED = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
DRAFT = {"method": "draft", "model": "llama-3.1-8b", "tokens": 3, "acceptance": 0.7}
NGRAM = {"method": "ngram", "tokens": 3, "acceptance": 0.7, "lookup_time": "0 s"}


def engine(**speculation):
    return {"speculation": {**NGRAM, **speculation}}


# ---- draws


def slow(acceptance, chances, easy, found, generated, output):
    """The same, place by place."""
    steps, place = [], generated
    while place < output:
        drafted = len(chances) if found[place] else 0
        right = 0
        while right < drafted and easy[place + right] < chances[right]:
            right += 1
        kept = min(right + 1, output - place)
        steps.append((drafted, right, kept))
        place += kept
    return steps


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    chances=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    match=st.sampled_from([0.0, 0.3, 1.0]),
    request_id=st.integers(0, 99),
    generated=st.integers(1, 40),
    more=st.integers(1, 200),
)
def test_steps_by_place(chances, match, request_id, generated, more):
    from traces.random import stream

    output, tokens = generated + more, len(chances)
    easy = stream(7, "speculation", request_id).random(output + tokens)
    found = stream(7, "speculation.match", request_id).random(output) < match
    steps = Acceptance(tokens, chances, match, 7).steps(request_id, generated, output)
    expected = slow(steps, chances, easy, found, generated, output)
    assert list(zip(*(column.tolist() for column in steps), strict=True)) == expected
    assert steps.kept.sum() == more


@pytest.mark.parametrize("a", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("k", [1, 4])
def test_mean_accepted_length_converges_to_the_formula(a, k):
    """Equation 1 of Leviathan et al. 2023, over 200,000 tokens; the standard error is below 0.01."""
    steps = Acceptance(k, [a] * k, 1.0, 0).steps(0, 1, 200_000)
    expected = k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)
    assert 1 + steps.accepted.mean() == pytest.approx(expected, abs=0.03)


def test_chances_by_place_multiply():
    steps = Acceptance(3, [0.9, 0.5, 0.2], 1.0, 0).steps(3, 1, 200_000)
    assert steps.accepted.mean() == pytest.approx(0.9 + 0.9 * 0.5 + 0.9 * 0.5 * 0.2, abs=0.01)


def test_longer_drafts_find_the_same_tokens_easy():
    """A draw belongs to a place of the answer: a longer draft never takes more steps, and rejoining changes nothing."""
    short, long = (Acceptance(k, [0.7] * k, 1.0, 5) for k in (2, 6))
    assert len(long.steps(1, 1, 500).kept) < len(short.steps(1, 1, 500).kept)
    whole = short.steps(1, 1, 500)
    middle = 1 + int(whole.kept[:50].sum())
    for rest, all_of_it in zip(short.steps(1, middle, 500), whole, strict=True):
        assert rest.tolist() == all_of_it[50:].tolist()


def test_calendar_is_a_sum_by_step():
    calendar, expected = Calendar(2), np.zeros((2, 9000), dtype=int)
    rng = np.random.default_rng(0)
    for step in range(0, 6000, 30):
        numbers = rng.integers(0, 9, (2, rng.integers(1, 2500)))
        calendar.add(step, numbers)
        expected[:, step : step + numbers.shape[1]] += numbers
        if step % 60:
            calendar.take(step + 5, numbers[:, 5:])
            expected[:, step + 5 : step + numbers.shape[1]] -= numbers[:, 5:]
        ahead = calendar.ahead(step, 400)
        assert (ahead == expected[:, step : step + ahead.shape[1]]).all()
        assert not expected[:, step + ahead.shape[1] : step + 400].any()


# ---- closed forms


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


# ---- exactness


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


# ---- memory and cost of drafters


def test_a_draft_model_takes_weights_and_kv(run, prompt):
    rows = [(0, 512, 20, prompt(0, 512))]
    hardware = {"profile": "h100-sxm", "tp": 8}
    draft = {"method": "draft", "model": "llama-3.1-8b", "tokens": 3, "acceptance": 0.8}
    same = {"model": "llama-3.1-70b", "hardware": hardware}
    found = [run(rows, **same, engine={"max_num_seqs": 64, **more}).summary for more in ({}, {"speculation": draft})]
    plain, drafted = (s["hardware"]["hbm_budget"] for s in found)
    assert drafted["weights"] - plain["weights"] == found[1]["speculation"]["weight_bytes"]
    assert drafted["weights"] > plain["weights"] + 14.9 * 2**30 / 8
    assert drafted["block_bytes"] == plain["block_bytes"] * (327680 + 131072) / 327680
    assert drafted["blocks"] < plain["blocks"] * 0.72
    assert found[1]["hardware"]["kv_bytes_per_token"] == 327680 + 131072
    whole = run(rows, **same, engine={"max_num_seqs": 64, "speculation": {**draft, "draft_tp": 1}}).summary
    assert whole["hardware"]["hbm_budget"]["blocks"] < drafted["blocks"]  # all of it on every rank


def test_an_mtp_layer_takes_a_layer(run, prompt):
    rows = [(0, 512, 20, prompt(0, 512))]
    mtp = {"method": "mtp", "tokens": 2, "acceptance": 0.8}
    plain, layer = (run(rows, engine={"max_num_seqs": 64, **more}) for more in ({}, {"speculation": mtp}))
    blocks = [r.summary["hardware"]["hbm_budget"]["block_bytes"] for r in (plain, layer)]
    assert blocks[1] == blocks[0] * 33 / 32
    of_a_layer = 2 * (4096 * (4096 + 2 * 1024 + 4096 + 3 * 14336) + 2 * 4096)
    join = 2 * (2 * 4096 * 4096 + 3 * 4096)
    assert layer.summary["speculation"]["weight_bytes"] == of_a_layer + join
    steps = layer.frames["steps"]
    assert (steps.works_s > 0).all()
    assert layer.summary["speculation"]["draft_s"] == pytest.approx(steps.works_s.sum())
    # a layer and the head, twice: some 2 x (1/32 of 15 GB and 1 GB), of an hour of weights
    share = steps.works_s.sum() / (steps.end_s - steps.start_s).sum()
    assert 0.1 < share < 0.35


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "draft", "model": "llama-3.1-8b"},
        {"method": "mtp"},
        {"method": "ngram"},
    ],
)
def test_more_drafted_tokens_cost_more_when_they_are_wrong(run, prompt, spec):
    rows = [(0, 1000, 100, prompt(i, 1000)) for i in range(8)]
    found = [
        run(rows, engine={"speculation": {**spec, "tokens": k, "acceptance": 0.0}}).summary["tpot_ms"]["mean"]
        for k in (1, 3, 9)
    ]
    plain = run(rows).summary["tpot_ms"]["mean"]
    assert plain < found[0] < found[1] < found[2]


def test_it_helps_alone_and_not_in_a_large_batch(run, prompt):
    """Alone a step reads all weights for one token, so drafts are almost free; with hundreds of rows arithmetic is
    what a step takes, and wrong drafts are work for nothing."""
    gains = []
    for seqs in (1, 16, 256):
        rows = [(0, 64, 200, prompt(i, 64)) for i in range(seqs)]
        with_k = {"speculation": {"method": "mtp", "tokens": 4, "acceptance": 0.6}}
        both = [run(rows, engine=e, hardware={"profile": "h100-sxm"}) for e in ({}, with_k)]
        plain, drafted = (r.summary["throughput"]["output_tokens_per_s"] for r in both)
        gains.append(drafted / plain)
    assert gains[0] > 1.4
    assert gains[0] > gains[1] > gains[2]
    assert gains[2] < 1.0


def test_tiers_carry_the_drafters_kv(run, prompt):
    rows = [(0, 4096, 5, prompt(0, 4096)), (20, 4096, 5, prompt(1, 4096)), (40, 4096, 5, prompt(0, 4096))]
    mtp = {"speculation": {"method": "mtp", "tokens": 2, "acceptance": 0.8}}
    plain, layer = (run(rows, blocks=300, dram="10 GiB", engine=e).summary for e in ({}, mtp))
    for key in ("stored_bytes", "loaded_bytes"):
        assert layer["tiers"]["dram"][key] == plain["tiers"]["dram"][key] * 33 / 32 > 0


def test_rows_count_against_the_steps_tokens(run, prompt):
    """A decoding sequence takes four tokens of a step's 16: a long prompt beside it runs in chunks of 12."""
    rows = [(0, 16, 100, prompt(0, 16)), (0.02, 120, 2, prompt(1, 120))]
    small = {**engine(), "max_num_seqs": 4, "max_num_batched_tokens": 16}
    steps = run(rows, engine=small).frames["steps"]
    beside = steps[(steps.prefill_seqs > 0) & (steps.decode_seqs > 0)]
    assert (beside.prefill_tokens == 12).all()
    assert len(beside) == 10


OPTIONS = [
    ("acceptance", ([0.9, 0.2, 0.0], [0.9, 0.5, 0.1], [0.9, 0.9, 0.9]), NGRAM, -1),
    ("acceptance", (0.2, 0.6, 0.95), NGRAM, -1),
    ("match", (0.1, 0.5, 1.0), NGRAM, -1),
    ("lookup_time", ("0 s", "1 ms", "4 ms"), NGRAM, 1),
    ("tokens", (1, 2, 3), {**NGRAM, "acceptance": 1.0}, -1),
    ("method", ("ngram", "mtp"), {"tokens": 3, "acceptance": 0.7}, 1),
    ("draft_tp", (4, 1), DRAFT, 1),
    ("model", ("llama-3.1-8b", "llama-3.1-70b"), DRAFT, 1),
]


@pytest.mark.parametrize(("key", "values", "others", "sign"), OPTIONS)
def test_every_option_moves_tpot(run, prompt, key, values, others, sign):
    rows = [(0.05 * i, 600, 120, prompt(i, 600)) for i in range(4)]
    tp = {"profile": "h100-sxm", "tp": 4}
    where = {"model": "llama-3.1-70b", "hardware": tp} if others is DRAFT else {}
    runs = [run(rows, **where, engine={"speculation": {**others, key: value}}) for value in values]
    found = [result.summary["tpot_ms"]["mean"] for result in runs]
    assert found == sorted(set(found), reverse=sign < 0)


# ---- refusals


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"engine": {**engine(tokens=0)}}, "tokens"),
        ({"engine": {**engine(acceptance=1.5)}}, "acceptance"),
        ({"engine": {**engine(acceptance=[0.5, 0.5])}}, "acceptance"),
        ({"engine": {**engine(method="mtp")}}, "lookup_time"),
        ({"engine": {"speculation": {"method": "draft", "tokens": 2, "acceptance": 0.5}}}, "model"),
        ({"engine": {**engine(), "scheduling": "static", "prefix_caching": False}}, "scheduling"),
        ({"engine": {**engine(), "framework": "hf_concat"}}, "framework"),
        ({"engine": {**engine(), "max_num_seqs": 256, "max_num_batched_tokens": 512}}, "max_num_batched_tokens"),
        ({"engine": {**engine(), "kind": "sglang", "mixed_chunk": True}}, "mixed_chunk"),
        ({"engine": {**engine(), "l2_prefetch": "2 MiB"}}, "l2_prefetch"),
        ({"engine": engine(), "hardware": {"profile": "h100-sxm", "pp": 2}}, "pipeline"),
        ({"engine": engine(), "policies": {"architecture": "cla"}}, "architecture"),
        (
            {"engine": {**engine(), "prefix_caching": False}, "policies": {"retention": "streaming_llm"}},
            "policies.retention",
        ),
        (
            {"engine": {"speculation": {"method": "draft", "model": "qwen3-8b", "tokens": 2, "acceptance": 0.5}}},
            "vocabulary",
        ),
        (
            {
                "engine": {
                    "speculation": {
                        "method": "draft",
                        "model": "llama-3.1-8b",
                        "tokens": 2,
                        "acceptance": 0.5,
                        "draft_tp": 2,
                    }
                }
            },
            "draft_tp",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(run, prompt, sections, said):
    with pytest.raises(InputError, match=said):
        run([(0, 100, 5, prompt(0, 100))], **sections)


@pytest.mark.parametrize(
    ("acceptance", "said"),
    [
        (1.5, r"engine\.speculation\.acceptance: found 1\.5"),
        (True, r"engine\.speculation\.acceptance: found True"),
    ],
)
def test_a_wrong_chance_is_told_by_its_key_alone(run, prompt, acceptance, said):
    with pytest.raises(InputError, match=said):
        run([(0, 100, 5, prompt(0, 100))], engine=engine(acceptance=acceptance))


def test_experts_of_a_dense_model_are_not_shared_out(run, prompt):
    """vLLM refuses it too: nothing would change."""
    hardware = {"profile": "h100-sxm", "tp": 4, "expert_parallel": True}
    with pytest.raises(InputError, match=r"hardware\.expert_parallel: .* has no experts"):
        run([(0, 100, 5, prompt(0, 100))], hardware=hardware)
    with pytest.raises(InputError, match=r"engine\.expert_skew: .* has no experts"):
        run([(0, 100, 5, prompt(0, 100))], engine={"expert_skew": 1.0})


def test_engines_settle_how_many_sequences_run(scenario, prompt):
    rows = [(0, 100, 5, prompt(0, 100))]
    seqs = {}
    for kind in ("vllm", "sglang", "tensorrt_llm"):
        spec = scenario(rows, engine={"kind": kind, **engine()}).spec
        seqs[kind] = spec.engine.max_num_seqs
    assert seqs == {"vllm": 256, "sglang": 48, "tensorrt_llm": 2048}
