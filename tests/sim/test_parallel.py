"""Tensor and pipeline parallel replicas: shares of weights and KV, step times by hand, copies over every GPU's link."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from hw_profiles.kernel_reader import KernelNotes
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from hw_profiles.schema import overridden
from sim.cost.kv import kv_layout
from sim.cost.memory import Limits, hbm_budget
from sim.cost.parallel import Parallel
from sim.cost.step import StepCost
from sim.time_split import PIPELINED

BASIC = ("gemm_bf16", "decode_attn", "prefill_attn", "launch")
NVLINK = 450e9


def basic(profile):
    """The profile with the kernels that every profile has, and nothing but their formulas."""
    entries = {
        path: value
        for path, value in profile.entries.items()
        if not path.startswith("peaks.") and (not path.startswith("kernels.") or path.split(".")[1] in BASIC)
    }
    return replace(profile, entries=entries, kernels=KernelNotes({}, {}, {}))


H100 = basic(load_profile(Path(__file__).parent / "closed_form.yaml"))
LLAMA = load_model("llama-3.1-8b")


def cost(model=LLAMA, profile=H100, **parallel):
    return StepCost(model, profile, parallel=Parallel(**{"interconnect": NVLINK, **parallel}))


def ring(ranks, nbytes, rate=NVLINK, hop=0.6e-6):
    """Start, 2 (n - 1) hops, and 2 (n - 1) / n of the bytes over each rank's link."""
    return 6.6e-6 + 2 * (ranks - 1) * hop + 2 * (ranks - 1) / ranks * nbytes / rate


# ---- tensor parallel


def test_a_rank_of_four_by_hand(hand):
    """Llama-3.1-8B over four GPUs: a quarter of heads, KV heads, MLP and vocabulary on each."""
    tokens, rows = 40, 7
    split = cost(tp=4)
    layer = sum(hand.gemm(tokens, n, k) for n, k in [(1536, 4096), (4096, 1024), (7168, 4096), (4096, 3584)])
    moved = 2 * tokens * (8 * 4096 + 2 * (1024 + 256) + 4 * 256 + 3 * 3584)
    layer += 5 * hand.value("kernels.launch.graph") + moved / hand.value("tiers.hbm.read")
    head = hand.gemm(rows, 32064, 4096) + hand.head(rows) - hand.gemm(rows, 128256, 4096)
    assert split.linear(tokens, rows) == pytest.approx(32 * layer + head, rel=1e-12)
    # the embedding and two sums a layer of the hidden state; every rank gets all logits
    sums = 65 * ring(4, tokens * 4096 * 2) + ring(4, rows * 128256 * 2 / 2)
    assert split.exchange(tokens, rows) == pytest.approx(sums, rel=1e-12)
    floor, t0, per_seq, rate = hand.group("kernels.decode_attn", "floor", "t0", "per_seq", "bandwidth")
    attention = max(floor, t0 + per_seq * 30 / 4 + 60_000 * 1024 / rate)
    assert split.decode(30, 60_000) == pytest.approx(32 * attention, rel=1e-12)
    t0, per_token, flops = hand.group("kernels.prefill_attn", "t0", "per_token", "flops")
    attention = t0 + per_token * 8 / 32 * 512 + 4 * 1024 * (512 * 100 + 512**2 / 2) / flops  # 8 of 32 query heads
    assert split.prefill([(512, 100)]) == pytest.approx(32 * attention, rel=1e-12)


