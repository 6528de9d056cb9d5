"""Generated chat traffic with the prefix sharing of real traces: shared system prompts, sessions that grow.

A session picks a system prompt (Zipf popularity) and has several turns. The prompt of a turn is everything
said so far (system prompt, earlier messages and answers) and the new message, so it extends the prompt of the
turn before. Session starts are a Poisson process that runs long before the trace begins, hence no ramp.

Only uniform numbers are drawn, and turned into other distributions here by their inverse: numpy may change
its own samplers between versions, and the shipped sample has to stay the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds
from traces.conversations import by_session
from traces.mooncake import BLOCK_TOKENS
from traces.random import stream
from traces.request import Floats, Trace

VERSION = 1  # part of the content hash: raise it when the same parameters give another trace
WARM_GAPS = 12  # sessions start this many mean lengths before the trace; e**-12 of them would be longer
MAX_OPEN = 100_000  # sessions; WARM_GAPS times as many are generated before the trace, in about a minute
MAX_SINGLE = 1_000_000  # of single turns, of which those before the trace are only counted
KEPT_REQUESTS = 20_000  # of a trace that is kept for the next run of the same: a few MB
_NORMAL = NormalDist()

Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Mean = Annotated[float, Field(strict=True, ge=1, le=1_000_000, allow_inf_nan=False)]
Spread = Annotated[float, Field(strict=True, ge=0, le=4, allow_inf_nan=False)]


class Lengths(BaseModel):
    """Log-normal token counts: `mean` tokens, `sigma` of the logarithm (0: always the mean), at least 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: Mean
    sigma: Spread = 0.0

    def at(self, u: float) -> int:
        """The `u`-quantile, 0 < u < 1: exp(mu + sigma * z(u)) with mu = ln(mean) - sigma^2 / 2."""
        mu = math.log(self.mean) - self.sigma**2 / 2
        return max(1, round(math.exp(mu + self.sigma * _NORMAL.inv_cdf(u))))


