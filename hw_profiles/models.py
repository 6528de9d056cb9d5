"""What the simulator needs to know about a model, read from its Hugging Face `config.json`.

SOURCE of the parameter arithmetic: the layer definitions of transformers' `LlamaForCausalLM` (dense decoder,
grouped-query attention, gated MLP, RMSNorm) and its Mistral and Qwen2/Qwen3 variants. Llama-3.1-8B gives
8,030,261,248 parameters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import read_text

_SHIPPED = Path(__file__).parent / "models"
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_DTYPE_BYTES = MappingProxyType({"bfloat16": 2, "float16": 2, "float32": 4})
# Keys whose presence (with a real value) means an architecture that this version does not model.
_NOT_MODELLED = MappingProxyType(
    {
        "kv_lora_rank": "multi-head latent attention",
        "num_local_experts": "mixture of experts",
        "num_experts": "mixture of experts",
        "n_routed_experts": "mixture of experts",
        "quantization_config": "quantised weights",
        "text_config": "multimodal models",
    }
)


@dataclass(frozen=True)
class ModelSpec:
    """A dense decoder-only transformer. Counts are per model, sizes in bytes.

    attention_bias: "none", "qkv" (Qwen2) or "qkvo"; mlp_bias and qk_norm (Qwen3) only add weights.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool
    dtype_bytes: int
    max_context: int
    attention_bias: str = "none"
    mlp_bias: bool = False
    qk_norm: bool = False
    source: str = ""
    content_sha256: str = ""

    @property
    def q_size(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads."""
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Exact number of weights, embeddings, norms and biases included."""
        matrices = sum(n * k for _, n, k in self.layer_gemms())
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        biases = {"none": 0, "qkv": self.q_size + 2 * self.kv_size}.get(
            self.attention_bias, self.q_size + 2 * self.kv_size + self.hidden
        )
        biases += 2 * self.intermediate + self.hidden if self.mlp_bias else 0
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * (matrices + norms + biases) + self.hidden + embeddings

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in the config's dtype, on one GPU (no tensor parallelism)."""
        return self.parameters * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token leaves in the cache: 2 (K, V) x layers x kv_heads x head_dim x dtype bytes."""
        return 2 * self.layers * self.kv_size * self.dtype_bytes

    def layer_gemms(self) -> tuple[tuple[str, int, int], ...]:
        """Matrix products of one layer as (name, n, k) for [m, k] x [k, n], fused the way vLLM fuses them."""
        return (
            ("qkv", self.q_size + 2 * self.kv_size, self.hidden),
            ("o", self.hidden, self.q_size),
            ("gate_up", 2 * self.intermediate, self.hidden),
            ("down", self.hidden, self.intermediate),
        )

    @property
    def head_gemm(self) -> tuple[int, int]:
        """(n, k) of the output projection: vocab x hidden."""
        return self.vocab, self.hidden

    @property
    def linear_flops_per_token(self) -> int:
        """FLOP of all matrix products for one token (2 per weight), without attention scores and lookups."""
        return 2 * (self.layers * sum(n * k for _, n, k in self.layer_gemms()) + self.vocab * self.hidden)


def list_models() -> list[str]:
    """Names of the shipped model configs."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/config.json"))


def load_model(name_or_path: str | Path) -> ModelSpec:
    """ModelSpec of a shipped name, a `config.json`, or a folder that holds one. Raises InputError."""
    text = str(name_or_path)
    if text in list_models():
        return _read(_SHIPPED / text / "config.json", name=text)
    path = Path(name_or_path)
    if path.is_dir():
        return _read(path / "config.json", name=path.resolve().name)
    if path.suffix == ".json" or path.exists():
        return _read(path, name=path.resolve().parent.name if path.name == "config.json" else path.stem)
    names = list_models()
    allowed = f"the path of a config.json, or one of {', '.join(names)}"
    raise InputError("unknown model", found=text, allowed=allowed, near=names)


def _read(path: Path, name: str) -> ModelSpec:
    text = read_text(path)
    try:
        config = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: not valid JSON: {error.msg}", where=path) from None
    except InputError as error:
        raise error.at(where=path) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
        raise InputError(f"not usable JSON: {error}", where=path) from None
    if not isinstance(config, dict):
        raise InputError("expected a JSON object", where=path)
    try:
        return _spec(config, name, str(path), hashlib.sha256(text.encode()).hexdigest())
    except InputError as error:
        raise error.at(where=path) from None


def _no_constant(token: str) -> float:
    raise InputError(f"{token} is not a JSON number")


def _spec(config: Mapping[str, Any], name: str, source: str, sha256: str) -> ModelSpec:
    _refuse_not_modelled(config)
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise InputError("not modelled in this version", path="model_type", found=family, allowed=_FAMILIES)
    heads, hidden = _count(config, "num_attention_heads"), _count(config, "hidden_size")
    kv_heads = _count(config, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        allowed = f"a divisor of the {heads} attention heads"
        raise InputError("", path="num_key_value_heads", found=kv_heads, allowed=allowed)
    if config.get("head_dim") is None and hidden % heads:
        allowed = f"a multiple of the {heads} attention heads"
        raise InputError("", path="hidden_size", found=hidden, allowed=allowed)
    dtype = config.get("torch_dtype", config.get("dtype", "bfloat16"))
    if dtype not in _DTYPE_BYTES:
        names = list(_DTYPE_BYTES)
        raise InputError("not modelled in this version", path="torch_dtype", found=dtype, allowed=names)
    bias = "qkv" if family == "qwen2" else "qkvo" if _flag(config, "attention_bias") else "none"
    return ModelSpec(
        name=name,
        layers=_count(config, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_count(config, "head_dim", default=hidden // heads),
        intermediate=_count(config, "intermediate_size"),
        vocab=_count(config, "vocab_size"),
        tied_embeddings=_flag(config, "tie_word_embeddings"),
        dtype_bytes=_DTYPE_BYTES[dtype],
        max_context=_count(config, "max_position_embeddings"),
        attention_bias=bias,
        mlp_bias=_flag(config, "mlp_bias"),
        qk_norm=family == "qwen3",
        source=source,
        content_sha256=sha256,
    )


def _refuse_not_modelled(config: Mapping[str, Any]) -> None:
    for key, what in _NOT_MODELLED.items():
        if config.get(key):
            raise InputError(f"not modelled in this version ({what})", path=key, found=config[key])
    layer_types = config.get("layer_types") or []
    if "sliding_attention" in layer_types:
        raise InputError("not modelled in this version (sliding-window attention)", path="layer_types")
    # Qwen configs carry sliding_window with use_sliding_window: false; elsewhere a set window is in use.
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise InputError(
            "not modelled in this version (sliding-window attention)",
            path="sliding_window",
            found=config["sliding_window"],
        )


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise InputError("missing key", path=key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError("", path=key, found=value, allowed="a positive whole number")
    return value


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise InputError("", path=key, found=value, allowed="true or false")
    return value
