"""`engine.speculation`: who drafts how many tokens, and how many of them are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds
from sim.kind_spec import KindName
from sim.spec_base import Spec

MOST_TOKENS = 64
Chance = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
SGLANG_SEQS = 48
"""SOURCE: sgl-project/sglang, python/sglang/srt/server_args.py: max_running_requests of speculative decoding."""
OWN = {"draft": ("model", "draft_tp"), "ngram": ("match", "lookup_time"), "mtp": ()}
"""Options that one method alone has."""


class SpeculationSpec(Spec):
    """Speculative decoding.

    method       draft: a smaller model. mtp: a layer of the model's own (multi-token prediction, EAGLE heads). ngram:
                 what followed the same n-gram before
    tokens       drafted per step
    acceptance   chance that a drafted token is right if those before it are; or a list of them by place in the draft
    model        of draft: name or path, with the vocabulary of the model
    draft_tp     of draft: ranks that share it, 1 or those of the model (default)
    match        of ngram: chance that a step finds its n-gram; else it drafts nothing
    lookup_time  of ngram: host time of every step
    """

    method: Literal["draft", "mtp", "ngram"]
    tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS, strict=True)]
    acceptance: Chance | tuple[Chance, ...]
    model: str | None = None
    draft_tp: Annotated[int, Field(ge=1, strict=True)] | None = None
    match: Chance | None = None
    lookup_time: Seconds | None = None

    @property
    def chances(self) -> tuple[float, ...]:
        """Acceptance of each place of the draft."""
        return self.acceptance if isinstance(self.acceptance, tuple) else (self.acceptance,) * self.tokens

    @model_validator(mode="after")
    def _consistent(self) -> SpeculationSpec:
        for method, keys in OWN.items():
            for key in keys:
                if method != self.method and (found := getattr(self, key)) is not None:
                    raise InputError(f"not with method: {self.method}", path=key, found=found, allowed=f"{method}")
        if self.method == "draft" and self.model is None:
            raise InputError("a draft needs a model", path="model", allowed="a shipped name, or a config.json")
        if len(self.chances) != self.tokens:
            allowed = f"one number, or a list of {self.tokens} (tokens)"
            raise InputError("", path="acceptance", found=list(self.chances), allowed=allowed)
        return self


class Settings(Protocol):
    """The parts of `engine:` that speculation has a say in."""

    speculation: SpeculationSpec | None
    framework: Any
    scheduling: Any
    mixed_chunk: bool | None
    l2_prefetch: int
    max_num_seqs: int
    max_num_batched_tokens: int


def with_speculation(engine: Mapping[str, Any]) -> dict[str, Any]:
    """`engine:` with its kind's settings: sequences in a step are as many as these engines run with speculation."""
    found = dict(engine)
    speculation = found.get("speculation")
    tokens = speculation.get("tokens") if isinstance(speculation, Mapping) else None
    if isinstance(tokens, int):
        kind: KindName = found.get("kind", "vllm")
        most, step = found.get("max_num_seqs", 256), found.get("max_num_batched_tokens", 8192)
        if kind == "sglang":
            most = min(most, SGLANG_SEQS)
        if isinstance(most, int) and isinstance(step, int) and tokens > 0:
            found["max_num_seqs"] = max(1, min(most, step // (1 + tokens)))
    return found


def check_speculation(engine: Settings) -> None:
    """Raise InputError for settings that speculation cannot have."""
    speculation = engine.speculation
    if speculation is None:
        return
    for key, value in (("framework", "vllm_paged"), ("l2_prefetch", 0)):
        if (found := getattr(engine, key)) != value:
            raise InputError("not with engine.speculation", path=key, found=found, allowed=str(value))
    if engine.scheduling == "static":
        raise InputError("not with engine.speculation", path="scheduling", found="static", allowed=("fcfs", "priority"))
    if engine.mixed_chunk:
        raise InputError("not with engine.speculation", path="mixed_chunk", found=True, allowed="false")
    rows = engine.max_num_seqs * (1 + speculation.tokens)
    if engine.max_num_batched_tokens < rows:
        raise InputError(
            f"each running sequence takes {1 + speculation.tokens} tokens of every step (engine.speculation.tokens)",
            path="max_num_batched_tokens",
            found=engine.max_num_batched_tokens,
            allowed=f"a whole number >= {rows}, or a smaller max_num_seqs",
        )
