"""What transformed models cost: reads as before, memory and copies less, prompts once, nine times, or not at all."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.cadence import EVERY_TOKEN, Cadence
from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, upto
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from policies.architecture.base import layers_of
from policies.architecture.cross_layer import PARTITIONS, POSITIONS
from policies.sequence.plan import LayerPlan, SequencePlan
from policies.tables import ARCHITECTURE
from sim.cost.framework import FRAMEWORKS, framework_footprint, framework_plan, max_batch
from sim.cost.kv import hybrid_layout, kv_layout
from sim.cost.layer import LayerCost
from sim.cost.memory import LOGIT_BYTES, Limits, hbm_budget
from sim.cost.parallel import Exchange, Parallel
from sim.cost.planned import PlannedStep
from sim.cost.stage import Attended
from sim.cost.step import StepCost
from sim.sequence import plan_sequence

H100 = load_profile("h100-sxm")
ONE = Parallel()
LLAMA = load_model("llama-2-7b")


def changed(name, model=LLAMA, **options):
    return ARCHITECTURE[name](**options).apply(model)


def layer_costs(model):
    """Cost of every layer, in order of depth."""
    kernels = StepCost(model, H100).kernels
    return [LayerCost(1, layer, kernels) for layer in layers_of(model)]


def blocks(model, max_seqs=256):
    limits = Limits(block_tokens=16, utilization=0.9, max_tokens=8192, max_seqs=max_seqs)
    return hbm_budget(model, H100, ONE, limits).blocks


# ---- when a layer runs


@pytest.mark.parametrize(
    ("cadence", "step", "expected"),
    [
        (EVERY_TOKEN, (40, 8, 32), ((1, 40),)),
        (Cadence(passes=9), (8, 8, 0), ((1, 8),)),
        (Cadence(passes=9), (40, 9, 32), ((1, 40), (8, 32))),
        (Cadence(period=4), (8, 8, 0), ((0.25, 8),)),
        (Cadence(period=4), (40, 8, 32), ((0.25, 16), (0.75, 8))),
        (Cadence(period=4), (33, 1, 33), ((1, 9),)),
        (Cadence(skips_prompt=True), (8, 8, 0), ((1, 8),)),
        (Cadence(skips_prompt=True), (40, 8, 32), ((1, 8),)),
        (Cadence(skips_prompt=True), (40, 9, 32), ((1, 9),)),  # the prompt ends and its first token is sampled
        (Cadence(skips_prompt=True), (32, 0, 32), ()),
        (Cadence(skips_prompt=True, rows=1.25), (8, 6, 0), ((1, 10),)),
    ],
)
def test_runs(cadence, step, expected):
    """(times, rows) in a step of (tokens, sampled, of prompts)."""
    assert cadence.runs(*step) == expected


# ---- layers that share


@pytest.mark.parametrize("name", ["cla", "lckv"])
def test_decode_attention_reads_as_much_as_before(name):
    """Eight sequences of 4,000 tokens: the same bytes by as many kernels; no keys and values to project or write."""
    model = changed(name)
    one, other = StepCost(LLAMA, H100), StepCost(model, H100)
    assert other.decode(8, 32_000) == pytest.approx(one.decode(8, 32_000), rel=1e-12)
    own, reads = layer_costs(model)[0], layer_costs(model)[1]
    assert own.linear(8) - reads.linear(8) > 0
    readers = sum(not layer.stores for layer in layers_of(model))
    saved = readers * (own.linear(8) - reads.linear(8))
    assert one.linear(8, 8) - other.linear(8, 8) == pytest.approx(saved, rel=1e-9)


def test_a_layer_that_reads_launches_one_kernel_less():
    own, reads = layers_of(changed("cla"))[:2]
    assert [gemm.name for gemm in own.gemms] == ["qkv", "o", "gate_up", "down"]
    assert [gemm.name for gemm in reads.gemms] == ["q", "o", "gate_up", "down"]
    assert own.kernels == reads.kernels + 1
    assert "cache_write" not in dict(reads.elementwise)
    assert reads.kv_bytes_per_token == 0 < reads.entry_bytes == own.kv_bytes_per_token


@pytest.mark.parametrize(
    ("name", "options", "times"), [("cla", {"share": 2}, 2), ("cla", {"share": 4}, 4), ("mqa", {}, 32)]
)
def test_blocks_grow_as_tokens_shrink(name, options, times):
    """Weights that are gone make room too."""
    model = changed(name, **options)
    spare = (LLAMA.weight_bytes - model.weight_bytes) // (16 * model.kv_bytes_per_token)
    assert blocks(model) == pytest.approx(times * blocks(LLAMA) + spare, abs=times + 1)


def test_passes_multiply_the_layers_of_the_cycle():
    """Of a prompt of 512 tokens after 64: each of the 30 layers between costs eight times its own time more."""
    once, nine = changed("lckv", passes=1), changed("lckv", passes=9)
    costs = layer_costs(once)
    between = sum(cost.linear(512) + cost.prefill([(512, 64)]) for cost in costs[1:31])
    added = StepCost(nine, H100).recompute_s(512, 64) - StepCost(once, H100).recompute_s(512, 64)
    assert added == pytest.approx(8 * between, rel=1e-9)
    assert (
        StepCost(nine, H100).decode_steps(4, 4000, (), 1).seconds
        == StepCost(once, H100).decode_steps(4, 4000, (), 1).seconds
    )


def test_mixed_steps_iterate_over_the_prompt_alone():
    """Eight decoding sequences beside a chunk of 256: the passes after the first are over 256 rows."""
    once, nine = (StepCost(changed("lckv", passes=n), H100) for n in (1, 9))
    step = (8, 8000, (), [(256, 0)], 264, 9)
    costs = layer_costs(changed("lckv", passes=1))[1:31]
    linear = 8 * sum(cost.linear(256) for cost in costs)
    assert nine.mixed_step(*step).linear - once.mixed_step(*step).linear == pytest.approx(linear, rel=1e-9)


def test_prompts_are_slower_only_where_layers_read_from_above():
    whole = StepCost(LLAMA, H100)
    for partition in PARTITIONS:
        for position in POSITIONS:
            model = changed("cross_layer", partition=partition, position=position, kv_layers=16)
            cost = StepCost(model, H100)
            assert cost.decode_steps(16, 64_000, (), 1).seconds < whole.decode_steps(16, 64_000, (), 1).seconds
            slower = cost.recompute_s(2048, 0) > whole.recompute_s(2048, 0)
            assert slower == (position != "bottom"), (partition, position)


# ---- blocks of tokens


def test_block_decoder_runs_once_a_block():
    """A decode step of 64 sequences: a quarter of the block decoder's time over n / 4 entries, the token decoder's."""
    whole = load_model("pythia-410m")
    model = changed("block_transformer", whole)
    kinds = [LayerCost(count, layer, StepCost(model, H100).kernels) for count, layer in model.layer_kinds()]
    block, token = kinds
    assert block.decode_bytes == token.decode_bytes / 4
    cost = StepCost(model, H100)
    assert cost.windows == (6,)
    local = Attended(64 * 6, 0)
    times = cost.decode_steps(64, 64 * 2000, [local], 1)
    attention = 12 * block.decode_model.at_batch(64).seconds(64 * 2000 / 4 * token.decode_bytes) / 4
    assert times.attention == pytest.approx(attention + 12 * token.decode(64, 64 * 6), rel=1e-9)
    head = cost.linear(64, 64) - 12 * block.linear(64) / 4 - 12 * token.linear(80)
    assert head == pytest.approx(StepCost(whole, H100).linear(64, 64) - 24 * token.linear(64), rel=1e-9)


def test_ranks_exchange_what_runs():
    """Two all-reduces of each layer that runs, of its rows; the embedding's of every token."""
    two = Parallel(tp=2)
    model = changed("block_transformer", load_model("pythia-410m"))
    cost = StepCost(model, H100, parallel=two)
    reduce = Exchange(cost.kernels, two).all_reduce
    row, logits = 1024 * 2, 50_304 * 2

    def expected(block, token, embedded, sampled):
        runs = sum(times * 2 * 12 * reduce(rows * row) for times, rows in (*block, *token))
        return runs + reduce(embedded * row) + Exchange(cost.kernels, two).gather(sampled * logits)

    assert cost.exchange(64, 64) == pytest.approx(expected([(0.25, 64)], [(1, 80)], 64, 64), rel=1e-9)
    mixed = cost.mixed_step(64, 64_000, [Attended(384, 0)], [(512, 0)], 576, 65)
    whole = expected([(0.25, 64 + 128), (0.75, 128)], [(1, 82)], 576, 65)
    assert mixed.exchange == pytest.approx(whole, rel=1e-9)


