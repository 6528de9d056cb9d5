"""What follows the attention of a layer: a dense MLP, or experts of which every token selects some."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw_profiles.attention import Shape
from hw_profiles.errors import InputError


def expected_experts(experts: float, share: float, tokens: float) -> float:
    """How many of `experts` at least one of `tokens` tokens selects: experts x (1 - (1 - share)^tokens).

    share = top_k / all experts: routing uniform, tokens independent. Real routers are skewed and touch fewer.
    """
    touched: float = experts * (1.0 - (1.0 - share) ** tokens)
    return touched


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


def _split(width: int, tp: int) -> int:
    if tp < 1 or width % tp:
        raise InputError("", path="tp", found=tp, allowed=f"a divisor of {width} (width of the MLP)")
    return width // tp
