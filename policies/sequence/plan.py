"""What policies within a sequence return: a plan per layer, as data. The engine charges its bytes, kernels and waits.

All amounts are per sequence and layer (unless they say otherwise), of the whole layer over all tensor-parallel ranks;
they are lines in the sequence's context and prompt (`policies.lines`). What comes in bursts (a page that fills every 32
tokens, a residual window that is quantised as a whole) is charged at its mean per step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from hw_profiles.lines import CONTEXT, NOTHING, Line, constant, newest

Direction = Literal["h2d", "d2h"]
When = Literal["critical", "ahead", "async"]
Via = Literal["dma", "gather", "zero_copy", "fault"]

ONE = constant(1.0)


@dataclass(frozen=True)
class Work:
    """A kernel that a layer runs besides those of the model. Time = max(bytes / (efficiency B_HBM), FLOP / rate) +
    launches x launch time, over the sums of all sequences of the step.

    nbytes      HBM bytes read and written
    flops       arithmetic on tensor cores or SIMD units, charged at the profile's rate of prefill attention
    efficiency  share of the profile's HBM read rate that the kernel reaches
    launches    kernels that it takes per layer and step, however many sequences there are
    seconds     of each step, whatever the sequences (host code such as a Python loop); per layer
    fixed       HBM bytes of each step, whatever the sequences (weights); per layer
    host_seconds  of host threads, summed over the sequences of the step (attention or clustering on CPUs)
    beside      host_seconds run beside the kernels of the whole step, which takes at least as long as their sum over
                layers; otherwise the layer waits for them
    source      where its amounts and efficiency come from
    """

    kernel: str
    nbytes: Line = NOTHING
    flops: Line = NOTHING
    efficiency: float = 1.0
    launches: int = 1
    seconds: float = 0.0
    fixed: float = 0.0
    host_seconds: Line = NOTHING
    beside: bool = False
    source: str = ""


@dataclass(frozen=True)
class Move:
    """Bytes that cross the GPU's host link because of a layer in one step.

    nbytes     per sequence; `fixed`: per step, whatever the sequences (weights)
    copies     separate pieces of them, each at the link's cost per copy
    when       critical: the layer's attention waits for it, and it starts when the layer does (after its `works`)
               ahead: it starts when the layer before starts, and this layer waits for it
               async: nothing waits for it, but it takes the link (stores of what was computed)
    via        dma: copy engine. gather: host threads collect pieces into a pinned buffer at `rate` bytes/s first, then
               one copy. zero_copy: a kernel reads rows over the link at `rate` at most. fault: pages migrate at `rate`
    """

    direction: Direction
    nbytes: Line = NOTHING
    copies: Line = ONE
    when: When = "critical"
    via: Via = "dma"
    rate: float | None = None
    fixed: float = 0.0
    source: str = ""


StepMove = Move
"""Its public name: `kvsim.Move` is that of blocks between tiers."""


@dataclass(frozen=True)
class Form:
    """How a kept token is stored: bytes of its keys and values as shares of what the engine's own format takes.

    key, value          shares of the quantised or pruned part (scales and zero points included)
    key_full, value_full  the newest tokens that stay in the engine's own format (mean over a burst)
    rate                bandwidth of the attention kernel that reads this, as a share of that of the plain one: 1 where
                        a fused kernel keeps up; less where unpacking bounds it
    beside              plain tokens' worth of bytes that other kernels move per attended token: 2 where tokens are
                        unpacked to the engine's format first (written, and then read instead of the packed ones)
    """

    key: float = 1.0
    value: float = 1.0
    key_full: int = 0
    value_full: int = 0
    rate: float = 1.0
    beside: float = 0.0

    @property
    def plain(self) -> bool:
        """True if nothing is changed."""
        return self == PLAIN

    def of(self, tokens: Line) -> Line:
        """Tokens' worth of plain KV that `tokens` take (keys are half of a plain token's bytes)."""
        if self.plain:
            return tokens
        line = tokens * ((self.key + self.value) / 2)
        for share, full in ((self.key, self.key_full), (self.value, self.value_full)):
            if full and share != 1.0:
                line = line + newest(tokens, full) * ((1.0 - share) / 2)
        return line

    def read(self, tokens: Line) -> Line:
        """Plain tokens' worth of bytes that attention over `tokens` takes the time of."""
        if self.plain:
            return tokens
        return self.of(tokens) * (1.0 / self.rate) + tokens * self.beside


