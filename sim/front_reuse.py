"""Caches of answers and the index of prefixes at work: what requests find there, and how long they wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.reuse.base import PrefixIndex, ResponseCache
from sim.engine.sequence import Sequence as Seq
from sim.invariants import ensure
from sim.scenario import Scenario

NamedCache = tuple[str, ResponseCache]


def reuse_policies(scenario: Scenario) -> tuple[list[NamedCache], PrefixIndex | None]:
    """The caches of answers under `policies.reuse`, in their order, and the index. Raises InputError."""
    caches: list[NamedCache] = []
    index = None
    for spec in scenario.spec.policies.reuse:
        path = "policies.reuse"
        try:
            policy: Any = build_policy("reuse", spec.model_dump(), base_dir=scenario.base_dir, path=path)
            if isinstance(policy, ResponseCache):
                caches.append((spec.name, policy))
            elif index is not None:
                raise InputError("there is one index", path=path, found=spec.name)
            else:
                index = policy
        except InputError as error:
            raise error.at(where=scenario.where) from None
        policy.seed = scenario.spec.seed
    return caches, index


class Responses:
    """Caches of answers, asked one after the other."""

    def __init__(self, caches: Sequence[NamedCache]) -> None:
        self.caches = caches
        self.hits = [0] * len(caches)
        self.lookups = [0] * len(caches)
        """Of each cache, in their order: two may have one name."""

    def lookup(self, seq: Seq) -> tuple[str | None, float]:
        """The cache that has the answer, if one does, and the seconds that looking took."""
        took = 0.0
        for place, (name, cache) in enumerate(self.caches):
            took += cache.lookup_s
            self.lookups[place] += 1
            if cache.lookup(seq):
                self.hits[place] += 1
                return name, took
        return None, took

    def answered(self, seq: Seq) -> None:
        """A request has its answer, and none of the caches had it."""
        for name, cache in self.caches:
            cache.answered(seq)
            ensure(cache.used_bytes <= cache.capacity, f"{name} holds more than its capacity")


class Index:
    """The server of the index: one queue, in order of arrival (Lindley's recursion)."""

    def __init__(self, policy: PrefixIndex) -> None:
        self._policy = policy
        self._free_at = 0.0
        self.busy_s = 0.0
        self.keys = 0
        self.updates = 0
        """Keys that were written."""
        self.waits: list[float] = []
        self.took: list[float] = []

    def lookup(self, seq: Seq, now: float) -> float:
        """Seconds until a request that asks at `now` has its answer. Calls come in order of time."""
        visit = self._policy.lookup(seq)
        wait = max(0.0, self._free_at - now)
        self._free_at = now + wait + visit.server_s
        self.busy_s += visit.server_s
        self.keys += visit.keys
        took = wait + visit.server_s + visit.network_s
        self.waits.append(wait)
        self.took.append(took)
        return took

    def update(self, seq: Seq, now: float) -> None:
        """A request has ended, and what it computed of its prompt is written down."""
        visit = self._policy.update(max(0, seq.input_tokens - sum(seq.hit_tokens)))
        self._free_at = max(self._free_at, now) + visit.server_s
        self.busy_s += visit.server_s
        self.updates += visit.keys


def response_summary(responses: Responses, columns: dict[str, np.ndarray], finished: np.ndarray) -> dict[str, Any]:
    """`summary["response_cache"]`; `columns` of the table of requests."""
    answered = finished & (columns["replica"] < 0)
    others = finished & ~answered
    tpot = columns["tpot_s"][others]
    tpot = tpot[~np.isnan(tpot)]
    return {
        "hits": int(answered.sum()),
        "hit_ratio": float(answered.sum() / finished.sum()) if finished.any() else 0.0,
        "bypassed_input_tokens": int(columns["input_tokens"][answered].sum()),
        "bypassed_output_tokens": int(columns["output_tokens"][answered].sum()),
        "gpu_ttft_mean_ms": 1e3 * float(columns["ttft_s"][others].mean()) if others.any() else None,
        "gpu_tpot_mean_ms": 1e3 * float(tpot.mean()) if len(tpot) else None,
        "caches": [
            {
                "name": name,
                "lookups": responses.lookups[place],
                "hits": responses.hits[place],
                "entries": cache.entries,
                "used_bytes": cache.used_bytes,
                "capacity_bytes": cache.capacity,
            }
            for place, (name, cache) in enumerate(responses.caches)
        ],
    }


def index_summary(index: Index, span_s: float) -> dict[str, Any]:
    """`summary["metadata_index"]`; span_s: of the run."""
    took, waits = (1e3 * np.array(values or [0.0]) for values in (index.took, index.waits))
    return {
        "lookups": len(index.took),
        "keys": index.keys,
        "written_keys": index.updates,
        "lookup_mean_ms": float(took.mean()),
        "lookup_p99_ms": float(np.percentile(took, 99)),
        "queue_mean_ms": float(waits.mean()),
        "utilization": index.busy_s / span_s if span_s else 0.0,
    }
