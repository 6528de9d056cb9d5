"""Number formats, eager mode and popularity of experts: each knob moves what it should."""

import pytest

from hw_profiles.models import load_model
from sim.cost.kv import hybrid_layout
from sim.cost.parallel import Parallel

AGAIN = [(0, 4096, 4, list(range(8))), (5, 8192, 2, [100 + i for i in range(16)]), (10, 4096, 4, list(range(8)))]


def test_an_fp8_cache_halves_bytes_over_pcie(run):
    runs = [
        run(AGAIN, blocks=600, dram="8 GiB", engine={"kv_dtype": kv}).summary for kv in ("bf16", "fp8", "int8", "int4")
    ]
    hits = {r["prefix"]["hit_tokens"]["dram"] for r in runs}
    assert len(hits) == 1
    tokens = hits.pop()
    assert tokens > 2000
    # int8 and int4 have 4 bytes of scale and zero point per head and token: 2 x 32 layers x 8 heads of 128
    sizes = [131072, 65536, 64 * 8 * (128 + 4), 64 * 8 * (64 + 4)]
    assert [r["links"]["pcie_h2d"]["bytes"] for r in runs] == [tokens * size for size in sizes]
    assert runs[1]["links"]["pcie_h2d"]["busy_s"] < 0.6 * runs[0]["links"]["pcie_h2d"]["busy_s"]


def test_an_fp8_cache_holds_more_and_decodes_faster(run, prompt):
    rows = [(0, 20_000, 50, prompt(i, 20_000)) for i in range(8)]
    bf16, fp8 = (run(rows, engine={"kv_dtype": kv}).summary for kv in ("bf16", "fp8"))
    blocks = [r["hardware"]["hbm_budget"]["blocks"] for r in (bf16, fp8)]
    assert blocks[1] == pytest.approx(2 * blocks[0], abs=2)
    assert fp8["tpot_ms"]["p50"] < bf16["tpot_ms"]["p50"]
    assert fp8["hardware"]["kv_bytes_per_token"] == 65536


def test_smaller_weights_leave_more_room_and_decode_faster(run, prompt):
    rows = [(0, 500, 60, prompt(0, 500))]
    runs = [run(rows, engine={"weights_dtype": w}).summary for w in ("bf16", "fp8", "int4")]
    tpot = [r["tpot_ms"]["mean"] for r in runs]
    assert tpot[0] > 1.5 * tpot[1] > 1.5 * 1.2 * tpot[2]
    budgets = [r["hardware"]["hbm_budget"] for r in runs]
    matrices = 32 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 14336)
    assert budgets[0]["weights"] - budgets[1]["weights"] == matrices
    assert budgets[0]["weights"] - budgets[2]["weights"] == matrices * 2 - matrices // 2 - matrices // 128 * 20 // 8
    assert budgets[0]["blocks"] < budgets[1]["blocks"] < budgets[2]["blocks"]


def test_the_checkpoints_formats_are_the_default(run, prompt):
    rows = [(0, 500, 20, prompt(0, 500))]
    left, named = run(rows), run(rows, engine={"weights_dtype": "bf16", "kv_dtype": "bf16"})
    assert left.frames["requests"].equals(named.frames["requests"])


def test_eager_steps_wait_for_their_launches(run, hand, prompt):
    rows = [(0, 100, 20, prompt(0, 100))]
    graphs, eager = run(rows), run(rows, engine={"graphs": False})
    launches = (32 * 10 + 1) * 25e-6
    assert launches > hand.decode_step(1, 119)
    assert eager.summary["tpot_ms"]["mean"] == pytest.approx(launches * 1e3, rel=1e-9)
    assert eager.summary["ttft_ms"]["mean"] == pytest.approx(launches * 1e3, rel=1e-9)
    steps = eager.frames["steps"]
    assert (steps.launch_s > 0).all()
    parts = steps.linear_s + steps.attention_s + steps.launch_s
    assert list(steps.end_s - steps.start_s) == pytest.approx(list(parts), rel=1e-9)
    # a host that is fast enough hides its launches
    fast = run(rows, engine={"graphs": False, "eager_launch": "2.7 us"})
    assert fast.frames["requests"].equals(graphs.frames["requests"])


