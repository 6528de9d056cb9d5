"""From the content of a Hugging Face `config.json` to a ModelSpec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from hw_profiles.attention import GQA, MLA, Attention
from hw_profiles.errors import InputError
from hw_profiles.families import FAMILIES, Family
from hw_profiles.formats import WEIGHT_FORMATS, Format
from hw_profiles.geometry import LayerSpec
from hw_profiles.mlp import MLP, MoE
from hw_profiles.model_spec import ModelSpec
from hw_profiles.quantization import Quantization, read_quantization

_DTYPES = MappingProxyType({"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"})
_MOST = 2**32
_MOST_LAYERS = 10_000
_LAYER_TYPES = ("full_attention", "sliding_attention")
# Keys whose presence (with a real value) means something that no family of the table has.
_NOT_MODELLED = MappingProxyType(
    {
        "text_config": "multimodal models; give the content of text_config as a config.json of its own",
        "index_topk": "sparse attention by an indexer",
        "num_kv_shared_layers": "layers that share a cache",
        "attention_chunk_size": "chunked attention",
    }
)


@dataclass(frozen=True)
class _Keys:
    """The keys of a config, with the family's defaults for absent (or null) ones."""

    config: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def get(self, key: str) -> Any:
        value = self.config.get(key)
        return self.defaults.get(key) if value is None else value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise InputError("missing key", path=key)
        if type(value) is not int or value < least:
            allowed = "a positive whole number" if least else "a whole number from 0"
            raise InputError("", path=key, found=value, allowed=allowed)
        if value > _MOST:
            raise InputError("too large", path=key, allowed=f"at most {_MOST}")
        return value

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if value is None:
            return False
        if type(value) is not bool:
            raise InputError("", path=key, found=value, allowed="true or false")
        return value


def model_from_config(config: Mapping[str, Any], *, name: str, source: str, sha256: str) -> ModelSpec:
    """The model that `config` describes. `_source` in it replaces `source`, `_model` is the `origin`.

    Raises InputError, naming the key: unknown model_type (with the nearest known), missing keys, wrong types and
    sizes, and what is not modelled.
    """
    family_name = config.get("model_type")
    if family_name is None:
        raise InputError("missing key", path="model_type")
    family = FAMILIES.get(family_name) if isinstance(family_name, str) else None
    for key, what in _NOT_MODELLED.items():
        if config.get(key):
            raise InputError(f"not modelled ({what})", path=key)
    if family is None:
        raise InputError("unknown architecture", path="model_type", found=family_name, allowed=FAMILIES, near=FAMILIES)
    keys = _Keys(config, family.defaults)
    hidden, layers = keys.count("hidden_size"), keys.count("num_hidden_layers")
    if layers > _MOST_LAYERS:
        raise InputError("", path="num_hidden_layers", found=layers, allowed=f"at most {_MOST_LAYERS}")
    base, quantization = _base(keys), read_quantization(config)
    windows, mlps = _windows(keys, family, layers), _mlps(keys, family, layers)
    plain = _attention(keys, family, hidden, None)
    specs: dict[LayerSpec, int] = {}
    pattern = []
    for i in range(layers):
        attention = plain if windows[i] is None else _attention(keys, family, hidden, windows[i])
        spec = LayerSpec(hidden, attention, mlps[i], family.norms, family.norm_bias, base, kv=quantization.kv or base)
        spec = _quantised(spec, quantization, f"{family.layer_path}.{i}")
        pattern.append(specs.setdefault(spec, len(specs)))
    _check_opt(keys, family_name, hidden)
    max_context = keys.count("max_position_embeddings")
    return ModelSpec(
        name=name,
        family=family_name,
        layers=layers,
        hidden=hidden,
        heads=plain.heads,
        kv_heads=plain.kv_heads if isinstance(plain, GQA) else 1,
        head_dim=plain.q_size // plain.heads,
        intermediate=keys.count(family.intermediate),
        vocab=keys.count("vocab_size"),
        tied_embeddings=keys.flag("tie_word_embeddings"),
        max_context=max_context,
        specs=tuple(specs),
        pattern=tuple(pattern),
        position_rows=0 if family.positions is None else max_context + family.positions,
        source=str(config.get("_source") or source),
        origin=str(config.get("_model") or ""),
        content_sha256=sha256,
    )


