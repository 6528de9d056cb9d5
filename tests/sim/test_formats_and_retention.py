"""Formats and retention in the engine: steps, memory, limits and strides."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario

PROMPT, OUTPUT, BATCH = 3000, 120, 6
MODEL_LENGTH = 131_072
Policies = Any


def run(
    policies: Policies = None,
    *,
    prompt: int = PROMPT,
    single_step: bool = False,
    framework: str = "vllm_paged",
    capacity: str | None = None,
) -> Result:
    """A batch of equal sequences, all sent at once."""
    clients = {"clients": BATCH, "conversations": 1, "rounds": 1, "block_tokens": 512}
    document: dict[str, Any] = {
        "schema": "kvsim-scenario/1",
        "trace": {"clients": {**clients, "first_input_tokens": prompt, "output_tokens": OUTPUT}},
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "engine": {"prefix_caching": False, "framework": framework},
    }
    if framework == "vllm_paged":
        document["engine"]["max_num_batched_tokens"] = 32_768
    if capacity is not None:
        document["tiers"] = [{"name": "hbm", "capacity": capacity}]
    if policies is not None:
        document["policies"] = policies
    return simulate(Scenario.from_dict(document), single_step=single_step, check=True)


@cache
def full() -> Result:
    """The full cache."""
    return run()


def token_bytes() -> int:
    return int(full().summary["hardware"]["kv_bytes_per_token"])


def step_ms(result: Result) -> float:
    """Time per token of a sequence that decodes beside the others."""
    return float(result.summary["tpot_ms"]["mean"])


def peak(result: Result) -> float:
    """Bytes of KV and what is beside it, at their most."""
    return float(result.summary["tiers"]["hbm"]["peak_bytes"])


def ends(result: Result) -> list[tuple[float, float]]:
    rows = result.tables["requests"].to_pandas()
    return list(zip(rows.first_token_s, rows.finish_s, strict=True))


FORMATS: list[Policies] = ["fp8", "int8", "int4", "kivi", "quarot", "zipcache", "think"]
RETENTION: list[dict[str, Any]] = [
    {"name": "h2o", "heavy": 0.1, "recent": 0.1},
    {"name": "h2o", "heavy": 200, "recent": 200},
    {"name": "streaming_llm", "window": 500},
    {"name": "snapkv", "budget": 500},
    {"name": "less", "heavy": 100, "recent": 100},
    {"name": "less", "heavy": 100, "recent": 100, "sparse": "lambda"},
    {"name": "elastic", "budget": 0.2, "call": "0 s"},
]
LABELS = ["h2o, shares", "h2o, tokens", "streaming_llm", "snapkv", "less", "less, lambda", "elastic"]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_smaller_and_read_faster(name: str) -> None:
    ours = run({"kv_format": name})
    late = ("think", "zipcache")  # they need the whole prompt first, and its KV stays until then
    assert peak(ours) < (1.001 if name in late else 0.6) * peak(full())
    assert (step_ms(ours) < step_ms(full())) == (name != "quarot")  # see the test of its rotations


@pytest.mark.parametrize("policy", RETENTION, ids=LABELS)
def test_less_kept_is_read_faster(policy: dict[str, Any]) -> None:
    ours = run({"retention": policy})
    assert step_ms(ours) < step_ms(full())
    assert peak(ours) <= 1.03 * peak(full())  # in the prompt all is there, and LESS's state, and H2O's sums


@pytest.mark.parametrize(
    "policies",
    [
        {"kv_format": ["think", {"name": "kivi", "residual": 32}], "retention": RETENTION[1]},
        {"kv_format": "kivi", "retention": RETENTION[0]},
        {"kv_format": "zipcache", "retention": RETENTION[3]},
        {"kv_format": "quarot", "retention": RETENTION[6]},
        {"kv_format": {"name": "int4", "fused": False}, "retention": RETENTION[4]},
        {"retention": {"name": "scissorhands", "budget": 3050}},  # reached while decoding
        {"retention": "corm", "kv_format": "kvcomp"},
        {"retention": {"name": "snapstream", "selected": 500, "ring": 2550}},
        {"retention": {"name": "bct", "capacity": 3050}},
        {"retention": {"name": "lacache", "budget": 3050}},
        {"retention": {"name": "baklava", "weights": [2, 1], "head_weights": [1, 2], "storage": "layers"}},
        {"selection": {"name": "zipvl", "others": "pack"}},
    ],
    ids=[
        "think kivi h2o",
        "kivi h2o of the prompt",
        "zipcache snapkv",
        "quarot elastic",
        "int4 less",
        "scissorhands",
        "kvcomp corm",
        "snapstream",
        "bct",
        "lacache",
        "baklava",
        "zipvl",
    ],
)
def test_strides_and_single_steps_are_the_same(policies: Policies) -> None:
    assert ends(run(policies)) == ends(run(policies, single_step=True))


@pytest.mark.parametrize(
    "policy",
    [
        {"name": "h2o", "heavy": MODEL_LENGTH, "recent": 0},
        {"name": "streaming_llm", "window": MODEL_LENGTH},
        {"name": "snapkv", "budget": MODEL_LENGTH},
        {"name": "less", "heavy": 0.5, "recent": 0.5},
        {"name": "elastic", "budget": 1.0},
        {"name": "scissorhands", "budget": MODEL_LENGTH},
        {"name": "corm", "recent": MODEL_LENGTH},
        {"name": "snapstream", "ring": MODEL_LENGTH},
        {"name": "bct", "capacity": MODEL_LENGTH},
        {"name": "lacache", "budget": MODEL_LENGTH},
        {"name": "kvcrush", "budget": MODEL_LENGTH},
        {"name": "xkv", "budget": MODEL_LENGTH},
        {"name": "zigzagkv", "budget": MODEL_LENGTH},
        {"name": "baklava", "budget": MODEL_LENGTH},
        {"name": "audiokv", "budget": MODEL_LENGTH},
        {"name": "none"},
    ],
    ids=lambda p: p["name"],
)
def test_a_budget_of_the_longest_sequence_is_the_full_cache(policy: dict[str, Any]) -> None:
    assert ends(run({"retention": policy})) == ends(full())


@pytest.mark.parametrize("policy", [{"name": "kivi", "bits": 16}, {"name": "think", "ratio": 0.0}, {"name": "none"}])
def test_a_format_that_changes_nothing_is_the_full_cache(policy: dict[str, Any]) -> None:
    assert ends(run({"kv_format": [policy]})) == ends(full())


def test_scores_of_a_prompt_cost_time_to_its_first_token() -> None:
    def ttft(policies: Policies) -> float:
        return float(run(policies).summary["ttft_ms"]["mean"])

    plain, window, all_of_it = (ttft(p) for p in (None, {"retention": RETENTION[3]}, {"retention": RETENTION[1]}))
    assert plain < window < all_of_it
    few, many = (ttft({"kv_format": {"name": "zipcache", "probes": share}}) for share in (0.05, 0.5))
    assert few < many
    slow, quick = (ttft({"retention": {"name": "elastic", "call": call}}) for call in ("10 us", "0 s"))
    looped = PROMPT * BATCH * 32 * (4 * 0.8 + 3 / 32) * 10e-6  # a Python loop over dropped tokens, layers and sequences
    assert 0.4 * looped < (slow - quick) / 1e3 <= 1.001 * looped  # the mean over sequences that wait for one another


def test_options_of_kernels_move_the_steps() -> None:
    def step(name: str, **options: Any) -> float:
        return step_ms(run({"kv_format": {"name": name, **options}}))

    for name in ("fp8", "int8", "int4", "kivi", "quarot", "zipcache"):
        assert step(name, efficiency=0.5) > step(name, efficiency=0.9)
    assert step("int4", fused=False) > step("int4")
    assert step("zipcache", fused=False) > step("zipcache")
    assert step("zipcache", fused=False, gap=10) > step("zipcache", fused=False, gap=100)
    assert step("kivi", residual=2048) > step("kivi", residual=32)
    assert step("kivi", bits=4) > step("kivi")
    assert step("kivi", group=8) > step("kivi", group=128)
    assert step("think", ratio=0.2) > step("think", ratio=0.6)
    assert step("think", window=2000) > step("think", window=32)
    eager = step_ms(run({"retention": {"name": "streaming_llm", "window": 500, "fused_rope": False}}))
    assert eager > step_ms(run({"retention": RETENTION[2]}))
    copied = step_ms(run({"retention": RETENTION[6]}))
    assert copied > step_ms(run({"retention": {**RETENTION[6], "drop": "in_place"}}))


def test_rotations_pay_where_there_is_much_to_read() -> None:
    """QuaRot's table 15: 4-bit KV is slower than 16-bit in small batches."""
    quarot = {"kv_format": "quarot"}
    assert step_ms(run(quarot)) > step_ms(full())
    assert step_ms(run(quarot, prompt=20_000)) < 0.95 * step_ms(run(prompt=20_000))