def test_the_token_decoder_skips_the_prompt():
    """2,048 tokens: the block decoder's twelve layers over 512 entries."""
    whole = load_model("pythia-410m")
    model = changed("block_transformer", whole)
    block, plain = layer_costs(model)[0], layer_costs(whole)[0]
    expected = 12 * (block.linear(512) + plain.prefill([(512, 0)]))
    assert StepCost(model, H100).recompute_s(2048, 0) == pytest.approx(expected, rel=1e-9)


def test_memory_of_a_block_transformer():
    whole = load_model("pythia-1.4b")
    model = changed("block_transformer", whole)
    (share,) = kv_layout(model, ONE).shares
    assert share.token_bytes == 12 * 2 * 2048 * 2 // 4
    assert share.layers == 12
    assert share.scratch == 12 * 6 * 2 * 2048 * 2
    assert hybrid_layout(model, ONE) is None
    fewer = blocks(model, 256) - blocks(model, 512)
    logits = 256 * model.vocab * 6
    assert fewer == pytest.approx((256 * share.scratch + logits) / (16 * share.token_bytes), abs=1)


def test_yoco_keeps_windows_apart():
    model = changed("yoco", window=256)
    (share,) = hybrid_layout(model, ONE).shares
    assert share.token_bytes == 16384
    assert share.windows == ((256, 16 * 16384),)
    assert StepCost(model, H100).recompute_s(8192, 0) < 0.62 * StepCost(LLAMA, H100).recompute_s(8192, 0)


