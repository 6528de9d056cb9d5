"""Every family by the published size of one of its models, and the rules for what a config leaves out."""

import json
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.families import FAMILIES
from hw_profiles.model_spec import ModelSpec
from hw_profiles.models import load_model

Config = dict[str, Any]


def shape(model_type: str, layers: int, hidden: int, heads: int, intermediate: int, vocab: int, **more: Any) -> Config:
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        **more,
    }


def opt(layers: int, hidden: int, heads: int) -> Config:
    config = shape("opt", layers, hidden, heads, 4 * hidden, 50272, max_position_embeddings=2048)
    config["ffn_dim"] = config.pop("intermediate_size")
    return config


# (config with nothing but its geometry, weights as published on the model's Hugging Face page or by keras-hub presets)
PUBLISHED: dict[str, tuple[Config, int]] = {
    "Llama-3.2-1B": (
        shape("llama", 16, 2048, 32, 8192, 128256, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True),
        1_235_814_400,
    ),
    "Mistral-7B-v0.1": (shape("mistral", 32, 4096, 32, 14336, 32000), 7_241_732_096),
    "Mixtral-8x22B": (
        shape("mixtral", 56, 6144, 48, 16384, 32768, num_local_experts=8, num_experts_per_tok=2), 140_630_071_296,
    ),
    "Phi-3-mini-4k": (shape("phi3", 32, 3072, 32, 8192, 32064, sliding_window=2047), 3_821_079_552),
    "Qwen2.5-7B": (shape("qwen2", 28, 3584, 28, 18944, 152064, num_key_value_heads=4), 7_615_616_512),
    "Qwen1.5-MoE-A2.7B": (
        shape(
            "qwen2_moe", 24, 2048, 16, 5632, 151936, num_key_value_heads=16, num_experts=60, num_experts_per_tok=4,
            moe_intermediate_size=1408, shared_expert_intermediate_size=5632,
        ),
        14_315_784_192,
    ),
    "Qwen3-0.6B": (
        shape("qwen3", 28, 1024, 16, 3072, 151936, num_key_value_heads=8, tie_word_embeddings=True), 596_049_920,
    ),
    "Qwen3-235B-A22B": (
        shape(
            "qwen3_moe", 94, 4096, 64, 12288, 151936, num_key_value_heads=4, head_dim=128, num_experts=128,
            num_experts_per_tok=8, moe_intermediate_size=1536,
        ),
        235_093_634_560,
    ),
    "gemma-2b": (shape("gemma", 18, 2048, 8, 16384, 256000, num_key_value_heads=1), 2_506_172_416),
    "gemma-7b": (shape("gemma", 28, 3072, 16, 24576, 256000, num_key_value_heads=16), 8_537_680_896),
    "gemma-2-9b": (shape("gemma2", 42, 3584, 16, 14336, 256000, num_key_value_heads=8), 9_241_705_984),
    "gemma-3-1b": (
        shape("gemma3_text", 26, 1152, 4, 6912, 262144, num_key_value_heads=1, sliding_window=512), 999_885_952,
    ),
    "pythia-2.8b": (shape("gpt_neox", 32, 2560, 32, 10240, 50304), 2_517_652_480 + 2 * 50304 * 2560),
    "opt-125m": (opt(12, 768, 12), 125_239_296),
    "opt-1.3b": (opt(24, 2048, 32), 1_315_758_080),
    "DeepSeek-V2-Lite": (
        shape(
            "deepseek_v2", 27, 2048, 16, 10944, 102400, q_lora_rank=None, kv_lora_rank=512, qk_rope_head_dim=64,
            qk_nope_head_dim=128, v_head_dim=128, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
            moe_intermediate_size=1408, first_k_dense_replace=1,
        ),
        15_706_484_224,
    ),
    "gpt-oss-20b": (
        shape(
            "gpt_oss", 24, 2880, 64, 2880, 201088, num_key_value_heads=8, num_local_experts=32, num_experts_per_tok=4,
        ),
        20_914_757_184,
    ),
}  # fmt: skip


def load(folder: Path, config: Config) -> ModelSpec:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return load_model(path)


def windows(model: ModelSpec) -> list[int | None]:
    return [model.specs[i].window for i in model.pattern]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size(name: str, tmp_path: Path) -> None:
    config, parameters = PUBLISHED[name]
    assert load(tmp_path, config).parameters == parameters


def test_every_family_has_a_published_size() -> None:
    """kimi_k2 is deepseek_v3 under another name; deepseek_v3 ships."""
    assert {config["model_type"] for config, _ in PUBLISHED.values()} | {"deepseek_v3", "kimi_k2"} == set(FAMILIES)
    assert FAMILIES["kimi_k2"] == FAMILIES["deepseek_v3"]


def test_kinds_of_attention(tmp_path: Path) -> None:
    labels = {name: load(tmp_path, config).attention for name, (config, _) in PUBLISHED.items()}
    assert labels["gemma-2b"] == "MQA"
    assert labels["gemma-7b"] == labels["opt-125m"] == "MHA"
    assert labels["Qwen2.5-7B"] == "GQA"
    assert labels["DeepSeek-V2-Lite"] == "MLA"
    assert labels["Mistral-7B-v0.1"] == "GQA, window 4096"
    assert labels["gemma-3-1b"] == "MQA, window 512 in some layers"


