"""Generated load of several models over days: a daily profile per model, with bursts, that repeats or is shuffled.

Synthetic, to hold a forecast against: no recorded trace of several models over days is public with its lengths. What it
has in common with recorded ones is said at each parameter. Only uniform numbers are drawn (see traces.generate).
"""

from __future__ import annotations

import hashlib
import json
import math
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds
from traces.random import stream
from traces.request import Floats, Ints, Trace

VERSION = 1
MOST = 5_000_000
"""Requests."""
LENGTHS = {"conv": ((1020.0, 1.0), (129.0, 0.9)), "code": ((1469.0, 1.36), (13.0, 0.85))}
"""Median and sigma of the logarithm of prompts and of answers. SOURCE: Azure's LLM inference trace 2023, medians of
conversation as Splitwise has them (arXiv 2311.18677, section 3.1: 1020 and 129), those of code and its sigmas from the
trace itself (8,819 requests); the sigmas of conversation are estimates."""
_NORMAL = NormalDist()

Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class DailySpec(BaseModel):
    """Requests to `models` models, numbered from 0 by falling popularity.

    models      how many; their shares of the load fall as rank^-`alpha`
    alpha       SOURCE: 2 in LLMServe/WarmServe, trace-generator
    rate        requests/s of all models, on average
    days, day   how many periods, and how long one is (24 h; less makes a model of a day that is sooner simulated)
    window      a model's load is even within it
    swing       how far a model's load goes up and down in the day, as a sine of its own phase: 1 +- swing
    bursts      windows of the day in which a model has `burst` times its load
    quiet       the part of its load that a model keeps in all other windows (0: it has bursts alone)
    noise       sigma of the logarithm of what each window of each day is off by
    order       periodic: every day has the same profile. shuffled: the windows of each day are permuted, for each model
                by itself: the same loads at other times, which nothing foretells
    lengths     of Azure's `conv` or `code` trace
    max_input, max_output   longer prompts and answers are cut (WarmServe's generator: 1024 and 1023)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    models: Annotated[int, Field(ge=1, le=64, strict=True)] = 4
    alpha: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 2.0
    rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    days: Annotated[int, Field(ge=1, le=366, strict=True)] = 2
    day: Annotated[Seconds, Field(gt=0)] = 86_400.0
    window: Annotated[Seconds, Field(gt=0)] = 300.0
    swing: Share = 0.5
    bursts: Annotated[int, Field(ge=0, strict=True)] = 12
    burst: Annotated[float, Field(ge=1, le=1e4, allow_inf_nan=False)] = 8.0
    quiet: Share = 1.0
    noise: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = 0.1
    order: Literal["periodic", "shuffled"] = "periodic"
    lengths: Literal["conv", "code"] = "conv"
    max_input: Annotated[int, Field(ge=1, strict=True)] = 1024
    max_output: Annotated[int, Field(ge=1, strict=True)] = 1023
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> DailySpec:
        if self.rate * self.days * self.day > MOST:
            found = f"{self.rate * self.days * self.day:.3g} requests"
            raise InputError("more requests than can be kept", found=found, allowed=f"{MOST} at most")
        if self.windows < 1 or self.bursts > self.windows:
            text = f"a day has {self.windows} windows"
            raise InputError(text, path="bursts", found=self.bursts, allowed="no more bursts than that, and one window")
        return self

    @property
    def windows(self) -> int:
        """Windows of a day."""
        return round(self.day / self.window)


def daily(spec: DailySpec, seed: int) -> Trace:
    """The trace of `spec`, with `models`; no two requests share a prefix. `seed`: used where the spec has none."""
    seed = seed if spec.seed is None else spec.seed
    shares = np.arange(1, spec.models + 1, dtype=np.float64) ** -spec.alpha
    shares /= shares.sum()
    times, which = [], []
    for model in range(spec.models):
        counts, starts = _counts(spec, seed, model, spec.rate * float(shares[model]))
        within = stream(seed, "daily.times", model).random(int(counts.sum()))
        times.append(np.repeat(starts, counts) + within * spec.window)
        which.append(np.full(len(within), model))
    arrival_s, models = np.concatenate(times), np.concatenate(which)
    if not len(arrival_s):
        raise InputError("no request arrives in this time", path="trace.daily.rate", found=spec.rate)
    order = np.argsort(arrival_s, kind="stable")
    (prompt, spread), (answer, answer_spread) = LENGTHS[spec.lengths]
    count = len(order)
    parameters = json.dumps(spec.model_dump(mode="json") | {"version": VERSION, "seed": seed})
    return Trace(
        name="generated-daily",
        block_tokens=0,
        arrival_s=arrival_s[order],
        input_tokens=_lengths(seed, "daily.input", count, prompt, spread, spec.max_input),
        output_tokens=_lengths(seed, "daily.output", count, answer, answer_spread, spec.max_output),
        hash_ids=np.zeros(0, np.int64),
        hash_offsets=np.zeros(count + 1, np.int64),
        content_sha256=hashlib.sha256(parameters.encode()).hexdigest(),
        source=f"daily: {spec.order}, {spec.models} models, seed {seed} (synthetic)",
        models=models[order],
    ).validate()


def _counts(spec: DailySpec, seed: int, model: int, rate: float) -> tuple[Ints, Floats]:
    """Requests of each window of all days, and where the windows start, s."""
    per_day = spec.windows
    draw = stream(seed, "daily.profile", model)
    phase = float(draw.random())
    profile = 1 + spec.swing * np.sin(2 * math.pi * (np.arange(per_day) / per_day + phase))
    order = np.argsort(draw.random(per_day), kind="stable")
    profile[order[: spec.bursts]] *= spec.burst
    profile[order[spec.bursts :]] *= spec.quiet
    if not profile.any():
        raise InputError("nothing is left of the load", path="trace.daily.quiet", found=spec.quiet)
    profile *= per_day / profile.sum()
    days = []
    for day in range(spec.days):
        order = np.arange(per_day)
        if spec.order == "shuffled":
            order = np.argsort(stream(seed, "daily.order", model, day).random(per_day), kind="stable")
        noise = [_NORMAL.inv_cdf(_open(u)) for u in stream(seed, "daily.noise", model, day).random(per_day)]
        days.append(profile[order] * np.exp(spec.noise * np.array(noise) - spec.noise**2 / 2))
    mean = np.concatenate(days) * rate * spec.window
    uniform = stream(seed, "daily.count", model).random(len(mean))
    counts = np.array([_poisson(m, u) for m, u in zip(mean.tolist(), uniform.tolist(), strict=True)], dtype=np.int64)
    return counts, np.arange(len(mean), dtype=np.float64) * spec.window


def _poisson(mean: float, u: float) -> int:
    """The `u`-quantile of a Poisson count; of a large one that of the normal distribution beside it."""
    if mean > 50:
        return max(0, round(mean + math.sqrt(mean) * _NORMAL.inv_cdf(_open(u))))
    term = total = math.exp(-mean)
    number = 0
    while total < u and number < 1000:
        number += 1
        term *= mean / number
        total += term
    return number


def _lengths(seed: int, name: str, count: int, median: float, sigma: float, most: int) -> Ints:
    drawn = stream(seed, name).random(count)
    values = [median * math.exp(sigma * _NORMAL.inv_cdf(_open(u))) for u in drawn.tolist()]
    return np.array(np.clip(np.round(values), 1, most), dtype=np.int64)


def _open(u: float) -> float:
    return min(float(u) + 2**-54, 1 - 2**-53)
