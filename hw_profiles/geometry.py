"""One layer of a model as one rank holds it: matrices, bytes, what it caches, moves and exchanges.

Tensor parallel: q, k, v, up and gate are split by output columns, o and down by input rows, so every layer ends its
attention and its MLP with one all-reduce of the hidden state (Megatron-LM, arXiv 1909.08053 section 3). Experts are
either all on every rank, each split like a dense MLP, or whole and shared out over the ranks (`expert_parallel`, vLLM's
--enable-expert-parallel without data parallelism: tokens are on every rank, so the same all-reduce ends the layer).
Norms, routers and MLA's down-projections are on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from hw_profiles.attention import Attention
from hw_profiles.cadence import EVERY_TOKEN, Cadence
from hw_profiles.formats import BF16, Format
from hw_profiles.mlp import MLP, MoE, expected_experts

FP32_BYTES = 4


class Gemm(NamedTuple):
    """A weight [n, k] of the product [m, k] x [k, n]; `expert`: one of the layer's experts, not always read."""

    name: str
    n: int
    k: int
    format: Format
    expert: bool = False

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight with its scales (of one expert)."""
        return self.format.matrix_bytes(self.n, self.k)


@dataclass(frozen=True)
class LayerSpec:
    """One layer on one of `tp` ranks. Sizes in values and bytes; per token where it says so.

    norms: how many norms of the hidden state it has (2, or 4 where sublayers are normalised on both sides), norm_bias:
    each has a bias too (LayerNorm). base: format of activations and of every tensor that is not quantised.
    formats: (name of the matrix, format) for those that are. kv: format of the cache. cadence: when it runs.
    """

    hidden: int
    attention: Attention
    mlp: MLP | MoE
    norms: int = 2
    norm_bias: bool = False
    base: Format = BF16
    formats: tuple[tuple[str, Format], ...] = ()
    kv: Format = BF16
    tp: int = 1
    cadence: Cadence = EVERY_TOKEN

    @property
    def act_bytes(self) -> int:
        """Bytes of one activation value."""
        return self.base.bits // 8

    @property
    def moe(self) -> MoE | None:
        """The experts, if this layer has any."""
        return self.mlp if isinstance(self.mlp, MoE) else None

    @property
    def gemms(self) -> tuple[Gemm, ...]:
        """The matrix products of a step in order, each one kernel; experts once, as one grouped product."""
        formats = dict(self.formats)
        shapes = self.attention.shapes(self.hidden) + self.mlp.shapes(self.hidden)
        return tuple(Gemm(s[0], s[1], s[2], formats.get(s[0], self.base), s[0].startswith("expert_")) for s in shapes)

    @property
    def window(self) -> int | None:
        """Tokens that stay visible, None for all."""
        return self.attention.window

    @property
    def stores(self) -> bool:
        """True if it has a cache of its own; False: it reads that of another layer."""
        return self.attention.own_kv

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry of the cache that this layer reads, on this rank."""
        return self.attention.kv_bytes(self.kv)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token leaves in this layer's cache on this rank, on average; 0: none that outlast a step."""
        if not self.stores or self.scratch_bytes:
            return 0
        return -(-self.entry_bytes // self.cadence.period)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of a decoding sequence that are kept apart, whatever its length: the window of a layer that never sees
        the prompt and starts anew with every block (Block Transformer's token decoder)."""
        if not self.stores or not self.cadence.skips_prompt or self.window is None:
            return 0
        return self.window * self.entry_bytes

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of one sequence of `tokens` tokens, of which only those inside the window are kept."""
        kept = tokens if self.window is None else min(tokens, self.window)
        return self.kv_bytes_per_token * kept + self.scratch_bytes

    @property
    def parameters(self) -> int:
        """Weights on this rank: matrices, norms, biases."""
        return self._matrices(self.moe.local if self.moe else 0) + self._vectors + self._fp32_values

    @property
    def active_parameters(self) -> int:
        """Weights that one token uses: top_k experts instead of all (for the whole layer, tp 1)."""
        moe = self.moe
        if moe is None:
            return self.parameters
        unused = moe.experts - moe.top_k
        biases = unused * (2 * moe.intermediate + self.hidden) if moe.bias else 0
        return self._matrices(moe.top_k) + self._vectors - biases + self._fp32_values

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights on this rank."""
        return self.weight_bytes_dense + (self.moe.local * self.weight_bytes_expert if self.moe else 0)

    @property
    def weight_bytes_dense(self) -> int:
        """Bytes of what every step reads: all but the experts' matrices."""
        matrices = sum(g.weight_bytes for g in self.gemms if not g.expert)
        return matrices + self._vectors * self.act_bytes + self._fp32_values * FP32_BYTES

    @property
    def weight_bytes_expert(self) -> int:
        """Bytes of one expert's matrices, 0 without experts."""
        return sum(g.weight_bytes for g in self.gemms if g.expert)

    def experts_touched(self, tokens: float) -> float:
        """Expected number of this rank's experts that a step of `tokens` tokens reads (`expected_experts`)."""
        return expected_experts(self.moe.local, self.moe.share, tokens) if self.moe else 0.0

    def expert_rows(self, tokens: float) -> float:
        """Rows (token, expert) that this rank's experts compute together in a step of `tokens` tokens, expected."""
        return tokens * self.moe.share * self.moe.local if self.moe else 0.0

    def weight_bytes_read(self, tokens: float) -> float:
        """Expected bytes of weights that a step of `tokens` tokens reads."""
        return self.weight_bytes_dense + self.experts_touched(tokens) * self.weight_bytes_expert

    @property
    def flops_per_token(self) -> float:
        """FLOP of the matrix products for one token on this rank (2 per weight used), without attention scores."""
        rows = self.expert_rows(1)
        return sum(2.0 * g.n * g.k * (rows if g.expert else 1) for g in self.gemms)

    @property
    def elementwise(self) -> tuple[tuple[str, float], ...]:
        """(kernel, bytes read and written per token) of everything between the matrix products.

        A norm reads input and residual and writes both; a norm of a sublayer's output has no residual. The cache write
        reads activations and writes the cache's format. Experts' outputs are summed: top_k rows in, one out.
        """
        b, attention, moe = self.act_bytes, self.attention, self.moe
        parts: list[tuple[str, float]] = [("attention_norm", 4 * self.hidden * b)]
        if attention.normalised:
            parts.append(("qk_norm", 2 * attention.normalised * b))
        if attention.rotated:
            parts.append(("rotary", 2 * attention.rotated * b))
        if attention.own_kv:
            parts.append(("cache_write", attention.kv_values * b + self.entry_bytes))
        parts.append(("mlp_norm", 4 * self.hidden * b))
        parts += [("output_norm", 2 * self.hidden * b)] * (self.norms - 2)
        if moe is not None:
            parts.append(("route", 2 * moe.experts * FP32_BYTES))
        parts.append(("activation", self.mlp.activated * b))
        if moe is not None:
            parts.append(("combine", (moe.top_k + 1) * self.hidden * b))
        return tuple(parts)

    @property
    def elementwise_bytes(self) -> float:
        """Bytes per token of all `elementwise` kernels."""
        return sum(nbytes for _, nbytes in self.elementwise)

    @property
    def kernels(self) -> int:
        """Kernels that one step launches: matrix products, attention, elementwise."""
        return len(self.gemms) + 1 + len(self.elementwise)

    @property
    def all_reduces(self) -> int:
        """All-reduces per step: after attention and after the MLP, none on a single rank."""
        return 2 if self.tp > 1 else 0

    @property
    def all_reduce_bytes_per_token(self) -> int:
        """Message size per token of each of the `all_reduces`: the hidden state."""
        return self.hidden * self.act_bytes

    def at(self, tp: int, *, expert_parallel: bool = False) -> LayerSpec:
        """This whole layer (tp 1) as one rank of `tp` holds it. Raises InputError when it cannot be split."""
        if self.tp != 1:
            raise ValueError("already split")
        attention = self.attention.at(tp)
        mlp = self.mlp.at(tp, expert_parallel) if isinstance(self.mlp, MoE) else self.mlp.at(tp)
        return replace(self, attention=attention, mlp=mlp, tp=tp)

    def _matrices(self, experts: int) -> int:
        return sum(g.n * g.k * (experts if g.expert else 1) for g in self.gemms)

    @property
    def _vectors(self) -> int:
        norms = self.norms * self.hidden * (2 if self.norm_bias else 1)
        return norms + self.attention.vector_values(self.hidden) + self.mlp.vector_values(self.hidden)

    @property
    def _fp32_values(self) -> int:
        return self.moe.experts if self.moe and self.moe.score_bias else 0