# ---- frameworks and policies within a sequence


def planned(model, *, change=None):
    """Steps of a cache that is concatenated, of layers whose plan is otherwise `change`."""
    framework = replace(FRAMEWORKS["hf_concat"], attention_rate=1.0)
    layers = []
    for layer in layers_of(model):
        plan = LayerPlan(attended=CONTEXT if layer.window is None else upto(layer.window))
        layers.append(framework_plan(framework, change or plan, layer.kv_bytes_per_token))
    plan = SequencePlan(tuple(layers))
    return PlannedStep(model, H100, plan=plan, copy=H100.links, parallel=ONE, graphs=False, eager_launch_s=0.0)


@pytest.mark.parametrize(("name", "options", "share"), [("cla", {}, 2), ("lckv", {"warmup": 3}, 8), ("mqa", {}, 32)])
def test_only_what_is_stored_is_concatenated(name, options, share):
    """Read and written once more: twice the KV of the layers that have one."""
    model = changed(name, **options)
    times = planned(model).decode_steps(8, 32_000, (), 1)
    assert times.works == pytest.approx(2 * 32_000 * LLAMA.kv_bytes_per_token / share / H100.hbm_bandwidth, rel=1e-9)
    assert times.attention == pytest.approx(StepCost(model, H100, graphs=False).decode(8, 32_000), rel=1e-9)