def test_eager_kernels_of_a_rank(run, prompt):
    """36 layers of 4 products, attention, 6 small kernels (heads are normalised) and 2 sums; embedding's sum, head."""
    hardware = {"profile": "h100-sxm", "tp": 8, "interconnect": "900 GB/s"}
    result = run([(0, 100, 20, prompt(0, 100))], model="qwen3-8b", hardware=hardware, engine={"graphs": False})
    assert result.summary["tpot_ms"]["mean"] == pytest.approx((36 * (4 + 1 + 6 + 2) + 1 + 1) * 25e-3, rel=1e-9)


def test_eager_strides_are_single_steps(run, prompt):
    rows = [(0.05 * i, 60 + 300 * (i % 7), 40 + 30 * (i % 4), prompt(i, 60 + 300 * (i % 7))) for i in range(12)]
    keywords = {"engine": {"graphs": False, "eager_launch": "11 us", "weights_dtype": "int4"}}
    strides, singles = (run(rows, **keywords, single_step=s) for s in (False, True))
    assert strides.frames["requests"].equals(singles.frames["requests"])
    assert strides.frames["steps"]["count"].max() > 1


def test_popular_experts_speed_up_small_batches(run, prompt):
    rows = [(0, 200, 40, prompt(i, 200)) for i in range(12)]
    tpot = [
        run(rows, model="qwen3-30b-a3b", engine={"expert_skew": s}).summary["tpot_ms"]["mean"] for s in (0, 0.5, 1.2)
    ]
    assert tpot[0] > tpot[1] > 1.1 * tpot[2]


def test_blocks_of_a_moe_model_by_hand(run, prompt):
    """gpt-oss-120b: per token 4 experts of 2880, whose first product (5760) shares a buffer with the output."""
    rows = [(0, 16, 1, prompt(0, 16))]
    engine = {"hybrid_kv_cache": False}
    budget = run(rows, model="gpt-oss-120b", engine=engine).summary["hardware"]["hbm_budget"]
    assert budget["activations"] == 8192 * (4 * (5760 + 2880) + 2 * 2880) * 2 + 256 * 201088 * 6
    left = budget["usable"] - 65_248_815_744 - budget["activations"] - budget["reserved"]
    assert budget["blocks"] == left // (16 * 73728)
    exact = run(rows, model="gpt-oss-120b", engine=engine, blocks=77).summary["hardware"]["hbm_budget"]
    assert (exact["blocks"], exact["kv"]) == (77, 77 * 16 * 73728)


def test_windows_that_are_kept_apart(run, prompt):
    """gpt-oss-120b: 18 of 36 layers keep 128 tokens. 256 sequences touch nine blocks each, a step adds 8192 tokens."""
    rows = [(0, 1000, 1, prompt(0, 1000))]
    whole, hybrid = (
        run(rows, model="gpt-oss-120b", engine={"hybrid_kv_cache": on}).summary["hardware"] for on in (False, True)
    )
    budget = hybrid["hbm_budget"]
    assert (whole["kv_bytes_per_token"], hybrid["kv_bytes_per_token"]) == (73728, 36864)
    assert budget["windows"] == (256 * 9 * 16 + 8192) * 36864
    left = budget["usable"] - budget["weights"] - budget["activations"] - budget["reserved"] - budget["windows"]
    assert budget["blocks"] == left // (16 * 36864) > 1.2 * whole["hbm_budget"]["blocks"]
    # fewer sequences need less for windows
    few = run(rows, model="gpt-oss-120b", engine={"max_num_seqs": 16}).summary["hardware"]["hbm_budget"]
    assert few["blocks"] > 1.1 * budget["blocks"]


def test_one_kind_of_layers_is_kept_whole(run, prompt):
    """Where all layers slide, or none, there is nothing to keep apart."""
    for model in ("mistral-7b", "llama-3.1-8b"):
        hardware = run([(0, 100, 1, prompt(0, 100))], model=model).summary["hardware"]
        assert hardware["hbm_budget"]["windows"] == 0
        assert hardware["kv_bytes_per_token"] == 131072


def test_stages_of_one_kind_keep_their_layers_whole():
    """gpt-oss alternates: in pairs each stage has both kinds, one by one it has not."""
    model = load_model("gpt-oss-120b")
    pairs, single = (hybrid_layout(model, Parallel(pp=pp)) for pp in (18, 36))
    assert pairs.token_bytes == 36864
    assert single is None
    assert hybrid_layout(load_model("mistral-7b"), Parallel()) is None
