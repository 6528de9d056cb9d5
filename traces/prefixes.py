"""Generated requests that share prefixes, one by one: no conversations, Poisson arrivals, uniform lengths.

What serving simulators are compared on for speed: every prompt is one of a few popular prefixes and some blocks of its
own. Made in columns, so a million requests take a second.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from traces.random import stream
from traces.request import Floats, Ints, Trace

VERSION = 1  # part of the content hash: raise it when the same parameters give another trace
MOST_IDS = 1_000_000_000
"""Blocks of all prompts; each takes 8 bytes."""

Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]


class Range(BaseModel):
    """Whole numbers from `min` to `max`, equally likely."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min: Count
    max: Count

    @model_validator(mode="after")
    def _ascending(self) -> Range:
        if self.min > self.max:
            raise InputError("the least is more than the most", path="min", found=self.min, allowed=f"<= {self.max}")
        return self


class PrefixesSpec(BaseModel):
    """`requests` that arrive as a Poisson process of `rate` (requests/s).

    A prompt is one of `prefixes`, of `prefix_blocks` blocks, and `own_blocks` that no other prompt has; blocks have
    `block_tokens` tokens. The rank of the prefix is the whole part of a Pareto variable of shape `pareto` between 1 and
    `prefixes` + 1 (1.16: a fifth of a long tail draws four fifths of the requests). `output_tokens` in answers. `seed`
    fixes the requests whatever the seed of the scenario is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    requests: Count = 10_000
    rate: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] = 4.0
    prefixes: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 200
    pareto: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)] = 1.16
    block_tokens: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 64
    prefix_blocks: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 8
    own_blocks: Range = Range(min=2, max=14)
    output_tokens: Range = Range(min=16, max=240)
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> PrefixesSpec:
        most = self.requests * (self.prefix_blocks + self.own_blocks.max)
        if most > MOST_IDS:
            raise InputError(f"up to {most:,} blocks in all prompts", allowed=f"{MOST_IDS:,} at most")
        return self


def with_prefixes(spec: PrefixesSpec, seed: int) -> Trace:
    """The trace of `spec`; `seed` is used where the spec has none. Prefix p has the ids from p x `prefix_blocks` on.

    Request i takes the i-th number of each stream, so it is the same whatever the number of requests.
    """
    seed = seed if spec.seed is None else spec.seed

    def uniform(what: str) -> Floats:
        return stream(seed, f"prefixes.{what}").random(spec.requests)

    arrival_s = np.cumsum(-np.log1p(-uniform("arrivals")) / spec.rate)
    rank = _pareto(uniform("popularity"), spec.pareto, spec.prefixes)
    own, output = _between(uniform("own"), spec.own_blocks), _between(uniform("output"), spec.output_tokens)
    parameters = json.dumps(spec.model_dump(mode="json") | {"version": VERSION, "seed": seed})
    return Trace(
        name="generated-prefixes",
        block_tokens=spec.block_tokens,
        arrival_s=arrival_s,
        input_tokens=(spec.prefix_blocks + own) * spec.block_tokens,
        output_tokens=output,
        hash_ids=_ids(rank, own, spec),
        hash_offsets=np.concatenate(([0], np.cumsum(spec.prefix_blocks + own))),
        content_sha256=hashlib.sha256(parameters.encode()).hexdigest(),
        source=f"prefixes, seed {seed}",
    ).validate()


def _ids(rank: Ints, own: Ints, spec: PrefixesSpec) -> Ints:
    """Of each prompt the ids of its prefix and then new ones, all prompts in one row: int64[blocks]."""
    shared = spec.prefix_blocks
    starts = np.cumsum(shared + own) - (shared + own)  # of each prompt
    place = np.arange(starts[-1] + shared + own[-1]) - np.repeat(starts, shared + own)
    new = np.repeat(np.cumsum(own) - own, shared + own) + place - shared + spec.prefixes * shared
    found: Ints = np.where(place < shared, np.repeat(rank * shared, shared + own) + place, new)
    return found


def _pareto(u: Floats, shape: float, most: int) -> Ints:
    """Whole parts, from 0 on, of Pareto variables between 1 and `most` + 1, less 1: the inverse of their distribution
    at u in [0, 1)."""
    cut = 1.0 - (most + 1.0) ** -shape
    ranks: Ints = np.minimum((1.0 - u * cut) ** (-1.0 / shape), float(most)).astype(np.int64)
    return ranks - 1


def _between(u: Floats, bounds: Range) -> Ints:
    steps: Ints = np.floor(u * (bounds.max - bounds.min + 1)).astype(np.int64)
    return bounds.min + steps