def _base(keys: _Keys) -> Format:
    dtype = keys.config.get("torch_dtype", keys.config.get("dtype"))
    if dtype is None:
        return WEIGHT_FORMATS["bf16"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError("not modelled", path="torch_dtype", found=dtype, allowed=list(_DTYPES))
    return WEIGHT_FORMATS[_DTYPES[dtype]]


def _attention(keys: _Keys, family: Family, hidden: int, window: int | None) -> Attention:
    heads = keys.count("num_attention_heads")
    bias = family.bias
    if bias not in ("none", "qkv"):
        bias = "none" if not keys.flag(family.bias) else "qkv" if family.bias == "qkv_bias" else "qkvo"
    if family.mla:
        return MLA(
            heads=heads,
            q_lora_rank=0 if keys.get("q_lora_rank") is None else keys.count("q_lora_rank"),
            kv_lora_rank=keys.count("kv_lora_rank"),
            nope_dim=keys.count("qk_nope_head_dim"),
            rope_dim=keys.count("qk_rope_head_dim"),
            v_dim=keys.count("v_head_dim"),
            bias=bias != "none",
        )
    kv_heads = keys.count("num_key_value_heads", default=heads)
    if heads % kv_heads:
        allowed = f"a divisor of the {heads} attention heads"
        raise InputError("", path="num_key_value_heads", found=kv_heads, allowed=allowed)
    if keys.get("head_dim") is None and hidden % heads:
        allowed = f"a multiple of the {heads} attention heads"
        raise InputError("", path="hidden_size", found=hidden, allowed=allowed)
    return GQA(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=keys.count("head_dim", default=hidden // heads),
        window=window,
        bias=bias,
        qk_norm=family.qk_norm,
        sinks=family.sinks,
        rotary=family.positions is None,
    )


def _windows(keys: _Keys, family: Family, layers: int) -> list[int | None]:
    """The window of each layer, None where it sees everything."""
    kinds = keys.get("layer_types")
    if kinds is not None:
        return _listed_windows(keys, kinds, layers)
    rule = family.window
    # an explicit null means that nothing slides, whatever the family's default is
    off = "sliding_window" in keys.config and keys.config["sliding_window"] is None
    if rule == "deep":
        off = off or not keys.flag("use_sliding_window")
    elif rule == "never" and keys.config.get("sliding_window"):
        raise InputError("not modelled for this model_type without layer_types", path="sliding_window")
    if off or rule == "never" or keys.get("sliding_window") is None:
        return [None] * layers
    window = keys.count("sliding_window")
    if rule == "all":
        return [window] * layers
    if rule == "deep":
        start = keys.count("max_window_layers", least=0)
        return [window if i >= start else None for i in range(layers)]
    every = 2 if rule == "even" else keys.count("sliding_window_pattern")
    return [window if (i + 1) % every else None for i in range(layers)]


def _listed_windows(keys: _Keys, kinds: Any, layers: int) -> list[int | None]:
    if not isinstance(kinds, list) or len(kinds) != layers:
        found = f"{len(kinds)} entries" if isinstance(kinds, list) else kinds
        raise InputError("", path="layer_types", found=found, allowed=f"a list of {layers}, one for each layer")
    for i, kind in enumerate(kinds):
        if kind not in _LAYER_TYPES:
            raise InputError("not modelled", path=f"layer_types.{i}", found=kind, allowed=_LAYER_TYPES)
    return [keys.count("sliding_window") if kind == "sliding_attention" else None for kind in kinds]


def _mlps(keys: _Keys, family: Family, layers: int) -> list[MLP | MoE]:
    """The MLP of each layer: dense, or experts."""
    dense = MLP(keys.count(family.intermediate), family.gated, bool(family.mlp_bias) and keys.flag(family.mlp_bias))
    if not family.experts:
        _refuse_foreign(keys)
        return [dense] * layers
    moe = _moe(keys, family)
    step = keys.count("decoder_sparse_step", default=1)
    first = keys.count(family.dense_first, default=0, least=0) if family.dense_first else 0
    freq = keys.count("moe_layer_freq", default=1)
    listed = keys.get("mlp_only_layers") or []
    if not isinstance(listed, list) or not all(type(i) is int for i in listed):
        raise InputError("", path="mlp_only_layers", found=listed, allowed="a list of layer numbers")

    def is_moe(i: int) -> bool:
        return i >= first and i not in listed and (i + 1) % step == 0 and i % freq == 0

    return [moe if is_moe(i) else dense for i in range(layers)]


def _moe(keys: _Keys, family: Family) -> MoE:
    experts = keys.count(family.experts)
    top_k = keys.count("num_experts_per_tok")
    if top_k > experts:
        raise InputError("", path="num_experts_per_tok", found=top_k, allowed=f"at most the {experts} experts")
    width = keys.count(family.expert_intermediate)
    shared = 0
    if family.shared:
        shared = keys.count(family.shared, default=0, least=0)
        shared *= width if family.shared == "n_shared_experts" else 1
    return MoE(
        experts=experts,
        top_k=top_k,
        intermediate=width,
        local=experts,
        shared=shared,
        shared_gate=bool(shared) and family.shared == "shared_expert_intermediate_size",
        bias=family.expert_bias,
        router_bias=family.expert_bias,
        score_bias=family.score_bias,
    )


def _refuse_foreign(keys: _Keys) -> None:
    """A dense model_type with keys of experts or latents was edited by hand: what is meant is not clear."""
    owners: dict[str, list[str]] = {"kv_lora_rank": []}
    for name, family in FAMILIES.items():
        if family.experts:
            owners.setdefault(family.experts, []).append(name)
        if family.mla:
            owners["kv_lora_rank"].append(name)
    for key, names in owners.items():
        if keys.config.get(key):
            raise InputError(f"not part of this model_type, but of {', '.join(names)}", path=key)


def _quantised(spec: LayerSpec, quantization: Quantization, path: str) -> LayerSpec:
    formats = ((gemm.name, quantization.format_of(gemm.name, path)) for gemm in spec.gemms)
    return replace(spec, formats=tuple((name, form) for name, form in formats if form is not None))


def _check_opt(keys: _Keys, family: str, hidden: int) -> None:
    """OPT-350M alone projects its embeddings and normalises after the sublayers."""
    if family != "opt":
        return
    width = keys.count("word_embed_proj_dim", default=hidden)
    if width != hidden:
        raise InputError("not modelled", path="word_embed_proj_dim", found=width, allowed=f"hidden_size ({hidden})")
    if keys.config.get("do_layer_norm_before", True) is not True:
        raise InputError("not modelled", path="do_layer_norm_before", found=False, allowed="true")
