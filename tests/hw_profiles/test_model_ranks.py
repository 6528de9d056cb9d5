"""What one rank of a tensor- or pipeline-parallel group holds, moves and exchanges, by hand arithmetic."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.attention import GQA, MLA, visible_pairs
from hw_profiles.errors import InputError
from hw_profiles.geometry import LayerSpec
from hw_profiles.mlp import MLP, expected_experts
from hw_profiles.model_spec import ModelSpec
from hw_profiles.models import list_models, load_model


def layer(name: str, tp: int = 1, kind: int = -1, *, expert_parallel: bool = False) -> LayerSpec:
    """One layer of a shipped model on one rank: its last kind unless told."""
    return load_model(name).layer_kinds(tp, expert_parallel=expert_parallel)[kind][1]


def shapes(spec: LayerSpec) -> list[tuple[str, int, int]]:
    return [(g.name, g.n, g.k) for g in spec.gemms]


@pytest.mark.parametrize(
    ("name", "tp", "nbytes"),
    [
        ("llama-3.1-70b", 2, 2 * 80 * 4 * 128 * 2),
        ("llama-3.1-70b", 8, 2 * 80 * 1 * 128 * 2),
        ("llama-3.1-70b", 16, 2 * 80 * 1 * 128 * 2),  # 8 KV heads on 16 ranks: each held twice
        ("qwen3-30b-a3b", 4, 2 * 48 * 1 * 128 * 2),
        ("qwen3-30b-a3b", 8, 2 * 48 * 1 * 128 * 2),
        ("opt-30b", 8, 2 * 48 * 7 * 128 * 2),
        ("gpt-oss-120b", 8, 2 * 36 * 1 * 64 * 2),
        ("deepseek-v3", 8, 61 * 576 * 2),  # the latent has no heads to split
        ("deepseek-v3", 16, 61 * 576 * 2),
    ],
)
def test_kv_of_a_rank(name: str, tp: int, nbytes: int) -> None:
    model = load_model(name)
    assert model.kv_bytes_per_token_at(tp) == nbytes
    assert model.kv_bytes(100, tp) == 100 * nbytes  # inside every window


@pytest.mark.parametrize(
    ("name", "tp", "expert_parallel", "expected"),
    [
        (
            "llama-3.1-8b", 4, False,
            [("qkv", (8 + 2 * 2) * 128, 4096), ("o", 4096, 1024), ("gate_up", 7168, 4096), ("down", 4096, 3584)],
        ),
        (
            "llama-3.1-8b", 16, False,
            [("qkv", (2 + 2 * 1) * 128, 4096), ("o", 4096, 256), ("gate_up", 1792, 4096), ("down", 4096, 896)],
        ),
        (
            "opt-6.7b", 2, False,
            [("qkv", 6144, 4096), ("o", 4096, 2048), ("up", 8192, 4096), ("down", 4096, 8192)],
        ),
        (
            "mixtral-8x7b", 2, False,
            [("qkv", 3072, 4096), ("o", 4096, 2048), ("router", 8, 4096),
             ("expert_gate_up", 14336, 4096), ("expert_down", 4096, 7168)],
        ),
        (
            "mixtral-8x7b", 2, True,
            [("qkv", 3072, 4096), ("o", 4096, 2048), ("router", 8, 4096),
             ("expert_gate_up", 28672, 4096), ("expert_down", 4096, 14336)],
        ),
        (
            "deepseek-v3", 8, False,
            [("qkv_a", 1536 + 512 + 64, 7168), ("q_b", 16 * 192, 1536), ("kv_b", 16 * 256, 512), ("o", 7168, 16 * 128),
             ("router", 256, 7168), ("expert_gate_up", 512, 7168), ("expert_down", 7168, 256),
             ("shared_gate_up", 512, 7168), ("shared_down", 7168, 256)],
        ),
    ],
)  # fmt: skip
def test_products_of_a_rank(name: str, tp: int, expert_parallel: bool, expected: list[tuple[str, int, int]]) -> None:
    assert shapes(layer(name, tp, expert_parallel=expert_parallel)) == expected


def test_experts_are_split_or_shared_out() -> None:
    split, whole = layer("mixtral-8x7b", 4), layer("mixtral-8x7b", 4, expert_parallel=True)
    assert split.moe is not None
    assert whole.moe is not None
    assert (split.moe.local, whole.moe.local) == (8, 2)
    assert split.weight_bytes == whole.weight_bytes  # the same bytes either way
    assert split.weight_bytes_expert * 4 == whole.weight_bytes_expert == 3 * 4096 * 14336 * 2
    # one token touches two experts somewhere: two quarters on every rank, or half an expert here on average
    assert split.experts_touched(1) == pytest.approx(2)
    assert whole.experts_touched(1) == pytest.approx(0.5)
    assert (split.expert_rows(10), whole.expert_rows(10)) == (20, 5)
    assert layer("qwen3-30b-a3b", 32, expert_parallel=True).moe.local == 4  # type: ignore[union-attr]


def test_weights_of_a_rank() -> None:
    """Matrices, embedding and head in halves; 65 norms of 4096 whole."""
    model = load_model("llama-3.1-8b")
    norms = 65 * 4096
    assert model.weight_bytes_at(2) == ((8_030_261_248 - norms) // 2 + norms) * 2
    assert model.weight_bytes_at(1) == model.weight_bytes
    oss = load_model("gpt-oss-120b")
    assert oss.head_gemm_at(8)[:3] == ("head", 201088 // 8, 2880)


def test_replicated_weights_of_deepseek() -> None:
    """On 8 ranks the down-projections (fp8 in 128 x 128 blocks), routers, norms and corrections are whole."""
    model = load_model("deepseek-v3")
    latent = 2112 * 7168 + 4 * 17 * 56
    router = 256 * 7168 * 2 + 256 * 4
    whole = 61 * latent + 58 * router + (61 * (2 * 7168 + 1536 + 512) + 7168) * 2
    assert model.weight_bytes_at(8) - whole == (model.weight_bytes - whole) / 8


def test_each_of_two_all_reduces_carries_the_hidden_state() -> None:
    assert (layer("llama-3.1-8b").all_reduces, layer("llama-3.1-8b", 2).all_reduces) == (0, 2)
    assert layer("llama-3.1-8b", 2).all_reduce_bytes_per_token == 4096 * 2
    assert layer("deepseek-v3", 8, expert_parallel=True).all_reduce_bytes_per_token == 7168 * 2


@pytest.mark.parametrize(
    ("name", "tp", "problem"),
    [
        ("llama-2-13b", 3, r"tp: found 3, expected a divisor of 40 \(attention heads\)"),
        ("llama-3.1-8b", 0, "tp: found 0, expected a divisor of 32"),
        ("llama-3.1-8b", -2, "tp: found -2"),
        ("gpt-oss-120b", 128, r"tp: found 128, expected a divisor of 64 \(attention heads\)"),
        ("opt-30b", 16, r"tp: found 16, expected a divisor of 56"),
    ],
)
def test_ranks_that_cannot_be(name: str, tp: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_model(name).weight_bytes_at(tp)


def test_widths_that_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"tp: found 4, expected a divisor of 1002 \(width of the MLP\)"):
        MLP(1002).at(4)


def test_kv_heads_that_neither_split_nor_repeat() -> None:
    with pytest.raises(InputError, match="tp: found 3, expected a divisor or a multiple of the 2 KV heads"):
        GQA(heads=6, kv_heads=2, head_dim=64).at(3)


def test_a_rank_is_not_split_again() -> None:
    with pytest.raises(ValueError, match="already split"):
        layer("llama-3.1-8b", 2).at(2)


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("tp", [2, 4, 8])
def test_ranks_together_hold_the_model(name: str, tp: int) -> None:
    model = load_model(name)
    if model.heads % tp:
        with pytest.raises(InputError, match=f"tp: found {tp}, expected a divisor of {model.heads}"):
            model.weight_bytes_at(tp)
        return
    replicated = tp * model.weight_bytes_at(tp) - model.weight_bytes
    assert 0 <= replicated < 0.15 * model.weight_bytes
    assert tp * model.kv_bytes_per_token_at(tp) >= model.kv_bytes_per_token
    for expert_parallel in (False, True):
        flops = sum(n * s.flops_per_token for n, s in model.layer_kinds(tp, expert_parallel=expert_parallel))
        whole = sum(n * s.flops_per_token for n, s in model.layer_kinds())
        assert 1 <= tp * flops / whole < 1.35  # routers, latents and repeated KV heads are done on every rank


def test_pipeline_stages() -> None:
    model = load_model("deepseek-v3")
    stages = model.stages(4)
    assert [(s.first, s.stop) for s in stages] == [(0, 15), (15, 30), (30, 46), (46, 61)]
    assert [(s.embeds, s.samples) for s in stages] == [(True, False), (False, False), (False, False), (False, True)]
    assert [n for n, _ in model.layer_kinds(stage=stages[0])] == [3, 12]
    assert [n for n, _ in model.layer_kinds(stage=stages[3])] == [15]
    assert [s.stop - s.first for s in load_model("llama-3.1-405b").stages(4)] == [31, 32, 32, 31]
    assert [s.stop - s.first for s in load_model("llama-3.1-8b").stages(1)] == [32]
    for pp in (0, 62, -1):
        with pytest.raises(InputError, match=f"pp: found {pp}, expected 1 to 61"):
            model.stages(pp)


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("pp", [1, 2, 3, 8])
def test_stages_together_are_the_model(name: str, pp: int) -> None:
    model = load_model(name)
    pp = min(pp, model.layers)
    stages = model.stages(pp)
    weights = sum(model.weight_bytes_at(1, stage=s) for s in stages)
    copied_head = model.vocab * model.hidden * model.dtype_bytes if model.tied_embeddings and pp > 1 else 0
    assert weights == model.weight_bytes + copied_head
    assert sum(model.kv_bytes_per_token_at(1, stage=s) for s in stages) == model.kv_bytes_per_token
    assert sum(model.kv_bytes(5000, stage=s) for s in stages) == model.kv_bytes(5000)


def test_expected_experts_by_enumeration() -> None:
    """All 6^3 ways in which 3 tokens choose 2 of 4 experts, equally likely."""
    pairs = list(itertools.combinations(range(4), 2))
    ways = [len(set().union(*choice)) for choice in itertools.product(pairs, repeat=3)]
    assert expected_experts(4, 2 / 4, 3) == pytest.approx(sum(ways) / len(ways))


@given(experts=st.integers(1, 512), data=st.data())
def test_expected_experts_lie_between_top_k_and_all(experts: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    counts = [expected_experts(experts, top_k / experts, n) for n in (0, 1, 2, 64, 100_000)]
    assert counts == sorted(counts)
    assert counts[:2] == pytest.approx([0, top_k])
    assert counts[-1] <= experts


def test_weights_read_by_a_step() -> None:
    """Mixtral, one layer: one token reads two experts, a thousand all eight."""
    spec = layer("mixtral-8x7b")
    expert = 3 * 4096 * 14336 * 2
    assert spec.weight_bytes_read(1) == pytest.approx(spec.weight_bytes - 6 * expert)
    assert spec.weight_bytes_read(1000) == pytest.approx(spec.weight_bytes)
    dense = layer("llama-3.1-8b")
    assert dense.weight_bytes_read(1) == dense.weight_bytes
    assert (dense.moe, dense.experts_touched(5), dense.expert_rows(5)) == (None, 0, 0)


def test_flops_of_attention() -> None:
    llama, deepseek = layer("llama-3.1-8b").attention, layer("deepseek-v3").attention
    assert isinstance(deepseek, MLA)
    assert llama.prefill_flops_per_pair == llama.decode_flops_per_pair == 4 * 32 * 128
    assert deepseek.prefill_flops_per_pair == 2 * 128 * (128 + 64) + 2 * 128 * 128
    assert deepseek.decode_flops_per_pair == 2 * 128 * (512 + 64) + 2 * 128 * 512
    assert deepseek.at(8).decode_flops_per_pair * 8 == deepseek.decode_flops_per_pair


@given(tokens=st.integers(0, 60), prefix=st.integers(0, 60), window=st.none() | st.integers(1, 80))
def test_pairs_of_a_chunk_by_counting(tokens: int, prefix: int, window: int | None) -> None:
    seen = (min(prefix + i + 1, window or prefix + i + 1) for i in range(tokens))
    assert visible_pairs(tokens, prefix, window) == sum(seen)


def test_bytes_between_products_of_a_dense_layer() -> None:
    """Norms 2 x (2 in, 2 out) x hidden, rotary in and out, cache write in and out, SiLU 2 in and 1 out, bf16."""
    spec = layer("llama-3.1-8b")
    assert dict(spec.elementwise) == {
        "attention_norm": 4 * 4096 * 2,
        "rotary": 2 * (4096 + 1024) * 2,
        "cache_write": 2 * 2 * 1024 * 2,
        "mlp_norm": 4 * 4096 * 2,
        "activation": 3 * 14336 * 2,
    }
    assert spec.kernels == 4 + 1 + 5
    rank = dict(layer("llama-3.1-8b", 4).elementwise)
    assert rank["activation"] == 3 * 14336 * 2 / 4
    assert rank["mlp_norm"] == 4 * 4096 * 2


def test_bytes_between_products_of_other_layers() -> None:
    opt = dict(layer("opt-6.7b").elementwise)
    assert "rotary" not in opt
    assert opt["activation"] == 2 * 16384 * 2
    deepseek = dict(layer("deepseek-v3").elementwise)
    assert deepseek["rotary"] == 2 * 129 * 64 * 2
    assert deepseek["cache_write"] == 2 * 576 * 2
    assert deepseek["activation"] == 3 * (8 + 1) * 2048 * 2
    assert deepseek["combine"] == (8 + 1) * 7168 * 2
    qwen = dict(layer("qwen3-8b").elementwise)
    assert qwen["qk_norm"] == 2 * (4096 + 1024) * 2


def test_each_sublayer_of_gemma2_is_normalised_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "gemma2", "num_hidden_layers": 2, "hidden_size": 2304, "num_attention_heads": 8, "vocab_size":'
        ' 256000, "num_key_value_heads": 4, "intermediate_size": 9216, "max_position_embeddings": 8192}'
    )
    model: ModelSpec = load_model(tmp_path)
    names = [name for name, _ in model.specs[0].elementwise]
    assert names.count("output_norm") == 2
    assert sum(nbytes for name, nbytes in model.specs[0].elementwise if "norm" in name) == (8 + 4) * 2304 * 2