PLAIN = Form()
"""The engine's own format."""


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a sequence.

    kept        tokens whose KV is in HBM while the sequence decodes
    attended    tokens that decode attention reads, from HBM
    form        how kept tokens are stored and read
    extra       HBM bytes of digests, codes, partial keys, states, scores kept beside the KV
    host        bytes of host memory
    works       kernels of a decode step
    moves       copies of a decode step
    prompt_works, prompt_moves   the same for the tokens of a prompt as it is computed: lines in the tokens computed so
                far, charged by their growth (`prompt` terms are not allowed)
    after_prompt  kernels that run once when the prompt is complete: lines in P
    pair_bytes  HBM bytes per (query, key) pair of the prompt beyond the attention kernel's own: scores written out
    prefill_flops  FLOP of prefill attention as a share of the full one
    kept_in_prefill  tokens in HBM while the prompt is computed; None: all (what is dropped goes when it is complete)
    fixed_extra HBM bytes whatever the sequences (partial weights, predictors)
    l2_lookahead  bytes of KV that are requested into L2 before decode attention reads them (`sim.cost.l2_prefetch`)
    attention_share  of the HBM's rate that the decode attention kernel reads at; None: as the profile's kernel does
    """

    kept: Line = CONTEXT
    attended: Line = CONTEXT
    form: Form = PLAIN
    extra: Line = NOTHING
    host: Line = NOTHING
    works: tuple[Work, ...] = ()
    moves: tuple[Move, ...] = ()
    prompt_works: tuple[Work, ...] = ()
    prompt_moves: tuple[Move, ...] = ()
    after_prompt: tuple[Work, ...] = ()
    pair_bytes: float = 0.0
    prefill_flops: float = 1.0
    kept_in_prefill: Line | None = None
    fixed_extra: float = 0.0
    l2_lookahead: int = 0
    attention_share: float | None = None

    @property
    def plain(self) -> bool:
        """True if the layer does what the engine does by itself."""
        return self == FULL

    def plus(self, *, works: Sequence[Work] = (), moves: Sequence[Move] = (), extra: Line | None = None) -> LayerPlan:
        """With more kernels, copies and metadata."""
        return replace(
            self,
            works=(*self.works, *works),
            moves=(*self.moves, *moves),
            extra=self.extra if extra is None else self.extra + extra,
        )


FULL = LayerPlan()
"""Everything is kept in HBM and read by every step."""


@dataclass(frozen=True)
class LayerView:
    """What a policy may see of the layer that it plans for, and of the run.

    Bytes and widths are of the whole layer, all ranks. token_bytes: keys and values of one token in the engine's own
    format; 2 x kv_heads x head_dim x element bytes without MLA. weight_bytes: of the layer's weights.
    ffn_width: values between the two halves of a dense FFN, 0 if the layer has none. longest: tokens of the longest
    sequence of the run, prompt and output, as far as the trace tells; None: nobody says.
    """

    index: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    token_bytes: float
    element_bytes: float
    latent: bool
    window: int | None
    max_context: int
    max_seqs: int
    importance: Importance
    weight_bytes: float = 0.0
    ffn_width: int = 0
    longest: int | None = None

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence of the run; longer ones than the model allows are rejected."""
        return self.max_context if self.longest is None else min(self.longest, self.max_context)


class Importance(Protocol):
    """What is known of which tokens matter (`traces.importance`), per layer; all sizes in pages or tokens as named."""

    @property
    def name(self) -> str:
        """As in the scenario, with its setting or file."""

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        """Pages per layer and step that are selected and not cached, in a cache of `cached` pages that keeps what it
        has until it needs room: a line in the context."""

    def keys_for(self, mass: float) -> Line:
        """Tokens that hold `mass` (0 to 1) of the attention: a line in the context."""

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        """Share of selected tokens found in a cache of recently or frequently selected blocks."""

    def coverage(self, kept: float, context: float) -> float:
        """Share of the attention mass that the best `kept` of `context` tokens hold."""


class SequencePolicy(ABC):
    """A policy of the families retention, selection, kv_format, or of prefetch and offload within a sequence.

    `plan` is called once per layer before the run and returns the layer's plan from the one that the policies before it
    made (families in order: kv_format, retention, selection, placement). It must follow from its arguments alone.
    Raises InputError where it cannot be combined, with the reason. A policy that keeps weights in host memory says
    which share of them in an attribute `weights_on_host`.
    """

    assumptions: tuple[str, ...] = ()
    """Lines for the report: what stands for what nobody measured."""
    weights_on_host: float = 0.0
    """Share of the layers' weights that it keeps out of HBM."""
    gpu_batches: int = 1
    """Groups of rows that a step runs one after the other: activations are those of one."""

    @abstractmethod
    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""


@dataclass(frozen=True)
class SequencePlan:
    """The plans of all layers, in order of depth.

    weights_on_host   share of the layers' weights that are not in HBM (FlexGen); their copies are `moves` with `fixed`
    assumptions       lines for the report: what stands for what nobody measured, which importance data was used
    gpu_batches       groups of rows that a step runs one after the other: activations are those of one
    """

    layers: tuple[LayerPlan, ...]
    weights_on_host: float = 0.0
    assumptions: tuple[str, ...] = ()
    gpu_batches: int = 1

    @property
    def plain(self) -> bool:
        """True if no layer differs from what the engine does by itself (but for how its attention kernel reads)."""
        layers = (replace(layer, l2_lookahead=0, attention_share=None) for layer in self.layers)
        return not self.weights_on_host and all(layer == FULL for layer in layers)

    @property
    def l2_lookahead(self) -> int:
        """Bytes of KV per layer that are prefetched into L2, the most of any layer."""
        return max((layer.l2_lookahead for layer in self.layers), default=0)

    @property
    def attention_share(self) -> float | None:
        """Share of the HBM's rate that decode attention reads at, if a layer says so."""
        return next((layer.attention_share for layer in self.layers if layer.attention_share is not None), None)