def test_which_layers_slide(tmp_path: Path) -> None:
    gemma2, gemma3 = (load(tmp_path, PUBLISHED[name][0]) for name in ("gemma-2-9b", "gemma-3-1b"))
    assert windows(gemma2)[:4] == [4096, None, 4096, None]
    assert windows(gemma3)[:7] == [512] * 5 + [None, 512]
    assert windows(load(tmp_path, PUBLISHED["gpt-oss-20b"][0]))[:3] == [128, None, 128]
    mistral = PUBLISHED["Mistral-7B-v0.1"][0]
    assert windows(load(tmp_path, mistral)) == [4096] * 32  # the default of an absent key
    assert windows(load(tmp_path, mistral | {"sliding_window": None})) == [None] * 32
    mixed = ["full_attention"] * 8 + ["sliding_attention"] * 24
    assert windows(load(tmp_path, mistral | {"layer_types": mixed, "sliding_window": 100})) == [None] * 8 + [100] * 24


def test_qwen_slides_only_when_told_and_only_deep_layers(tmp_path: Path) -> None:
    qwen = PUBLISHED["Qwen2.5-7B"][0] | {"sliding_window": 131072, "max_window_layers": 20}
    assert windows(load(tmp_path, qwen)) == [None] * 28
    assert windows(load(tmp_path, qwen | {"use_sliding_window": True})) == [None] * 20 + [131072] * 8


def test_which_layers_have_experts(tmp_path: Path) -> None:
    moe = PUBLISHED["Qwen3-235B-A22B"][0] | {"num_hidden_layers": 6}
    for changes, expected in (
        ({}, [True] * 6),
        ({"decoder_sparse_step": 2}, [False, True] * 3),
        ({"mlp_only_layers": [0, 5]}, [False, True, True, True, True, False]),
    ):
        model = load(tmp_path, moe | changes)
        assert [model.specs[i].moe is not None for i in model.pattern] == expected
    deepseek = PUBLISHED["DeepSeek-V2-Lite"][0] | {"num_hidden_layers": 6, "moe_layer_freq": 2}
    model = load(tmp_path, deepseek)
    assert [model.specs[i].moe is not None for i in model.pattern] == [False, False, True, False, True, False]


def test_a_head_need_not_be_hidden_by_heads(tmp_path: Path) -> None:
    """Qwen3-0.6B: 16 heads of 128 on a hidden size of 1024."""
    model = load(tmp_path, PUBLISHED["Qwen3-0.6B"][0])
    assert (model.q_size, model.hidden) == (2048, 1024)
    qkv, o = model.specs[0].gemms[:2]
    assert (qkv.n, qkv.k, o.n, o.k) == (2048 + 2 * 1024, 1024, 1024, 2048)


def test_biases_count(tmp_path: Path) -> None:
    config = shape("llama", 32, 4096, 32, 14336, 128256, num_key_value_heads=8)
    plain = load(tmp_path, config).parameters
    assert load(tmp_path, config | {"attention_bias": True}).parameters == plain + 32 * (6144 + 4096)
    assert load(tmp_path, config | {"mlp_bias": True}).parameters == plain + 32 * (2 * 14336 + 4096)
    no_bias = load(tmp_path, opt(12, 768, 12) | {"enable_bias": False})
    assert no_bias.parameters == 125_239_296 - 12 * 9 * 768


def test_number_format_of_the_checkpoint(tmp_path: Path) -> None:
    config = shape("llama", 32, 4096, 32, 14336, 128256)
    for dtype, nbytes in (("float16", 2), ("bfloat16", 2), ("float32", 4), (None, 2)):
        model = load(tmp_path, config | {"torch_dtype": dtype})
        assert (model.dtype_bytes, model.weight_bytes) == (nbytes, model.parameters * nbytes)
        assert model.kv_bytes_per_token == 2 * 32 * 32 * 128 * nbytes
    assert load(tmp_path, config | {"dtype": "float32"}).dtype_bytes == 4  # the newer name of the key


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("Mixtral-8x22B", {"num_experts_per_tok": 9}, "num_experts_per_tok: found 9, expected at most the 8 experts"),
        ("Mixtral-8x22B", {"num_local_experts": None}, "num_local_experts: missing key"),
        ("Qwen3-235B-A22B", {"mlp_only_layers": 3}, "mlp_only_layers: found 3, expected a list"),
        ("Qwen3-235B-A22B", {"mlp_only_layers": ["0"]}, "mlp_only_layers: found .*'0'.*, expected a list"),
        ("Qwen3-235B-A22B", {"moe_intermediate_size": None}, "moe_intermediate_size: missing key"),
        ("DeepSeek-V2-Lite", {"q_lora_rank": 0}, "q_lora_rank: found 0"),
        ("DeepSeek-V2-Lite", {"first_k_dense_replace": -1}, "first_k_dense_replace: found -1"),
        ("opt-125m", {"word_embed_proj_dim": 512}, "word_embed_proj_dim: not modelled, found 512"),
        ("opt-125m", {"do_layer_norm_before": False}, "do_layer_norm_before: not modelled"),
        ("gemma-3-1b", {"sliding_window_pattern": 0}, "sliding_window_pattern: found 0"),
    ],
)
def test_refused(name: str, changes: Config, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        load(tmp_path, PUBLISHED[name][0] | changes)
