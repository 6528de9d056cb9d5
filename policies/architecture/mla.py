"""Multi-head latent attention in place of heads: one latent and one rotary key per token and layer."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.attention import GQA, MLA
from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture, heads_of, layers_of, renamed, with_layers
from policies.options import whole


class LatentAttention(Architecture):
    """The KV heads of a layer become a latent of `kv_lora_rank` values and a rotary key of `rope_dim` for all heads.

    Bytes per token and layer: (kv_lora_rank + rope_dim) x element bytes. Query heads keep their number; each gets
    rope_dim further values, its others and the values' keep the width of the model's heads. Biases and norms of queries
    and keys are left out. q_lora_rank 0: queries are projected in one step. Decoding folds the expansion into query and
    output, as `hw_profiles.attention.MLA` says.
    SOURCE: DeepSeek-V2 (arXiv 2405.04434) section 2.1 (512 + 64); Meng et al., TransMLA (arXiv 2502.07864), which
    converts trained models with heads. That quality survives is not claimed here.
    """

    def __init__(self, kv_lora_rank: int = 512, rope_dim: int = 64, q_lora_rank: int = 0) -> None:
        self.kv_lora_rank = whole("kv_lora_rank", kv_lora_rank, 1, 1 << 20)
        self.rope_dim = whole("rope_dim", rope_dim, 1, 1 << 16)
        self.q_lora_rank = whole("q_lora_rank", q_lora_rank, 0, 1 << 20)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        found = [heads_of(layer, model, "mla") for layer in layers_of(model)]
        queries = ("qkv_a", "q_b") if self.q_lora_rank else ("q", "kv_a")
        made = [
            renamed(replace(layer, attention=self._latent(attention)), {"qkv": (*queries, "kv_b")})
            for layer, attention in zip(layers_of(model), found, strict=True)
        ]
        note = (
            f"{model.name} is taken to be converted to latent attention ({self.kv_lora_rank} + {self.rope_dim} values "
            "per token and layer) with the widths of its heads kept; what that does to its answers is not modelled"
        )
        made_of = with_layers(model, made, f"mla{self.kv_lora_rank}")
        return replace(made_of, kv_heads=1, notes=(*model.notes, note))

    def _latent(self, attention: GQA) -> MLA:
        return MLA(
            heads=attention.heads,
            q_lora_rank=self.q_lora_rank,
            kv_lora_rank=self.kv_lora_rank,
            nope_dim=attention.head_dim,
            rope_dim=self.rope_dim,
            v_dim=attention.head_dim,
            window=attention.window,
        )
