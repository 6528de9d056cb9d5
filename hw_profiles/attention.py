"""The attention of one layer on one rank: heads, weights, what a token leaves in the cache, FLOP per score.

SOURCE of the tensor shapes: transformers, models/llama, models/deepseek_v3 and models/gpt_oss (modeling files); fused
the way vLLM fuses them (vllm/model_executor/layers/linear.py QKVParallelLinear, models/deepseek_v2.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw_profiles.errors import InputError
from hw_profiles.formats import Format

Shape = tuple[str, int, int]
"""(name, n, k): the weight of [m, k] x [k, n]."""


def visible_pairs(tokens: int, prefix: int, window: int | None = None) -> int:
    """Pairs of a new token and one that it sees (itself included): `tokens` new after `prefix` cached ones, causal.

    Without a window tokens x prefix + tokens (tokens + 1) / 2.
    """
    growing = tokens if window is None else max(0, min(tokens, window - prefix))
    return growing * prefix + growing * (growing + 1) // 2 + (tokens - growing) * (window or 0)


@dataclass(frozen=True)
class GQA:
    """Softmax attention with `kv_heads` shared by groups of `heads`: MHA when equal, MQA when kv_heads is 1.

    window: tokens that a query sees (itself included), None for all. bias: "none", "qkv" or "qkvo".
    qk_norm: queries and keys are normalised per head. sinks: one learned logit per head. rotary: positions by rotation.
    own_kv: False: no keys and values are computed, those of another layer are read.
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    bias: str = "none"
    qk_norm: bool = False
    sinks: bool = False
    rotary: bool = True
    own_kv: bool = True

    kind = "gqa"

    @property
    def label(self) -> str:
        """MHA, GQA or MQA."""
        return "MHA" if self.kv_heads == self.heads else "MQA" if self.kv_heads == 1 else "GQA"

    @property
    def q_size(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv_values(self) -> int:
        """Values that one token leaves in the cache of one layer: K and V of every KV head."""
        return 2 * self.kv_heads * self.head_dim

    def kv_bytes(self, form: Format) -> int:
        """Bytes that one token leaves in the cache of one layer."""
        return form.matrix_bytes(2 * self.kv_heads, self.head_dim)

    @property
    def rotated(self) -> int:
        """Values per token that rotary embedding touches."""
        return self.q_size + self._own // 2 if self.rotary else 0

    @property
    def normalised(self) -> int:
        """Values per token that the norms inside attention touch."""
        return self.q_size + self._own // 2 if self.qk_norm else 0

    @property
    def _own(self) -> int:
        """Values per token of the keys and values that it computes."""
        return self.kv_values if self.own_kv else 0

    def shapes(self, hidden: int) -> tuple[Shape, ...]:
        """Weight matrices."""
        return ("qkv" if self.own_kv else "q", self.q_size + self._own, hidden), ("o", hidden, self.q_size)

    def vector_values(self, hidden: int) -> int:
        """Values of biases, norms and sinks."""
        biases = {"none": 0, "qkv": self.q_size + self._own, "qkvo": self.q_size + self._own + hidden}
        norms = (2 if self.own_kv else 1) * self.head_dim if self.qk_norm else 0
        return biases[self.bias] + norms + (self.heads if self.sinks else 0)

    @property
    def prefill_flops_per_pair(self) -> int:
        """FLOP per pair of a new and a visible token: a score and a weighted value (2 each) per head."""
        return 4 * self.q_size

    decode_flops_per_pair = prefill_flops_per_pair

    def at(self, tp: int) -> GQA:
        """One rank of `tp`: KV heads are split, and replicated when there are fewer than ranks (vLLM's rule)."""
        _must_divide(self.heads, tp, "attention heads")
        if self.kv_heads % tp and tp % self.kv_heads:
            allowed = f"a divisor or a multiple of the {self.kv_heads} KV heads"
            raise InputError("", path="tp", found=tp, allowed=allowed)
        return replace(self, heads=self.heads // tp, kv_heads=max(1, self.kv_heads // tp))


@dataclass(frozen=True)
class MLA:
    """Multi-head latent attention: a token leaves one latent and one rotary key, shared by all heads.

    SOURCE: DeepSeek-V2 (arXiv 2405.04434) section 2.1. q_lora_rank 0: queries are projected in one step.
    Prefill expands the latent into heads (`kv_b`); decode instead folds `kv_b` into query and output and scores the
    latent itself. Per token both read the same weight and do the same FLOP in `kv_b`, so one matrix stands for both;
    a chunk after a cached prefix also expands that prefix's latents (one `kv_b` row per prefix token).
    """

    heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    bias: bool = False
    window: int | None = None

    kind = "mla"
    label = "MLA"
    own_kv = True

    @property
    def q_size(self) -> int:
        """Width of all query heads."""
        return self.heads * (self.nope_dim + self.rope_dim)

    @property
    def kv_values(self) -> int:
        """Values that one token leaves in the cache of one layer: latent and rotary key."""
        return self.kv_lora_rank + self.rope_dim

    def kv_bytes(self, form: Format) -> int:
        """Bytes that one token leaves in the cache of one layer, on every rank."""
        return form.matrix_bytes(1, self.kv_values)

    @property
    def rotated(self) -> int:
        """Values per token that rotary embedding touches."""
        return (self.heads + 1) * self.rope_dim

    @property
    def normalised(self) -> int:
        """Values per token that the norms inside attention touch."""
        return self.q_lora_rank + self.kv_lora_rank

    def shapes(self, hidden: int) -> tuple[Shape, ...]:
        """Weight matrices; those that make the latents are on every rank."""
        if self.q_lora_rank:
            first: tuple[Shape, ...] = (
                ("qkv_a", self.q_lora_rank + self.kv_values, hidden),
                ("q_b", self.q_size, self.q_lora_rank),
            )
        else:
            first = ("q", self.q_size, hidden), ("kv_a", self.kv_values, hidden)
        return (
            *first,
            ("kv_b", self.heads * (self.nope_dim + self.v_dim), self.kv_lora_rank),
            ("o", hidden, self.heads * self.v_dim),
        )

    def vector_values(self, hidden: int) -> int:
        """Values of biases and norms."""
        return self.normalised + (self.q_lora_rank + self.kv_values + hidden if self.bias else 0)

    @property
    def prefill_flops_per_pair(self) -> int:
        """FLOP per pair of a new and a visible token, latents expanded into heads."""
        return 2 * self.heads * (self.nope_dim + self.rope_dim + self.v_dim)

    @property
    def decode_flops_per_pair(self) -> int:
        """FLOP per cached token and new token when the latent itself is scored and summed."""
        return 2 * self.heads * (2 * self.kv_lora_rank + self.rope_dim)

    def at(self, tp: int) -> MLA:
        """One rank of `tp`: heads are split, the latent is whole."""
        _must_divide(self.heads, tp, "attention heads")
        return replace(self, heads=self.heads // tp)


Attention = GQA | MLA


def _must_divide(count: int, tp: int, what: str) -> None:
    if tp < 1 or count % tp:
        raise InputError("", path="tp", found=tp, allowed=f"a divisor of {count} ({what})")