def test_latents_in_fewer_bits_are_not_attended_sooner_where_arithmetic_bounds_it() -> None:
    """On an H20 the heads of a rank take longer to score a latent than to read it; on an H200 they do not."""

    def attention(profile: str, policies: Policies) -> float:
        clients = {"clients": 1, "conversations": 1, "rounds": 1, "block_tokens": 512}
        document: dict[str, Any] = {
            "schema": "kvsim-scenario/1",
            "trace": {"clients": {**clients, "first_input_tokens": 15_000, "output_tokens": 20}},
            "model": "deepseek-v3",
            "hardware": {"profile": profile, "tp": 8, "gpus_per_node": 8},
            "engine": {"prefix_caching": False},
            "policies": policies,
        }
        rows = simulate(Scenario.from_dict(document), check=True).tables["steps"].to_pandas()
        return float(rows[rows.prefill_seqs == 0].attention_s.sum())

    plain, packed, small = {"kv_format": "none"}, {"kv_format": "int4"}, {"kv_format": "fp8"}
    assert attention("h20", packed) == attention("h20", small) == attention("h20", plain)
    assert attention("h200", packed) < attention("h200", small) < attention("h200", plain)


def test_more_fits_where_less_is_kept() -> None:
    """A pool that holds two sequences whole runs them in turn; with KIVI all run at once."""
    pool = f"{int(2.2 * (PROMPT + OUTPUT) * token_bytes())} B"
    plain, kivi = (run(policies, capacity=pool) for policies in (None, {"kv_format": "kivi"}))
    assert kivi.summary["duration_s"] < 0.7 * plain.summary["duration_s"]


def test_prompts_in_one_piece_never_hold_what_layers_drop() -> None:
    """Hugging Face's eager mode: layer after layer packs or drops, before the next one has its KV."""
    kept = {"name": "h2o", "heavy": 200, "recent": 200}
    plain, ours = (peak(run(p, framework="hf_concat")) for p in (None, {"retention": kept}))
    assert plain - ours > 0.5 * BATCH * (PROMPT + OUTPUT) * token_bytes()