def test_measured_all_reduces_come_first():
    values = {
        path: overridden(path, value, "test")
        for ranks, alpha in ((2, 5e-6), (8, 9e-6))
        for path, value in ((f"kernels.allreduce_{ranks}.alpha", alpha), (f"kernels.allreduce_{ranks}.beta", 1e11))
    }
    measured = replace(H100, entries={**H100.entries, **values})
    two = cost(profile=measured, tp=2, interconnect=None)
    assert two.exchange(100, 0) == pytest.approx(65 * (5e-6 + 100 * 8192 / 1e11), rel=1e-12)
    assert not any("all-reduce" in note for note in two.kernels.estimates)
    assert "kernels.allreduce_2.alpha" in two.kernels.values
    # four ranks: as eight, the nearest above, whose ring moves 7/4 per byte and not 6/4
    four = cost(profile=measured, tp=4, interconnect=None)
    assert four.exchange(100, 0) == pytest.approx(65 * (5e-6 + 100 * 8192 / 1e11 * (6 / 4) / (2 / 2)), rel=1e-12)
    assert any("from that over 2" in note for note in four.kernels.estimates)
    assert cost(profile=measured, tp=2).exchange(100, 0) != two.exchange(100, 0)  # the scenario's rate counts more
    pcie = cost(tp=2, interconnect=None)
    beta = H100.links["pcie_d2h"].beta
    assert pcie.exchange(100, 0) == pytest.approx(65 * ring(2, 100 * 8192, beta, 1e-6), rel=1e-12)


def budget(model, **parallel):
    return hbm_budget(model, H100, Parallel(**parallel), Limits(16, 0.9, 8192, 256))


