"""Which requests an engine that schedules by priority serves first."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from traces.random import stream
from traces.request import Trace

DRAWN = ("session", "request")


class PrioritySpec(BaseModel):
    """Classes of requests, numbered from 0, which comes first.

    by      input_tokens, output_tokens, turn: a value of the request is held against `limits`. session, request: every
            conversation, or every request, draws its class
    limits  ascending; the class is how many of them the value reaches ([1000]: prompts below 1,000 tokens first)
    shares  of classes 0, 1, ...; what is left over is the last class ([0.1]: a tenth comes first)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by: Literal["input_tokens", "output_tokens", "turn", "session", "request"]
    limits: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = ()
    shares: tuple[Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PrioritySpec:
        wanted, other = ("shares", "limits") if self.by in DRAWN else ("limits", "shares")
        if not getattr(self, wanted) or getattr(self, other):
            raise InputError(f"priority by {self.by} needs {wanted} and no {other}")
        if list(self.limits) != sorted(set(self.limits)):
            raise InputError("must ascend", path="limits", found=list(self.limits))
        if sum(self.shares) > 1:
            raise InputError("shares above 1 in all", path="shares", found=list(self.shares))
        return self


def prioritize(trace: Trace, spec: PrioritySpec, seed: int) -> Trace:
    """`trace` with the priorities of `spec`, in place of any that it has.

    Conversation s (request i) takes the s-th (i-th) number of the Philox stream "priority" of `seed`; a request of no
    conversation is one by itself. Raises InputError for a trace that does not tell turns or conversations.
    """
    if spec.by in DRAWN:
        n, own = len(trace), np.arange(len(trace))
        if spec.by == "session":
            if trace.session_ids is None:
                raise InputError("the trace does not tell conversations apart", where=trace.source, path="priority.by")
            sessions = trace.session_ids
            own = np.where(sessions < 0, sessions.max() + 1 + own, sessions)
            n = int(own.max()) + 1
        drawn = stream(seed, "priority").random(n)[own]
        classes = np.searchsorted(np.cumsum(spec.shares), drawn, side="right")
    else:
        values = trace.turns if spec.by == "turn" else getattr(trace, spec.by)
        if values is None:
            raise InputError("the trace does not tell turns", where=trace.source, path="priority.by")
        classes = np.searchsorted(spec.limits, values, side="right")
    return replace(trace, priorities=classes)
