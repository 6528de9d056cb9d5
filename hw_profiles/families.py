"""How transformers builds the layers of each model_type, where config.json does not say it.

SOURCE: the configuration and modeling files of transformers 4.57 (src/transformers/models/<model_type>/): defaults of
keys that a config may leave out, which projections have biases, which norms there are, which layers slide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Family:
    """One model_type.

    bias: of attention: "none", "qkv", or the key whose true value means "qkvo" (or "qkv" for qkv_bias).
    mlp_bias: the key that says it, or "". norms: of the hidden state per layer; norm_bias: they are LayerNorms.
    window: which layers slide when `layer_types` is absent: "all", "even" (0, 2, ...), "pattern" (all but every
    sliding_window_pattern-th), "deep" (from max_window_layers on, if use_sliding_window), "never".
    experts: the key of their number, "" for a dense model; shared: the key of the shared experts' number or width;
    dense_first: the key of how many first layers stay dense. positions: learned positions beyond
    max_position_embeddings, None for rotary ones. defaults: values of absent keys.
    """

    bias: str = "none"
    qk_norm: bool = False
    sinks: bool = False
    norms: int = 2
    norm_bias: bool = False
    gated: bool = True
    mlp_bias: str = ""
    intermediate: str = "intermediate_size"
    window: str = "never"
    mla: bool = False
    experts: str = ""
    expert_intermediate: str = "moe_intermediate_size"
    shared: str = ""
    dense_first: str = ""
    expert_bias: bool = False
    score_bias: bool = False
    positions: int | None = None
    layer_path: str = "model.layers"
    defaults: Mapping[str, Any] = field(default_factory=lambda: _NONE)


def _family(base: Family | None = None, defaults: Mapping[str, Any] = _NONE, **changes: Any) -> Family:
    base = base or Family()
    return replace(base, **changes, defaults=MappingProxyType({**base.defaults, **defaults}))


_LLAMA = _family(bias="attention_bias", mlp_bias="mlp_bias")
_QWEN2 = _family(bias="qkv", window="deep", defaults={"max_window_layers": 28, "sliding_window": 4096})
_QWEN3 = _family(_QWEN2, bias="attention_bias", qk_norm=True, defaults={"head_dim": 128})
_QWEN2_MOE = _family(
    _QWEN2,
    bias="qkv_bias",
    experts="num_experts",
    shared="shared_expert_intermediate_size",
    defaults={"qkv_bias": True, "decoder_sparse_step": 1},
)
_GEMMA = _family(bias="attention_bias", defaults={"head_dim": 256, "tie_word_embeddings": True})
_GEMMA2 = _family(_GEMMA, norms=4, window="even", defaults={"sliding_window": 4096})
_DEEPSEEK_V2 = _family(
    bias="attention_bias",
    mla=True,
    experts="n_routed_experts",
    shared="n_shared_experts",
    dense_first="first_k_dense_replace",
    defaults={"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128},
)
_DEEPSEEK_V3 = _family(_DEEPSEEK_V2, score_bias=True)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": _family(window="all", defaults={"num_key_value_heads": 8, "sliding_window": 4096}),
        "mixtral": _family(
            window="all",
            experts="num_local_experts",
            expert_intermediate="intermediate_size",
            defaults={"num_key_value_heads": 8},
        ),
        "phi3": _family(window="all"),
        "qwen2": _QWEN2,
        "qwen2_moe": _QWEN2_MOE,
        "qwen3": _QWEN3,
        "qwen3_moe": _family(_QWEN2_MOE, bias="attention_bias", qk_norm=True, shared="", defaults={"qkv_bias": False}),
        "gemma": _GEMMA,
        "gemma2": _GEMMA2,
        "gemma3_text": _family(_GEMMA2, qk_norm=True, window="pattern", defaults={"sliding_window_pattern": 6}),
        "opt": _family(
            bias="enable_bias",
            norm_bias=True,
            gated=False,
            mlp_bias="enable_bias",
            intermediate="ffn_dim",
            positions=2,
            layer_path="model.decoder.layers",
            defaults={"enable_bias": True, "tie_word_embeddings": True},
        ),
        "gpt_neox": _family(
            bias="attention_bias",
            norm_bias=True,
            gated=False,
            mlp_bias="mlp_bias",
            layer_path="gpt_neox.layers",
            defaults={"attention_bias": True, "mlp_bias": True},
        ),
        "deepseek_v2": _DEEPSEEK_V2,
        "deepseek_v3": _DEEPSEEK_V3,
        "kimi_k2": _DEEPSEEK_V3,
        "gpt_oss": _family(
            bias="attention_bias",
            sinks=True,
            window="even",
            experts="num_local_experts",
            expert_intermediate="intermediate_size",
            expert_bias=True,
            defaults={"attention_bias": True, "head_dim": 64, "sliding_window": 128},
        ),
    }
)