def test_memory_of_a_rank():
    one, two = budget(LLAMA), budget(LLAMA, tp=2)
    norms = (32 * 2 + 1) * 4096 * 2  # on every rank
    assert one.weights - norms == 2 * (two.weights - norms)
    assert (one.block_bytes, two.block_bytes) == (16 * 131072, 16 * 65536)
    left = H100.hbm_bytes * 0.9 - two.weights - H100.reserved_bytes
    left -= 8192 * (3 * 7168 + 2 * 4096) * 2 + 256 * 128256 * 6
    assert two.blocks == int(left // (16 * 65536))
    # 16 ranks: each KV head on two of them
    assert budget(LLAMA, tp=16, gpus_per_node=16).block_bytes == 16 * 131072 / 8


@pytest.mark.parametrize(
    ("model", "parallel", "token_bytes", "lanes"),
    [
        ("llama-3.1-8b", {"tp": 4}, 131072, 4),
        ("llama-3.1-8b", {"tp": 16, "gpus_per_node": 16}, 2 * 131072, 16),  # eight KV heads, each twice
        ("deepseek-v3", {"tp": 8}, 8 * 70272, 8),  # the latent on every rank
        ("llama-3.1-8b", {"tp": 2, "pp": 2}, 131072, 4),
        ("llama-3.1-70b", {"tp": 1, "pp": 3}, 327680, 80 / 27),  # stages of 27, 27 and 26 layers
    ],
)
def test_kv_of_a_replica(model, parallel, token_bytes, lanes):
    layout = kv_layout(load_model(model), Parallel(**parallel))
    assert layout.token_bytes == token_bytes
    assert layout.lanes == pytest.approx(lanes)


def test_experts_of_a_rank():
    """Under expert parallelism a rank reads whole experts: in all as many bytes, but not of the same experts."""
    mixtral = load_model("mixtral-8x7b")
    assert budget(mixtral, tp=2).weights == budget(mixtral, tp=2, expert_parallel=True).weights
    plain, whole = cost(mixtral, tp=8), cost(mixtral, tp=8, expert_parallel=True)
    assert whole.linear(64, 0) != plain.linear(64, 0)
    assert whole.linear(64, 0) == pytest.approx(plain.linear(64, 0), rel=0.1)


# ---- in a run

ROWS = [(0, 8192, 30, list(range(16))), (5, 8192, 2, [100 + i for i in range(16)]), (10, 8192, 30, list(range(16)))]


def test_two_ranks_halve_what_each_link_carries(run):
    """The third prompt comes back from DRAM: the same bytes, over two links at once."""
    keywords = {"blocks": 600, "dram": "8 GiB"}
    one, two = (run(ROWS, **keywords, hardware={"profile": "h100-sxm", "tp": tp}) for tp in (1, 2))
    tokens = one.summary["prefix"]["hit_tokens"]["dram"]
    assert two.summary["prefix"]["hit_tokens"]["dram"] == tokens > 5000
    (before,), (after,) = ([t for t in r.frames["transfers"].itertuples() if t.link == "pcie_h2d"] for r in (one, two))
    assert before.bytes == after.bytes == tokens * 131072
    alpha = (tokens / 16) * H100.copy_model("pcie_h2d").alpha
    assert after.end_s - after.start_s - alpha == pytest.approx((before.end_s - before.start_s - alpha) / 2, rel=1e-9)


def test_two_ranks_halve_memory_and_move_tpot(run, prompt):
    rows = [(0, 3000, 200, prompt(i, 3000)) for i in range(8)]
    hardware = {"profile": "h100-sxm", "interconnect": "450 GB/s"}
    one, two, four = (run(rows, hardware={**hardware, "tp": tp}).summary for tp in (1, 2, 4))
    tpot = [s["tpot_ms"]["mean"] for s in (one, two, four)]
    assert tpot[0] > 1.4 * tpot[1] > 1.4 * tpot[2]
    # half of the weights, and what the all-reduces take
    assert tpot[1] > 0.5 * tpot[0]
    assert [s["hardware"]["gpus"] for s in (one, two, four)] == [1, 2, 4]
    weights = [s["hardware"]["hbm_budget"]["weights"] for s in (one, two)]
    assert weights[1] == pytest.approx(weights[0] / 2, rel=1e-4)
    assert two["tiers"]["hbm"]["capacity_bytes"] > 2 * one["tiers"]["hbm"]["capacity_bytes"]


def test_slow_interconnects_cost_time(run, prompt):
    rows = [(0, 3000, 50, prompt(i, 3000)) for i in range(4)]
    runs = [
        run(rows, hardware={"profile": "h100-sxm", "tp": 4, "interconnect": rate}) for rate in ("900 GB/s", "20 GB/s")
    ]
    exchange = [r.frames["steps"].exchange_s.sum() for r in runs]
    assert exchange[1] > 5 * exchange[0] > 0
    assert runs[1].summary["ttft_ms"]["mean"] > 1.5 * runs[0].summary["ttft_ms"]["mean"]
    for result in runs:
        steps = result.frames["steps"]
        parts = steps.linear_s + steps.attention_s + steps.exchange_s + steps.launch_s
        assert list(steps.end_s - steps.start_s) == pytest.approx(list(parts), rel=1e-9)


# ---- pipeline parallel


def test_a_pipeline_of_two_by_hand():
    """Each stage has 16 layers; six sequences decode as two micro-batches of three."""
    pipeline = cost(pp=2)
    first, last = pipeline.stages
    batch, context = 3, 3 * 5000
    a = first.linear(batch, batch) + first.decode(batch, context, batch) + ring(2, 3 * 2 * 8192)
    b = last.linear(batch, batch) + last.decode(batch, context, batch)
    assert first.exchange(batch, batch) == pytest.approx(ring(2, 3 * 2 * 8192), rel=1e-12)  # hidden state, residual
    assert last.exchange(batch, batch) == 0
    times = pipeline.decode_steps(6, 2 * context, (), 1)
    assert float(times.seconds[0]) == pytest.approx(max(2 * max(a, b), a + b), rel=1e-12)
    # a lone sequence goes through both stages, one after the other
    alone = pipeline.decode_steps(1, 5000, (), 1)
    ways = [s.linear(1, 1) + s.decode(1, 5000, 1) + s.exchange(1, 1) for s in (first, last)]
    assert float(alone.seconds[0]) == pytest.approx(sum(ways), rel=1e-12)
    assert float(alone.pipeline[0]) == pytest.approx(sum(ways) / 2, rel=1e-12)  # the average GPU is idle half the time


def test_chunks_fill_a_pipeline():
    """The first of three chunks goes through both stages, each further one takes one stage more."""
    pipeline = cost(pp=2)
    first, last = pipeline.stages
    chunk = [(4096, 0)]
    a = first.linear(4096, 0) + first.prefill(chunk) + first.exchange(4096, 0)
    b = last.linear(4096, 1) + last.prefill(chunk)
    empty = pipeline.mixed_step(0, 0, (), chunk, 4096, 1)
    full = pipeline.mixed_step(0, 0, (), chunk, 4096, 1, flowing=True)
    assert empty.seconds == pytest.approx(a + b, rel=1e-12)
    assert full.seconds == pytest.approx(max(a, b), rel=1e-12)
    whole = cost().mixed_step(0, 0, (), chunk, 4096, 1).seconds
    assert whole < empty.seconds < 1.05 * whole


def test_pipelines_hold_more_and_prefill_faster_but_decode_no_faster(run, prompt):
    rows = [(0, 30_000, 40, prompt(i, 30_000)) for i in range(6)]
    runs = [
        run(rows, hardware={"profile": "h100-sxm", "pp": pp, "interconnect": "450 GB/s"}).summary for pp in (1, 2, 4)
    ]
    ttft = [r["ttft_ms"]["max"] for r in runs]
    assert ttft[0] > 1.7 * ttft[1] > 2.5 * ttft[2]
    alone = [cost(pp=pp).decode_steps(1, 30_000, (), 1).seconds for pp in (1, 2, 4)]
    assert alone[0] < float(alone[1][0]) < float(alone[2][0])  # every token reads all weights one after the other
    capacity = [r["tiers"]["hbm"]["capacity_bytes"] for r in runs]
    assert capacity[1] > 2 * capacity[0]
    assert capacity[2] > 2 * capacity[1]


@pytest.mark.parametrize("chunks", [1, 4, 16])
@pytest.mark.parametrize("pp", [2, 3, 4])
def test_bubbles_of_a_prompt_in_chunks(run, prompt, chunks, pp):
    """m chunks on p stages: the first goes through all, each further one follows the slowest stage, so with equal
    stages they take (m + p - 1) / m of what one stage is busy; a third of 32 layers is 11 or 10."""
    size = 1024
    tokens = chunks * size
    hardware = {"profile": str(Path(__file__).parent / "closed_form.yaml"), "pp": pp, "interconnect": "450 GB/s"}
    engine = {"max_num_batched_tokens": size}
    result = run([(0, tokens, 1, prompt(0, tokens))], engine=engine, hardware=hardware)
    times = []
    profile = load_profile(Path(__file__).parent / "closed_form.yaml")
    for i in range(chunks):
        chunk, sampled = [(size, i * size)], int(i == chunks - 1)
        stages = cost(pp=pp, profile=profile).stages
        own = [s.linear(size, sampled) + s.prefill(chunk) + s.exchange(size, sampled) for s in stages]
        times.append([max(t, s.launch_floor_s) for t, s in zip(own, stages, strict=True)])
    whole = sum(times[0]) + sum(max(of_a_chunk) for of_a_chunk in times[1:])
    busy = sum(sum(of_a_chunk) / pp for of_a_chunk in times)
    split = result.summary["replica_time"]
    assert result.frames["requests"].first_token_s[0] == pytest.approx(whole, rel=1e-9)
    assert split["bubble_s"] == pytest.approx(whole - busy, rel=1e-9)
    assert sum(split[part] for part in PIPELINED) == pytest.approx(whole, rel=1e-9)
    assert whole / busy == pytest.approx((chunks + pp - 1) / chunks, rel=0.1)


@pytest.mark.parametrize(("seqs", "pp"), [(1, 4), (2, 4), (4, 4), (16, 4), (16, 3)])
def test_bubbles_of_decoding(run, prompt, seqs, pp):
    """Fewer sequences than stages leave stages without work; from then on they wait for the slowest alone."""
    rows = [(0, 64, 200, prompt(i, 64)) for i in range(seqs)]
    hardware = {"profile": "h100-sxm", "pp": pp, "interconnect": "450 GB/s"}
    result = run(rows, hardware=hardware)
    steps = result.frames["steps"]
    decoding = steps[steps.prefill_seqs == 0]
    share = decoding.pipeline_s.sum() / (decoding.end_s - decoding.start_s).sum()
    if seqs < pp:
        assert share == pytest.approx(1 - seqs / pp, abs=0.02)
    else:  # the last stage has the output head, and of 32 layers on 3 stages one less
        assert 0.01 < share < 0.2
    whole = result.summary["replica_time"]
    assert whole["bubble_s"] == pytest.approx(steps.pipeline_s.sum())


def test_one_stage_has_no_bubbles(run, prompt):
    assert "bubble_s" not in run([(0, 64, 2, prompt(0, 64))]).summary["replica_time"]


@pytest.mark.parametrize("hardware", [{"pp": 3}, {"tp": 2, "pp": 2}])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "mistral-7b"])
def test_strides_are_single_steps(run, same_requests, prompt, hardware, model):
    rows = [(0.05 * i, 60 + 700 * (i % 7), 40 + 30 * (i % 4), prompt(i, 60 + 700 * (i % 7))) for i in range(24)]
    hardware = {"profile": "h100-sxm", **hardware}
    keywords = {"blocks": 700, "dram": "4 GiB", "model": model, "hardware": hardware}
    strides, singles = (run(rows, **keywords, single_step=s) for s in (False, True))
    same_requests(strides, singles)
    assert strides.frames["steps"]["count"].max() > 1


