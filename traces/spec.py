"""The `trace:` section of a scenario: which requests, and what is done to their arrivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds
from traces.arrivals import limit, limit_sessions, poisson_arrivals, rate_scale, spread_arrivals, stagger_sessions
from traces.catalog import CATALOG, load_trace
from traces.clients import ClientsSpec, converse
from traces.closed_loop import ClosedLoopSpec, close_loop
from traces.daily import DailySpec, daily
from traces.generate import GenerateSpec, generate
from traces.prefixes import PrefixesSpec, with_prefixes
from traces.priority import DRAWN, PrioritySpec, prioritize
from traces.request import Trace

SOURCES = ("name", "path", "generate", "prefixes", "clients", "daily")
"""Where the requests of a trace may come from."""


def is_path(text: str) -> bool:
    """True if a trace given as plain text is a file and not a name of the catalog: it has a slash or an ending."""
    return "/" in text or bool(Path(text).suffix)


class TraceSpec(BaseModel):
    """One of `name` (catalog), `path` (file), `generate`, `prefixes`, `clients`, `daily`; what is done to its arrivals.

    `sessions`: the n conversations that begin first. `limit`: the first n requests. `rate_scale`: 2 makes arrivals
    and users twice as fast. `spread_arrivals` (s): each arrival moves by its own share of this window (see
    traces.arrivals). `closed_loop`: true, or how (see traces.closed_loop): the next turn of a recorded conversation
    waits for the end of the turn before it. `priority`: what engine.scheduling: priority serves first (see
    traces.priority), in place of what the trace says. A string is a name, or a path if it has a slash or an ending.
    `model_dump(mode="json", exclude_none=True)` reads back to the same spec.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str | None = None
    path: str | None = None
    generate: GenerateSpec | None = None
    prefixes: PrefixesSpec | None = None
    clients: ClientsSpec | None = None
    daily: DailySpec | None = None
    arrival_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = None
    stagger_sessions: Seconds | None = None
    sessions: Annotated[int, Field(ge=1, strict=True)] | None = None
    limit: Annotated[int, Field(ge=1, strict=True)] | None = None
    rate_scale: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] = 1.0
    spread_arrivals: Seconds = 0.0
    closed_loop: ClosedLoopSpec | None = None
    priority: PrioritySpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, Path):
            return {"path": str(value)}
        if isinstance(value, str):
            return {"path" if is_path(value) else "name": value}
        if isinstance(value, dict) and isinstance(value.get("closed_loop"), bool):
            return value | {"closed_loop": {} if value["closed_loop"] else None}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> TraceSpec:
        given = [key for key in SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            text = f"needs exactly one of {', '.join(SOURCES)}, has {' and '.join(given) or 'none'}"
            raise InputError(text)
        if self.clients is not None:
            for key in ("arrival_rate", "stagger_sessions", "closed_loop"):
                if getattr(self, key) is not None:
                    raise InputError("clients send in a closed loop of their own: it does not apply", path=key)
            if self.spread_arrivals:
                raise InputError("clients have ramp_up instead", path="spread_arrivals")
        if self.closed_loop is not None and self.arrival_rate is not None:
            raise InputError("is for open load; in a closed loop set closed_loop.session_rate", path="arrival_rate")
        if self.arrival_rate is not None and self.stagger_sessions is not None:
            raise InputError("arrival_rate replaces all arrivals, so it excludes stagger_sessions")
        if self.name is not None and self.name not in CATALOG:
            raise InputError("unknown trace", path="name", found=self.name, allowed=CATALOG, near=CATALOG)
        return self

    @property
    def drawn(self) -> bool:
        """True if the seed of the scenario changes the load: requests or arrivals that are drawn, not recorded."""
        source = self.generate or self.prefixes or self.clients or self.daily
        loop = self.closed_loop
        return (
            (source is not None and source.seed is None)
            or self.arrival_rate is not None
            or bool(self.stagger_sessions or self.spread_arrivals)
            or (loop is not None and (loop.session_rate is not None or loop.think_time is not None))
            or (loop is not None and loop.sending(0) is not None)
            or (self.priority is not None and self.priority.by in DRAWN)
        )

    def resolved(self, base_dir: str | Path) -> TraceSpec:
        """The same spec with an absolute path, so that it means the same from any other folder."""
        if self.path is None:
            return self
        absolute = (Path(base_dir) / Path(self.path).expanduser()).resolve()
        return self.model_copy(update={"path": str(absolute)})


def build(spec: TraceSpec, seed: int, base_dir: str | Path = ".", *, strict: bool = False) -> Trace:
    """Loads or generates the trace of `spec`, then changes its arrivals.

    In this order: arrival_rate or stagger_sessions (they say who comes first), sessions, limit, spread_arrivals,
    rate_scale, closed_loop, priority. Spreading comes before scaling because it undoes the trace's own quantisation:
    scaling then keeps the burstiness.

    `seed`: of the scenario; generated traffic and spread arrivals draw from streams of their own.
    `base_dir`: the folder a relative path starts from (the scenario's). `strict` refuses a trace that needs a warning.
    Raises InputError.
    """
    if spec.clients is not None:
        trace = converse(spec.clients, seed)
    elif spec.daily is not None:
        trace = daily(spec.daily, seed)
    elif spec.generate is not None:
        trace = generate(spec.generate, seed)
    elif spec.prefixes is not None:
        trace = with_prefixes(spec.prefixes, seed)
    elif spec.name is not None:
        trace = load_trace(spec.name, strict=strict)
    else:
        trace = load_trace(Path(str(spec.resolved(base_dir).path)), strict=strict)
    if spec.arrival_rate is not None:
        trace = poisson_arrivals(trace, spec.arrival_rate, seed)
    if spec.stagger_sessions is not None:
        trace = stagger_sessions(trace, spec.stagger_sessions, seed)
    if spec.sessions is not None:
        trace = limit_sessions(trace, spec.sessions)
    if spec.limit is not None:
        trace = limit(trace, spec.limit)
    trace = rate_scale(spread_arrivals(trace, spec.spread_arrivals, seed), spec.rate_scale)
    if spec.closed_loop is not None:
        trace = close_loop(trace, spec.closed_loop, seed)
    return trace if spec.priority is None else prioritize(trace, spec.priority, seed)