class GenerateSpec(BaseModel):
    """Parameters of generated traffic; the defaults resemble a chat service with long system prompts.

    `requests` in the trace, arriving at `rate` (requests/s) on average. `turns` per session on average
    (geometric), `think_time` from one turn to the next on average (exponential). `system_prompts` of
    `system_tokens` with popularity 1 / rank**`zipf`; 0 of them: nothing is shared between sessions.
    `first_tokens` in the first message, `user_tokens` in later ones, `output_tokens` in answers. A session
    ends rather than exceed `max_input` tokens, which lowers the rate where it happens often. `seed` fixes the
    traffic whatever the seed of the scenario is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["chat"] = "chat"
    requests: Count = 1_500
    rate: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] = 2.5
    turns: Annotated[float, Field(strict=True, ge=1, le=1_000, allow_inf_nan=False)] = 2.0
    think_time: Seconds = 60.0
    system_prompts: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 20
    system_tokens: Lengths = Lengths(mean=800, sigma=0.5)
    zipf: Annotated[float, Field(strict=True, ge=0, le=10, allow_inf_nan=False)] = 1.0
    first_tokens: Lengths = Lengths(mean=4_500, sigma=1.0)
    user_tokens: Lengths = Lengths(mean=500, sigma=1.0)
    output_tokens: Lengths = Lengths(mean=420, sigma=0.8)
    max_input: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] = 32_768
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> GenerateSpec:
        most = MAX_SINGLE if self.turns == 1 else MAX_OPEN
        if self.rate * self.think_time > most:
            text = "as many sessions are open when the trace begins, and made from their first turn on"
            found = f"rate x think_time = {self.rate * self.think_time:.3g}"
            raise InputError(text, found=found, allowed=f"{most} at most: a shorter think_time")
        return self


@dataclass(slots=True)
class _Turn:
    """One request of a session: `shared` full blocks belong to its system prompt, the rest to the session."""

    arrival_ms: int
    session: int
    turn: int
    system: int
    shared: int
    input_tokens: int
    output_tokens: int


def generate(spec: GenerateSpec, seed: int) -> Trace:
    """The trace of `spec`: whole milliseconds, blocks of 512 tokens, ids in order of first appearance.

    Session i draws from its own Philox stream, so it is the same whatever the number of requests. `seed` is
    used where the spec has none. Equal ids mean equal prefixes; a partial last block has an id of its own.
    `delay_s` is the think time that was drawn: in an open trace it counts from the sending of the turn before (nobody
    knows when that ends), in a closed loop from its end.
    """
    seed = seed if spec.seed is None else spec.seed
    return _kept(spec, seed) if spec.requests <= KEPT_REQUESTS else _generated(spec, seed)


@lru_cache(maxsize=8)
def _kept(spec: GenerateSpec, seed: int) -> Trace:
    return _generated(spec, seed)


def _generated(spec: GenerateSpec, seed: int) -> Trace:
    turns = _turns(spec, seed)
    renamed: dict[tuple[int, ...], int] = {}
    ids: list[int] = []
    offsets = [0]
    for turn in turns:
        ids.extend(renamed.setdefault(block, len(renamed)) for block in _blocks(turn))
        offsets.append(len(ids))
    arrival_s = np.array([turn.arrival_ms for turn in turns]) / 1e3
    sessions = np.array([turn.session for turn in turns])
    links = by_session(sessions, arrival_s, arrival_s)
    parameters = json.dumps(spec.model_dump(mode="json") | {"version": VERSION, "seed": seed})
    return Trace(
        name=f"generated-{spec.kind}",
        block_tokens=BLOCK_TOKENS,
        arrival_s=arrival_s,
        input_tokens=np.array([turn.input_tokens for turn in turns]),
        output_tokens=np.array([turn.output_tokens for turn in turns]),
        hash_ids=np.array(ids),
        hash_offsets=np.array(offsets),
        content_sha256=hashlib.sha256(parameters.encode()).hexdigest(),
        source=f"generate: {spec.kind}, seed {seed}",
        session_ids=sessions,
        turns=np.array([turn.turn for turn in turns]),
        after=links.after,
        delay_s=links.delay_s,
    ).validate()


def _turns(spec: GenerateSpec, seed: int) -> list[_Turn]:
    """The first `spec.requests` turns from t = 0 on, in order of arrival."""
    warm_s = WARM_GAPS * spec.turns * spec.think_time
    prompts = [
        spec.system_tokens.at(_open(stream(seed, "generate.system", i).random())) for i in range(spec.system_prompts)
    ]
    weights = np.cumsum([rank**-spec.zipf for rank in range(1, spec.system_prompts + 1)])
    starts = stream(seed, "generate.start")
    found: list[_Turn] = []
    begin, session, check = -warm_s, 0, 0
    while True:
        begin += -math.log(_open(starts.random())) * spec.turns / spec.rate  # exponential gap
        if len(found) >= spec.requests and session >= check:
            found.sort(key=lambda turn: (turn.arrival_ms, turn.session, turn.turn))
            if found[spec.requests - 1].arrival_ms < begin * 1e3:
                return found[: spec.requests]  # every later session starts later than these
            check = session + session // 32 + 1  # sorting is what costs here
        if spec.turns > 1 or round(begin * 1e3) >= 0:
            turns = _session(spec, seed, session, begin, prompts, weights)
            found.extend(turn for turn in turns if turn.arrival_ms >= 0)
        session += 1


def _session(
    spec: GenerateSpec, seed: int, session: int, begin: float, prompts: list[int], weights: Floats
) -> list[_Turn]:
    """The turns of one session that starts at `begin` (s)."""
    draw = stream(seed, "generate.session", session).random
    popularity, length, first = (_open(draw()) for _ in range(3))
    # geometric: P(more than k turns) = (1 - 1 / mean)**k
    count = 1 if spec.turns == 1 else 1 + int(math.log(length) / math.log1p(-1 / spec.turns))
    system = int(np.searchsorted(weights, popularity * weights[-1])) if prompts else -1
    shared = prompts[system] if prompts else 0
    tokens = shared + spec.first_tokens.at(first)
    turns: list[_Turn] = []
    for turn in range(count):
        if turn > 0:
            begin += -math.log(_open(draw())) * spec.think_time
            tokens += spec.user_tokens.at(_open(draw()))
        elif tokens > spec.max_input:
            shared, tokens = min(shared, spec.max_input - 1), spec.max_input  # a first message is cut instead
        if tokens > spec.max_input:
            break
        output = spec.output_tokens.at(_open(draw()))
        full = shared // BLOCK_TOKENS
        turns.append(_Turn(round(begin * 1e3), session, turn, system, full, tokens, output))
        tokens += output
    return turns


def _blocks(turn: _Turn) -> list[tuple[int, ...]]:
    """What identifies each block of the prompt: of a system prompt, of the session, or of this turn alone."""
    full, rest = divmod(turn.input_tokens, BLOCK_TOKENS)
    blocks: list[tuple[int, ...]] = [(0, turn.system, k) for k in range(turn.shared)]
    blocks += [(1, turn.session, k) for k in range(turn.shared, full)]
    return [*blocks, (2, turn.session, turn.turn)] if rest else blocks


def _open(u: float) -> float:
    """Moves a uniform number from [0, 1) into (0, 1): the middle of its 2**-53 cell."""
    return min(float(u) + 2**-54, 1 - 2**-53)