def test_nodes_of_large_replicas(run, prompt):
    """Two nodes of four GPUs: stages on different ones are joined by a network, and both nodes' DRAM counts."""
    hardware = {"profile": "h100-sxm", "tp": 4, "pp": 2, "gpus_per_node": 4, "interconnect": "450 GB/s"}
    result = run([(0, 1000, 5, prompt(0, 1000))], dram="1 GiB", shared="node", hardware=hardware)
    assert result.summary["tiers"]["dram"]["capacity_bytes"] == 2 * 2**30
    assert any("rdma-400g" in text for text in result.summary["assumptions"])
    together = run([(0, 1000, 5, prompt(0, 1000))], hardware={**hardware, "gpus_per_node": 8})
    assert together.summary["ttft_ms"]["mean"] < result.summary["ttft_ms"]["mean"]


# ---- bad input


@pytest.mark.parametrize(
    ("hardware", "model", "problem"),
    [
        ({"tp": 3}, None, "hardware.tp: the ranks of a tensor-parallel group share a node, found 3"),
        ({"tp": 2, "gpus_per_node": 1}, None, "expected a divisor of gpus_per_node (1)"),
        (
            {"tp": 16, "gpus_per_node": 16},
            "opt-30b",
            "hardware.tp: found 16, expected a divisor of 56 (attention heads)",
        ),
        ({"pp": 12}, None, "hardware.pp: a replica over several nodes must fill them, found 12"),
        ({"pp": 40}, "llama-3.1-8b", "hardware.pp: found 40, expected 1 to 32 (layers of llama-3.1-8b)"),
        ({"expert_placement": "balanced"}, None, "found 'balanced', expected it with expert_parallel: true"),
        ({"redundant_experts": 8}, None, "hardware.redundant_experts: nobody asks for copies, found 8"),
        ({"interconnect": "0 GB/s"}, None, "hardware.interconnect: found '0 GB/s', expected a number > 0"),
        ({"tp": 8}, "deepseek-v3", "model: deepseek-v3 does not fit the HBM of h100-sxm on 8 GPUs"),
    ],
)
def test_refused(scenario, hardware, model, problem):
    sections = {"model": model} if model else {}
    with pytest.raises(InputError, match=re.escape(problem)):
        scenario([(0, 16, 2, [1])], hardware={"profile": "h100-sxm", **hardware}, **sections).run()


@pytest.mark.parametrize(
    ("model", "engine", "pieces"),
    [
        ("llama-3.1-8b", {"kv_layout": "layer_kv"}, 2 * 16),
        ("gpt-oss-120b", {"kv_layout": "layer"}, 9),  # of the 18 layers of a stage, half slide and are kept apart
        ("deepseek-v3", {"kv_layout": "layer_kv"}, 31),  # a latent is neither keys nor values
    ],
)
def test_copies_of_a_block_on_each_gpu(run, prompt, model, engine, pieces):
    """Two stages: every GPU copies its own layers of a block, one after the other; 31 of 61 layers are on the first."""
    hardware = {"profile": "h100-sxm", "pp": 2, "tp": 8 if model == "deepseek-v3" else 1}
    result = run([(0, 512, 2, [1])], model=model, engine=engine, hardware=hardware, dram="16 GiB")
    (store,) = result.frames["transfers"].itertuples()
    assert store.copies == pytest.approx(32 * pieces, rel=0.02)
