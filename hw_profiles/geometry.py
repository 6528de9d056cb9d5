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

from hw_profiles.attention import Attention, Shape
from hw_profiles.errors import InputError
from hw_profiles.formats import BF16, Format

FP32_BYTES = 4


def expected_experts(experts: float, share: float, tokens: float) -> float:
    """How many of `experts` at least one of `tokens` tokens selects: experts x (1 - (1 - share)^tokens).

    share = top_k / all experts: routing uniform, tokens independent. Real routers are skewed and touch fewer.
    """
    touched: float = experts * (1.0 - (1.0 - share) ** tokens)
    return touched


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
class MLP:
    """A dense MLP of width `intermediate`: gate, up and down, or only up and down (`gated` False)."""

    intermediate: int
    gated: bool = True
    bias: bool = False

    def shapes(self, hidden: int) -> tuple[Shape, ...]:
        """Weight matrices."""
        first = ("gate_up", 2 * self.intermediate, hidden) if self.gated else ("up", self.intermediate, hidden)
        return first, ("down", hidden, self.intermediate)

    def vector_values(self, hidden: int) -> int:
        """Values of the biases."""
        return ((2 if self.gated else 1) * self.intermediate + hidden) if self.bias else 0

    @property
    def activated(self) -> int:
        """Values per token that the activation reads and writes."""
        return (3 if self.gated else 2) * self.intermediate

    def at(self, tp: int) -> MLP:
        """One rank of `tp`."""
        return replace(self, intermediate=_split(self.intermediate, tp))


@dataclass(frozen=True)
class MoE:
    """`top_k` of `experts` gated MLPs per token, `local` of them on this rank, beside a shared MLP that all use.

    shared: width of the shared experts together, 0 for none. shared_gate: its output is scaled by a gate (Qwen2-MoE).
    router_bias: on the logits (gpt-oss). score_bias: fp32 correction of the selection (DeepSeek-V3). bias: of experts.
    """

    experts: int
    top_k: int
    intermediate: int
    local: int
    shared: int = 0
    shared_gate: bool = False
    bias: bool = False
    router_bias: bool = False
    score_bias: bool = False

    @property
    def share(self) -> float:
        """Chance that a token selects a given expert."""
        return self.top_k / self.experts

    def shapes(self, hidden: int) -> tuple[Shape, ...]:
        """Weight matrices; those of an expert once."""
        shared: tuple[Shape, ...] = ()
        if self.shared:
            shared = ("shared_gate_up", 2 * self.shared, hidden), ("shared_down", hidden, self.shared)
        if self.shared_gate:
            shared = (*shared, ("shared_gate", 1, hidden))
        experts: tuple[Shape, ...] = (
            ("expert_gate_up", 2 * self.intermediate, hidden),
            ("expert_down", hidden, self.intermediate),
        )
        return (("router", self.experts, hidden), *experts, *shared)

    def vector_values(self, hidden: int) -> int:
        """Values of the biases, without the fp32 score_bias."""
        experts = self.local * (2 * self.intermediate + hidden) if self.bias else 0
        return experts + (self.experts if self.router_bias else 0)

    @property
    def activated(self) -> float:
        """Values per token that the activations read and write, of the experts on this rank on average."""
        return 3 * (self.top_k * self.local / self.experts * self.intermediate + self.shared)

    def at(self, tp: int, expert_parallel: bool) -> MoE:
        """One rank of `tp`; under `expert_parallel` the fullest one."""
        shared = _split(self.shared, tp)
        if expert_parallel:
            return replace(self, local=-(-self.local // tp), shared=shared)
        return replace(self, intermediate=_split(self.intermediate, tp), shared=shared)


@dataclass(frozen=True)
class LayerSpec:
    """One layer on one of `tp` ranks. Sizes in values and bytes; per token where it says so.

    norms: how many norms of the hidden state it has (2, or 4 where sublayers are normalised on both sides), norm_bias:
    each has a bias too (LayerNorm). base: format of activations and of every tensor that is not quantised.
    formats: (name of the matrix, format) for those that are. kv: format of the cache.
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
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token leaves in this layer's cache on this rank."""
        return self.attention.kv_bytes(self.kv)

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of one sequence of `tokens` tokens, of which only those inside the window are kept."""
        return self.kv_bytes_per_token * (tokens if self.window is None else min(tokens, self.window))

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
        parts.append(("cache_write", attention.kv_values * b + self.kv_bytes_per_token))
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


def _split(width: int, tp: int) -> int:
    if tp < 1 or width % tp:
        raise InputError("", path="tp", found=tp, allowed=f"a divisor of {width} (width of the MLP)")
    return width // tp