def test_a_block_decoder_concatenates_once_a_block():
    """A quarter of the steps copy n / 4 entries of half of the layers."""
    whole = load_model("pythia-410m")
    cost = planned(changed("block_transformer", whole))
    windowed = [Attended(64 * (window if window == 6 else 2000), 0) for window in cost.windows]
    times = cost.decode_steps(64, 64 * 2000, windowed, 1)
    plain = StepCost(changed("block_transformer", whole), H100, graphs=False, eager_launch_s=0.0)
    expected = 2 * 64 * 2000 * (whole.kv_bytes_per_token / 2 / 4) / 4 / H100.hbm_bandwidth
    assert times.works == pytest.approx(expected, rel=1e-9)
    assert times.attention == pytest.approx(plain.decode(64, 64 * 2000, 64, [Attended(64 * 6, 0)]), rel=1e-9)
    assert times.linear == plain.linear(64, 64)
    beside = cost.mixed_step(64, 64 * 2000, windowed, [(512, 0)], 576, 65)
    alone = plain.mixed_step(64, 64 * 2000, [Attended(64 * 6, 0)], [(512, 0)], 576, 65)
    assert beside.attention == pytest.approx(alone.attention, rel=1e-9)
    assert beside.works == pytest.approx(expected, rel=1e-9)


def test_choosing_among_tokens_of_blocks_is_refused():
    with pytest.raises(InputError, match="not all of its layers keep the KV of every token"):
        planned(changed("block_transformer"), change=LayerPlan(kept=upto(512), attended=upto(512)))
    planned(changed("lckv"), change=LayerPlan(kept=upto(512), attended=upto(512)))


def plan_of(scenario, *names):
    """The model and the plans of its layers."""
    made = scenario([], model="llama-2-7b", policies=list(names), engine={"prefix_caching": False})
    model = LLAMA
    if made.spec.policies.architecture is not None:
        model = changed(**made.spec.policies.architecture.model_dump())
    return model, plan_sequence(made, model)


@pytest.mark.parametrize("policy", ["quest", "arkvale", "streaming_llm", "kivi", "host_kv", "h2o"])
def test_policies_act_on_what_is_stored(scenario, policy):
    """Layers that read a cache attend what is kept and chosen there; kernels, copies and metadata are of the others."""
    model, planned = plan_of(scenario, "cla", policy)
    _, alone = plan_of(scenario, policy)
    for i, (source, layer) in enumerate(zip(model.kv_sources, planned.plan.layers, strict=True)):
        stored = planned.plan.layers[source]
        assert (layer.kept, layer.attended, layer.form) == (stored.kept, stored.attended, stored.form)
        if source == i:
            assert layer == alone.plan.layers[i]
        else:
            assert layer.works == layer.moves == layer.prompt_moves == ()
            assert layer.extra.zero
    # in tokens' worth of KV, of which each is half as many bytes
    assert planned.decoding.at(8192, 4096) == pytest.approx(alone.decoding.at(8192, 4096))
    assert planned.host.at(8192, 4096) == pytest.approx(alone.host.at(8192, 4096) / 2)
    assert any("read the KV of another layer" in line for line in planned.plan.assumptions)


def test_weights_are_streamed_for_every_layer(scenario):
    """LCKV with all weights in host memory: all 32 layers load theirs."""
    model, planned = plan_of(scenario, "lckv", {"name": "flexgen", "weights": 1.0, "kv": 0.0})
    loads = [sum(move.fixed for move in layer.moves) for layer in planned.plan.layers]
    assert loads == [layer.weight_bytes for layer in layers_of(model)]
    assert planned.plan.weights_on_host == 1.0


def test_policies_of_tokens_in_a_block_transformer_are_refused(scenario):
    with pytest.raises(InputError, match=r"policies\.retention: policies within a sequence are not defined for"):
        plan_of(scenario, "block_transformer", "h2o")


def test_prompts_of_a_block_transformer_have_no_logits():
    """2,048 tokens: the block decoder's activations of 512 entries, and logits of what is sampled."""
    whole = load_model("pythia-410m")
    model = changed("block_transformer", whole)
    framework, layout = FRAMEWORKS["hf_concat"], kv_layout(model, ONE)
    found = framework_footprint(framework, model, ONE, layout)
    widest = (2 * 4096 + 2 * 1024) * 2
    assert found.whole.activations * layout.token_bytes == pytest.approx(widest / 4)
    scratch = 2 * model.scratch_bytes_at(1)
    assert found.decoding.base * layout.token_bytes == pytest.approx(widest + 50_304 * LOGIT_BYTES + scratch)
    batches = [max_batch(m, H100, 2048, 128, framework="hf_concat") for m in (whole, model)]
    assert batches[1] > 10 * batches[0]


