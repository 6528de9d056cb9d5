"""Step times of each kind of layer against arithmetic on the numbers of the profile's YAML and of config.json."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.kernel_reader import KernelNotes
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from hw_profiles.schema import overridden
from sim.cost.layer import pairs
from sim.cost.step import Attended, StepCost

BASIC = ("gemm_bf16", "decode_attn", "prefill_attn", "launch")


def basic(profile):
    """The profile with the kernels that every profile has, and nothing but their formulas."""
    entries = {
        path: value
        for path, value in profile.entries.items()
        if not path.startswith("peaks.") and (not path.startswith("kernels.") or path.split(".")[1] in BASIC)
    }
    return replace(profile, entries=entries, kernels=KernelNotes({}, {}, {}))


H100 = basic(load_profile(Path(__file__).parent / "closed_form.yaml"))


def cost(model, **options):
    return StepCost(load_model(model), H100, **options)


def product(hand, rows, n, k, weight_bytes=None, weights=1.0):
    """One matrix product in bf16, or with a weight of its own size, or with several of them (experts)."""
    t0, bandwidth, flops, p = hand.group("kernels.gemm_bf16", "t0", "bandwidth", "flops", "p")
    nbytes = weights * (2 * n * k if weight_bytes is None else weight_bytes) + 2 * rows * (n + k)
    return t0 + ((nbytes / bandwidth) ** p + (2 * rows * n * k / flops) ** p) ** (1 / p)


def small(hand, kernels, tokens, values):
    """Small kernels between the products, which move `values` bf16 values per token."""
    return kernels * hand.value("kernels.launch.graph") + 2 * tokens * values / hand.value("tiers.hbm.read")


def decode(hand, seqs, nbytes, kv_heads=8):
    floor, t0, per_seq, rate = hand.group("kernels.decode_attn", "floor", "t0", "per_seq", "bandwidth")
    return max(floor, t0 + per_seq * seqs * kv_heads / 8 + nbytes / rate)


def prefill(hand, tokens, flops, heads=32):
    t0, per_token, rate = hand.group("kernels.prefill_attn", "t0", "per_token", "flops")
    return t0 + per_token * heads / 32 * tokens + flops / rate


def uniform(experts, top_k, tokens):
    return experts * (1 - (1 - top_k / experts) ** tokens)


# ---- one model of each kind


def test_mha_with_a_plain_mlp(hand):
    """OPT-6.7B: 32 layers, 4096 wide, 32 heads of 128 with as many for KV, an MLP of 16384 without a gate."""
    tokens = 48
    layer = sum(product(hand, tokens, n, k) for n, k in [(12288, 4096), (4096, 4096), (16384, 4096), (4096, 16384)])
    # two norms (4 hidden each), the cache write (2 x 8192), the activation (in and out); no rotary embedding
    layer += small(hand, 4, tokens, 8 * 4096 + 2 * 8192 + 2 * 16384)
    head = product(hand, 5, 50272, 4096)  # tied to the embedding, and still one product
    head += 5 * 50272 * 6 / hand.value("tiers.hbm.read") + 4 * hand.value("kernels.launch.stream")  # sampling
    opt = cost("opt-6.7b")
    assert opt.linear(tokens, 5) == pytest.approx(32 * layer + head, rel=1e-12)
    assert opt.decode(48, 48_000) == pytest.approx(32 * decode(hand, 48, 48_000 * 2 * 4096 * 2, 32), rel=1e-12)
    assert opt.prefill([(100, 7)]) == pytest.approx(32 * prefill(hand, 100, 4 * 4096 * (700 + 5000)), rel=1e-12)


def test_sliding_window(hand):
    """Mistral-7B: every layer sees 4096 tokens; 8 KV heads of 128 leave 4096 bytes a token and layer."""
    mistral = cost("mistral-7b")
    assert mistral.windows == (4096,)
    contexts = [100, 4096, 5000, 30_000]
    seen = [100, 4096, 4096, 4096]
    windowed = [Attended(sum(seen), 1)]
    assert mistral.decode(4, sum(contexts), windowed=windowed) == pytest.approx(
        32 * decode(hand, 4, sum(seen) * 4096), rel=1e-12
    )
    # 1000 new tokens after 4000: the first 96 see one more each, the others 4096
    pairs = 96 * 4000 + 96**2 / 2 + 904 * 4096
    assert mistral.prefill([(1000, 4000)]) == pytest.approx(32 * prefill(hand, 1000, 4 * 4096 * pairs), rel=1e-12)
    assert mistral.prefill([(1000, 9000)]) == pytest.approx(32 * prefill(hand, 1000, 4 * 4096 * 4096e3), rel=1e-12)
    assert mistral.prefill([(1000, 3000)]) == cost("mistral-7b-v0.3").prefill([(1000, 3000)])  # all inside the window


def test_windows_in_some_layers(hand):
    """gpt-oss-120b: 36 layers, 18 of which slide over 128 tokens; 8 KV heads of 64."""
    gpt = cost("gpt-oss-120b")
    attention = 18 * decode(hand, 2, 9000 * 2048) + 18 * decode(hand, 2, 256 * 2048)
    assert gpt.decode(2, 9000, windowed=[Attended(256, 0)]) == pytest.approx(attention, rel=1e-12)


def test_experts(hand):
    """Mixtral-8x7B: 8 experts of 3 x 14336 x 4096, two per token."""
    tokens = 5
    mixtral, layer = cost("mixtral-8x7b"), 0.0
    for n, k in [(6144, 4096), (4096, 4096), (8, 4096)]:
        layer += product(hand, tokens, n, k)
    touched = uniform(8, 2, tokens)
    assert 6 < touched < 8
    layer += product(hand, 2 * tokens, 28672, 4096, weights=touched)
    layer += product(hand, 2 * tokens, 4096, 14336, weights=touched)
    # as in a dense layer, but for the logits (fp32, in and out), both experts' activations and the sum of their outputs
    values = 8 * 4096 + 2 * (4096 + 1024) + 2 * 2048 + 2 * 2 * 8 + 3 * 2 * 14336 + 3 * 4096
    layer += small(hand, 7, tokens, values)
    assert mixtral.linear(tokens, 0) == pytest.approx(32 * layer, rel=1e-12)


def test_measured_experts_are_one_kernel(hand):
    """With a fit of fused experts: its numbers for both products, activation and sum; the router stays."""
    fit = {"t0": 20e-6, "bandwidth": 2.5e12, "flops": 600e12, "p": 2.0}
    values = {f"kernels.moe_bf16.{key}": overridden(f"kernels.moe_bf16.{key}", v, "test") for key, v in fit.items()}
    measured = replace(H100, entries={**H100.entries, **values})
    tokens = 5
    layer = sum(product(hand, tokens, n, k) for n, k in [(6144, 4096), (4096, 4096), (8, 4096)])
    weights = uniform(8, 2, tokens) * 3 * 14336 * 4096 * 2
    moved = 2 * tokens * ((4096 + 28672) + (14336 + 4096)) * 2
    flops = 2 * tokens * 6 * 14336 * 4096
    layer += 20e-6 + (((weights + moved) / 2.5e12) ** 2 + (flops / 600e12) ** 2) ** 0.5
    layer += small(hand, 5, tokens, 8 * 4096 + 2 * (4096 + 1024) + 2 * 2048 + 2 * 2 * 8)
    found = StepCost(load_model("mixtral-8x7b"), measured)
    assert found.linear(tokens, 0) == pytest.approx(32 * layer, rel=1e-12)
    assert "kernels.moe_bf16.t0" in found.kernels.values


def test_latent_attention(hand):
    """DeepSeek-V3: 61 layers of 128 heads over a latent of 512 + 64; three dense layers, 58 of 256 experts."""
    deepseek = cost("deepseek-v3")
    rate = hand.value("kernels.decode_attn.bandwidth")
    flops = 0.85 * hand.value("kernels.prefill_attn.flops")
    reading, arithmetic = 576 * 2, 2 * 128 * (2 * 512 + 64) * rate / flops
    assert arithmetic > reading  # 242 FLOP per byte is more than this GPU does
    assert deepseek.decode(16, 64_000) == pytest.approx(61 * decode(hand, 16, 64_000 * arithmetic), rel=1e-12)
    # prefill expands the latents of the prefix into 128 heads of 128 + 128, and scores heads of 192 and 128
    chunk = prefill(hand, 500, 2 * 128 * (192 + 128) * (500 * 3000 + 500**2 / 2), heads=128)
    t0, bandwidth, rate, p = hand.group("kernels.gemm_bf16", "t0", "bandwidth", "flops", "p")
    nbytes = 32768 * 512 + 4 * 256 * 4 + 3000 * 2 * (512 + 32768)  # fp8 with a scale per 128 x 128, unpacked
    expand = t0 + ((nbytes / bandwidth) ** p + (2 * 3000 * 32768 * 512 / rate) ** p) ** (1 / p)
    assert deepseek.prefill([(500, 3000)]) == pytest.approx(61 * (chunk + expand), rel=1e-12)
    assert deepseek.prefill([(500, 0)]) == pytest.approx(
        61 * prefill(hand, 500, 256 * 320 * 500**2 / 2, 128), rel=1e-12
    )


@given(window=st.none() | st.integers(1, 5000), chunks=st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_chunks_see_what_the_whole_prompt_sees(window, chunks):
    parts = sum(pairs(n, sum(chunks[:i]), window) for i, n in enumerate(chunks))
    assert parts == pytest.approx(pairs(sum(chunks), 0, window), rel=1e-12)
    # the integral of what each token sees: half a pair per token less than when they are counted one by one
    tokens = range(1, sum(chunks) + 1)
    counted = sum(n if window is None else min(n, window) for n in tokens)
    assert abs(parts - counted) <= sum(chunks) / 2


# ---- inside the engine


def test_steps_of_a_run_cross_the_window(run, hand, prompt):
    """One request: 4000 tokens in, 300 out, Mistral-7B; from the 97th step on it attends 4096."""
    result = run([(0, 4000, 300, prompt(0, 4000))], model="mistral-7b")
    steps = result.frames["steps"].iloc[1:]
    assert list(steps["count"]) == [95, 204]  # the stride ends where the window is full
    seen = [min(4000 + j, 4096) for j in range(1, 300)]
    expected = [32 * decode(hand, 1, tokens * 4096) for tokens in seen]
    assert list(steps.attention_s) == pytest.approx([sum(expected[:95]), sum(expected[95:])], rel=1e-12)


@pytest.mark.parametrize("model", ["mistral-7b", "gpt-oss-120b"])
def test_strides_are_single_steps_with_windows(run, prompt, model):
    rows = [(0.05 * i, 60 + 700 * (i % 7), 40 + 90 * (i % 4), prompt(i, 60 + 700 * (i % 7))) for i in range(24)]
    # little memory, so that sequences are preempted and come back
    strides, singles = (run(rows, blocks=900, model=model, single_step=s) for s in (False, True))
    assert strides.summary["preemptions"] > 0
    assert strides.frames["requests"].equals(singles.frames["requests"])
    assert strides.frames["steps"]["count"].max() > 1


# ---- what must move what


def test_a_window_caps_decode_time():
    slides, sees_all = cost("mistral-7b"), cost("mistral-7b-v0.3")
    times = [slides.decode(8, 8 * n, windowed=[Attended(8 * min(n, 4096), 0)]) for n in (2048, 4096, 8192, 32768)]
    everything = [sees_all.decode(8, 8 * n) for n in (2048, 4096, 8192, 32768)]
    assert times[:2] == everything[:2]
    assert times[1] == times[2] == times[3] < everything[2] < everything[3]


@pytest.mark.parametrize("model", ["mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-120b"])
def test_decode_time_grows_with_the_batch_until_all_experts_are_touched(model):
    """Up to there each new token brings new experts; from there on only its own rows, as in a dense layer."""
    moe = cost(model)
    few, some = moe.linear(1, 1), moe.linear(16, 16)
    many, more = moe.linear(512, 512), moe.linear(528, 528)
    assert some > 1.9 * few
    assert 0 < more - many < 0.02 * (some - few)


def test_popular_experts_leave_others_unread():
    uniform, skewed = cost("qwen3-30b-a3b"), cost("qwen3-30b-a3b", expert_skew=1.0)
    assert skewed.linear(1, 1) == pytest.approx(uniform.linear(1, 1), rel=1e-12)  # one token reads eight, either way
    assert skewed.linear(16, 16) < 0.95 * uniform.linear(16, 16)
    assert skewed.linear(100_000, 0) == pytest.approx(uniform.linear(100_000, 0), rel=1e-3)


def test_formats_of_weights_and_cache():
    model = load_model("llama-3.1-8b")
    plain = StepCost(model, H100)
    small = StepCost(model.with_dtypes(weights="int4"), H100)
    assert small.linear(1, 1) < 0.4 * plain.linear(1, 1)
    assert StepCost(model.with_dtypes(kv="fp8"), H100).decode(64, 2_000_000) < 0.55 * plain.decode(64, 2_000_000)
