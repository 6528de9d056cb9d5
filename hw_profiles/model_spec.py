"""ModelSpec: a whole model as its layers, and what each rank of a tensor- and pipeline-parallel group holds of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from hw_profiles.errors import InputError
from hw_profiles.formats import Format, kv_format, weight_format
from hw_profiles.geometry import Gemm, LayerSpec
from hw_profiles.quantization import NEVER_QUANTISED


@dataclass(frozen=True)
class Stage:
    """Layers `first` to `stop` - 1 of one pipeline stage; `embeds`, `samples`: it has the embedding, the head."""

    first: int
    stop: int
    embeds: bool
    samples: bool


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer. Without tp or stage, sizes are those of the whole model on one rank.

    specs: the distinct layers (tp 1); pattern: index into them for every layer, in order of depth.
    heads, kv_heads, head_dim, intermediate as in the config; with MLA kv_heads is 1 (all heads share one latent) and
    head_dim the width of a query head. position_rows: learned positions, 0 with rotary ones.
    kv_sources: by layer, the layer whose keys and values it reads; empty: all read their own. further_values: weights
    outside of the layers beside embedding, positions, last norm and head (of the first stage). notes: what is assumed
    of a model that was transformed. source: where the numbers come from; origin: the model on Hugging Face, if the
    config says so.
    """

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool
    max_context: int
    specs: tuple[LayerSpec, ...]
    pattern: tuple[int, ...]
    position_rows: int = 0
    source: str = ""
    origin: str = ""
    content_sha256: str = ""
    kv_sources: tuple[int, ...] = ()
    further_values: int = 0
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> Format:
        """Format of activations and of every weight that is not quantised."""
        return self.specs[0].base

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one activation, and of one weight that is not quantised."""
        return self.specs[0].act_bytes

    @property
    def q_size(self) -> int:
        """Width of all query heads."""
        return self.specs[0].attention.q_size

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads; with MLA half of what a token leaves in a layer's cache."""
        return self.specs[0].attention.kv_values // 2

    @property
    def attention(self) -> str:
        """MHA, GQA, MQA or MLA, and the window of layers that slide, for people."""
        windows = sorted({s.window for s in self.specs if s.window is not None})
        share = "" if all(s.window for s in self.specs) else " in some layers"
        return self.specs[0].attention.label + (f", window {windows[0]}{share}" if windows else "")

    @property
    def parameters(self) -> int:
        """Exact number of weights, embeddings, norms and biases included (scales of quantised weights are not)."""
        return sum(count * layer.parameters for count, layer in self.layer_kinds()) + self._outside

    @property
    def active_parameters(self) -> int:
        """Weights that take part in one token: top_k experts of each layer."""
        return sum(count * layer.active_parameters for count, layer in self.layer_kinds()) + self._outside

    @property
    def _outside(self) -> int:
        embeddings = (self.vocab * (1 if self.tied_embeddings else 2) + self.position_rows) * self.hidden
        return embeddings + self._final_norm + self.further_values

    @property
    def _final_norm(self) -> int:
        return self.hidden * (2 if self.specs[0].norm_bias else 1)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights on one GPU (no parallelism), in the formats of the checkpoint or of `with_dtypes`."""
        return self.weight_bytes_at(1)

    def weight_bytes_at(self, tp: int, *, expert_parallel: bool = False, stage: Stage | None = None) -> int:
        """Bytes of the weights on each of `tp` ranks (the fullest, where a split is uneven), of one pipeline stage.

        Embedding and head are split by vocabulary and never quantised. A tied head on another stage is a copy.
        """
        stage = stage or self.stages(1)[0]
        kinds = self.layer_kinds(tp, expert_parallel=expert_parallel, stage=stage)
        shard = -(-self.vocab // tp) * self.hidden
        values = (shard + self.position_rows * self.hidden + self.further_values) if stage.embeds else 0
        if stage.samples:
            values += self._final_norm + (0 if self.tied_embeddings and stage.embeds else shard)
        return sum(count * layer.weight_bytes for count, layer in kinds) + values * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token leaves in the caches of all layers, inside every window."""
        return self.kv_bytes_per_token_at(1)

    def kv_bytes_per_token_at(self, tp: int, *, stage: Stage | None = None) -> int:
        """The same on each of `tp` ranks: kv_heads / tp, replicated when fewer; an MLA latent whole."""
        pattern = self.pattern if stage is None else self.pattern[stage.first : stage.stop]
        each = [replace(spec, attention=spec.attention.at(tp)).kv_bytes_per_token for spec in self.specs]
        return sum(each[i] for i in pattern)

    def scratch_bytes_at(self, tp: int, *, stage: Stage | None = None) -> int:
        """Bytes on a rank of what a decoding sequence keeps whatever its length (`LayerSpec.scratch_bytes`)."""
        return sum(count * layer.scratch_bytes for count, layer in self.layer_kinds(tp, stage=stage))

    def stored_layers(self, stage: Stage | None = None) -> int:
        """Layers whose cache grows with the sequence."""
        return sum(count for count, layer in self.layer_kinds(stage=stage) if layer.kv_bytes_per_token)

    @property
    def even(self) -> bool:
        """True if every layer runs once over every token."""
        return all(spec.cadence.plain for spec in self.specs)

    @property
    def prompt_rows(self) -> float:
        """Rows that a layer computes at once per token of a prompt, the most of any."""
        return max(0.0 if s.cadence.skips_prompt else 1 / s.cadence.period for s in self.specs)

    @property
    def period(self) -> int:
        """Tokens that share an entry of the cache, the most of any layer."""
        return max(spec.cadence.period for spec in self.specs)

    def kv_bytes(self, tokens: int, tp: int = 1, *, stage: Stage | None = None) -> int:
        """Bytes of one sequence of `tokens` tokens on one rank; layers that slide keep only their window."""
        return sum(count * layer.kv_bytes(tokens) for count, layer in self.layer_kinds(tp, stage=stage))

    def kv_groups(self, tp: int = 1, *, stage: Stage | None = None) -> tuple[tuple[int | None, int], ...]:
        """(window, bytes per token) of the layers of each window, None (all tokens) first."""
        groups: Counter[int | None] = Counter()
        for count, layer in self.layer_kinds(tp, stage=stage):
            groups[layer.window] += count * layer.kv_bytes_per_token
        groups += Counter()  # without those of no bytes
        return tuple(sorted(groups.items(), key=lambda item: (item[0] is not None, item[0] or 0)))

    def layer_kinds(
        self, tp: int = 1, *, expert_parallel: bool = False, stage: Stage | None = None
    ) -> tuple[tuple[int, LayerSpec], ...]:
        """(how many, layer as one of `tp` ranks holds it) for every kind of layer in the model or stage.

        Raises InputError when `tp` does not divide heads or widths.
        """
        pattern = self.pattern if stage is None else self.pattern[stage.first : stage.stop]
        counts = sorted(Counter(pattern).items())
        split = tp != 1
        return tuple(
            (n, self.specs[i].at(tp, expert_parallel=expert_parallel) if split else self.specs[i]) for i, n in counts
        )

    def stages(self, pp: int) -> tuple[Stage, ...]:
        """Layers of each of `pp` pipeline stages: even; those left over go before the last, from back to front.

        SOURCE: vllm/distributed/utils.py, get_pp_indices.
        """
        if not 1 <= pp <= self.layers:
            raise InputError("", path="pp", found=pp, allowed=f"1 to {self.layers} (layers of {self.name})")
        sizes = [self.layers // pp] * pp
        for i in range(2, self.layers % pp + 2):
            sizes[-i] += 1
        stops = [sum(sizes[: i + 1]) for i in range(pp)]
        return tuple(Stage(stops[i] - sizes[i], stops[i], i == 0, i == pp - 1) for i in range(pp))

    def head_gemm_at(self, tp: int) -> Gemm:
        """The output projection on one of `tp` ranks, split by vocabulary."""
        return Gemm("head", -(-self.vocab // tp), self.hidden, self.base)

    @property
    def linear_flops_per_token(self) -> float:
        """FLOP of all matrix products for one token (2 per weight used), without attention scores and lookups."""
        return sum(n * layer.flops_per_token for n, layer in self.layer_kinds()) + 2 * self.vocab * self.hidden

    def with_dtypes(self, weights: str | Format | None = None, kv: str | Format | None = None) -> ModelSpec:
        """The model with all matrices of its layers in one format, or its cache in one; None keeps what it has.

        weights: a name of WEIGHT_FORMATS, kv: of KV_FORMATS. Embeddings, head, routers, norms and activations stay.
        Raises InputError for an unknown name.
        """
        specs = self.specs
        if weights is not None:
            form = weight_format(weights)
            specs = tuple(
                replace(s, formats=tuple((g.name, form) for g in s.gemms if g.name not in NEVER_QUANTISED))
                for s in specs
            )
        if kv is not None:
            specs = tuple(replace(s, kv=kv_format(kv)) for s in specs)
        return replace(self, specs=specs)

    @property
    def weight_formats(self) -> tuple[str, ...]:
        """Names of the formats of the layers' matrices, that of most bytes first."""
        total: Counter[str] = Counter()
        for count, layer in self.layer_kinds():
            for gemm in layer.gemms:
                experts = layer.moe.local if gemm.expert and layer.moe else 1
                total[gemm.format.name] += count * experts * gemm.weight_bytes
        return tuple(name for name, _ in total.most_common())

    def facts(self) -> dict[str, str | int | bool]:
        """Name and geometry as plain values, for people and tables."""
        moe = next((s.moe for s in self.specs if s.moe), None)
        experts: dict[str, str | int | bool] = {}
        if moe:
            experts = {
                "experts": moe.experts,
                "experts_per_token": moe.top_k,
                "expert_intermediate": moe.intermediate,
                "shared_intermediate": moe.shared,
                "moe_layers": sum(n for n, layer in self.layer_kinds() if layer.moe),
            }
        return {
            "name": self.name,
            "family": self.family,
            "attention": self.attention,
            "layers": self.layers,
            "hidden": self.hidden,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate": self.intermediate,
            **experts,
            "vocab": self.vocab,
            "tied_embeddings": self.tied_embeddings,
            "max_context": self.max_context,
            "activation_format": self.base.name,
            "weight_formats": ", ".join(self.weight_formats),
            "kv_format": self.specs[0].kv.name,
        }
