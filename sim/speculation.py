"""What a scenario's speculation needs: the model or layer that drafts, its memory, its draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hw_profiles.errors import InputError
from hw_profiles.geometry import Gemm
from hw_profiles.models import ModelSpec, load_model
from sim.cost.kv import KVLayout
from sim.cost.memory import Limits
from sim.engine.speculative_draws import Acceptance
from sim.spec import ScenarioSpec
from sim.spec_base import resolved_path
from sim.speculation_spec import SpeculationSpec

LOOKUP_S = 1e-4
"""Host time per step of proposals by n-gram, unless the scenario gives it. Estimate: the search of vLLM's proposer runs
over the tokens of every sequence on the host (vllm/v1/spec_decode/ngram_proposer.py), between two steps."""


@dataclass(frozen=True)
class Speculation:
    """Speculative decoding of a run.

    model: who drafts; None: nobody on the GPU. projection: before an MTP layer. weight_bytes: of the drafter on each
    GPU, beside those that it has of the model. tp: ranks that share it.
    """

    spec: SpeculationSpec
    seed: int
    model: ModelSpec | None = None
    projection: Gemm | None = None
    weight_bytes: int = 0
    tp: int = 1

    @property
    def ahead(self) -> int:
        """Slots beyond those of the tokens that a step verifies, for the KV of a drafter. SOURCE: vLLM v1,
        num_lookahead_tokens (vllm/v1/core/sched/scheduler.py)."""
        return self.spec.tokens if self.model is not None else 0

    @property
    def slots(self) -> int:
        """Slots that a sequence may take beyond those of its own tokens."""
        return self.spec.tokens + self.ahead

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a verification yields, expected: (1 - a^(k + 1)) / (1 - a) if all chances are a."""
        spec, found, right = self.spec, 1.0, 1.0 if self.spec.match is None else self.spec.match
        for chance in spec.chances:
            right *= chance
            found += right
        return found

    @property
    def lookup_s(self) -> float:
        """Host time of every step."""
        if self.spec.method != "ngram":
            return 0.0
        return LOOKUP_S if self.spec.lookup_time is None else self.spec.lookup_time

    @property
    def content_sha256(self) -> str:
        """That of the draft model's config; empty without one."""
        return self.model.content_sha256 if self.spec.method == "draft" and self.model is not None else ""

    def acceptance(self) -> Acceptance:
        """The draws."""
        spec = self.spec
        return Acceptance(spec.tokens, spec.chances, 1.0 if spec.match is None else spec.match, self.seed)

    def limits(self, limits: Limits) -> Limits:
        """With the drafter's weights, and logits of every row that is verified."""
        return replace(limits, more_weights=self.weight_bytes, rows_per_seq=1 + self.spec.tokens)

    def layout(self, layout: KVLayout) -> KVLayout:
        """With the drafter's KV in every block, as vLLM puts its layers beside the model's own."""
        if self.model is None:
            return layout
        (share,) = layout.shares
        more = self.model.kv_bytes_per_token_at(self.tp)
        share = replace(share, token_bytes=share.token_bytes + more, layers=share.layers + self.model.stored_layers())
        return replace(layout, shares=(share,))


def load_speculation(spec: ScenarioSpec, model: ModelSpec, base_dir: Path) -> Speculation | None:
    """The speculation of a scenario; None without. Raises InputError."""
    asked = spec.engine.speculation
    if asked is None:
        return None
    path = "engine.speculation"
    if spec.hardware.pp > 1:
        raise InputError("not with pipeline stages in this version", path=path, found=asked.method)
    if spec.policies.architecture is not None:
        raise InputError("not with policies.architecture", path=path, found=asked.method)
    if spec.policies.within:
        raise InputError(f"not with policies.{spec.policies.within[0]}", path=path, found=asked.method)
    if asked.method == "ngram":
        return Speculation(asked, spec.seed)
    tp = spec.hardware.tp
    if asked.method == "mtp":
        layer, projection = _next_token_layer(model), Gemm("eh_proj", model.hidden, 2 * model.hidden, model.base)
        kinds = layer.layer_kinds(tp, expert_parallel=spec.hardware.expert_parallel)
        nbytes = sum(kind.weight_bytes for _, kind in kinds)
        nbytes += projection.weight_bytes + 3 * model.hidden * model.dtype_bytes  # and its three norms
        return Speculation(asked, spec.seed, layer, projection, nbytes, tp)
    assert asked.model is not None
    try:
        draft = load_model(resolved_path(asked.model, base_dir)).with_dtypes(None, spec.engine.kv_dtype)
    except InputError as error:
        raise error.at(path=f"{path}.model") from None
    if draft.vocab != model.vocab:
        raise InputError(
            f"a draft has the vocabulary of {model.name}",
            path=f"{path}.model",
            found=f"{draft.name}, with {draft.vocab:,} entries",
            allowed=f"a model with {model.vocab:,}",
        )
    ranks = asked.draft_tp or tp
    if ranks not in (1, tp):
        raise InputError("", path=f"{path}.draft_tp", found=ranks, allowed=f"1 or {tp}")
    try:
        nbytes = draft.weight_bytes_at(ranks, expert_parallel=spec.hardware.expert_parallel)
    except InputError as error:
        raise error.at(path=f"{path}.draft_tp") from None
    return Speculation(asked, spec.seed, draft, None, nbytes, ranks)


def _next_token_layer(model: ModelSpec) -> ModelSpec:
    """One more layer like the model's last, with its embedding and head.

    SOURCE: DeepSeek-V3 (arXiv 2412.19437), section 2.2: an MTP module is a projection of hidden state and embedding, a
    transformer block, and the main model's embedding and head. EAGLE (arXiv 2401.15077) has the same parts.
    """
    last = model.specs[model.pattern[-1]]
    name = f"{model.name}-mtp"
    return replace(model, name=name, layers=1, specs=(last,), pattern=(0,), further_values=0, kv_sources=(), notes=())