# ---- all of it together


@pytest.mark.parametrize("name", ["cla", "lckv", "mla", "mqa", "block_transformer", "yoco"])
def test_strides_are_single_steps(name):
    cost = StepCost(changed(name), H100)
    windowed = [Attended(6 * window, 0) for window in cost.windows]
    many = cost.decode_steps(6, 6 * 1500, windowed, 5)
    ones = [cost.decode_steps(6, 6 * (1500 + i), windowed, 1).seconds for i in range(5)]
    assert np.asarray(many.seconds).tolist() == ones


@pytest.fixture
def transformed(run):
    def go(name, *args, options=None, **keywords):
        policies = {"offload": "write_through"}
        if name:
            policies["architecture"] = {"name": name, **(options or {})}
        return run(*args, policies=policies, **keywords)

    return go


@pytest.fixture
def rows(prompt):
    return [(0.2 * i, 1024, 32, prompt(i % 2, 1024)) for i in range(6)]


@pytest.mark.parametrize(("name", "times"), [("cla", 2), ("mqa", 8), ("block_transformer", 8)])
def test_a_run_moves_and_keeps_less(transformed, rows, name, times):
    """Prefixes are hit as before, from HBM and from DRAM; every stored byte is a `times`-th."""
    plain = transformed(None, rows, dram="16 GiB", blocks=100).summary
    other = transformed(name, rows, dram="16 GiB", blocks=100).summary
    assert other["requests"]["finished"] == 6
    assert other["prefix"] == plain["prefix"]
    assert plain["tiers"]["dram"]["stored_bytes"] == times * other["tiers"]["dram"]["stored_bytes"] > 0
    assert other["hardware"]["kv_bytes_per_token"] * times == plain["hardware"]["kv_bytes_per_token"]


def test_a_share_of_one_is_the_run_without(transformed, rows, same_requests):
    same_requests(transformed("cla", rows, options={"share": 1}), transformed(None, rows))


def test_ttft_of_iterated_prompts(transformed, rows):
    """TTFT grows by eight times 30 of 32 layers, time per token does not."""
    one = transformed("lckv", rows[:1], options={"passes": 1}).summary
    nine = transformed("lckv", rows[:1], options={"passes": 9}).summary
    assert 7.5 * one["ttft_ms"]["p50"] < nine["ttft_ms"]["p50"] < 8.5 * one["ttft_ms"]["p50"]
    assert nine["tpot_ms"]["p50"] == pytest.approx(one["tpot_ms"]["p50"], rel=1e-9)


def test_assumptions_of_a_transformed_model(transformed, rows):
    summary = transformed("block_transformer", rows).summary
    assert any("block decoder of 16 layers" in line for line in summary["assumptions"])


def test_engine_blocks_hold_whole_entries(transformed, rows):
    with pytest.raises(InputError, match=r"engine.block_tokens: .*keeps one entry for 32 tokens.*found 16"):
        transformed("block_transformer", rows, options={"block": 32, "prefix": 2}, engine={"block_tokens": 16})
    transformed("block_transformer", rows, options={"block": 32}, engine={"prefix_caching": False})


@pytest.mark.parametrize("name", ["cla", "lckv", "yoco", "block_transformer"])
def test_pipelines_are_refused_where_layers_belong_together(name):
    model = changed(name, **({"share": 3} if name == "cla" else {}))
    with pytest.raises(InputError, match="lie on one stage"):
        Parallel(pp=2, gpus_per_node=2).check_model(model)
    Parallel(pp=2, gpus_per_node=2).check_model(changed("cla", share=2))
    Parallel(tp=2, gpus_per_node=2).check_model(model)
