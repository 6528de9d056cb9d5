"""Stops a run whose SLO is lost: when no completion of its remaining requests could meet a target any more.

What is counted is certain: latencies of requests that have them, and requests that already wait longer than the limit.
Everything else counts as met, and as fast as can be. ITL and queue time are never reason to stop.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sim.cluster import Cluster
from sim.engine.sequence import Sequence

METRICS = ("ttft", "tpot", "e2e")
REJECTED = "rejected"
"""Key of what was lost where rejected requests alone decided."""
SLACK = 1e-9
"""Relative margin on limits, for sums in another order than the summary's."""


class Stopped(Exception):  # noqa: N818 -- not an error: the answer is known
    """The SLO is lost at `at_s`; `missed` of `requests` requests are beyond the limit of target `key` for certain.

    key "rejected": too many were rejected, whatever the latencies of the others. statuses: of the rejected ones.
    hardware: what a summary says of it, with tiers' capacities, as far as `sim.whatif.prices.cost` needs it.
    """

    def __init__(
        self,
        key: str,
        at_s: float,
        missed: int,
        requests: int,
        hardware: Mapping[str, Any],
        statuses: Collection[str] = (),
    ) -> None:
        super().__init__(key)
        self.key = key
        self.at_s = at_s
        self.missed = missed
        self.requests = requests
        self.hardware = hardware
        self.statuses = tuple(statuses)


@dataclass
class _Count:
    """Of one target: its limit (s), requests beyond it, and the sum of values (s) for a mean."""

    metric: str
    statistic: str
    limit: float
    missed: int = 0
    total: float = 0.0


class Watch:
    """To be called with the cluster now and then; raises Stopped.

    slo: limits in seconds by key (`ttft_p99`); attainment: least share of requests within all of them, if asked for.
    """

    def __init__(self, slo: Mapping[str, float], attainment: float | None = None) -> None:
        self._counts = {key: _count(key, limit) for key, limit in slo.items() if key.partition("_")[0] in METRICS}
        self._attainment = attainment
        self._missed_any = 0
        self._rejected: list[str] = []
        self._open: list[Sequence] = []

    def __call__(self, cluster: Cluster) -> None:
        """Raise Stopped if the SLO is lost."""
        now, requests = cluster.clock.now, len(cluster.trace)
        self._open += cluster.served.recent or ()
        cluster.served.recent = []
        still = []
        for seq in self._open:
            if seq.status.startswith("rejected"):
                self._rejected.append(seq.status)
            elif math.isnan(seq.finish_s):
                still.append(seq)
            else:
                self._book(seq)
        self._open = still
        rejected = len(self._rejected)
        for key, count in self._counts.items():
            beyond = count.missed + sum(_at_least(seq, count.metric, now) > count.limit for seq in still)
            if _lost(count, beyond, rejected, requests):
                alone = rejected and _lost(count, 0, rejected, requests)
                self._stop(REJECTED if alone else key, beyond, cluster)
        if self._attainment is not None:
            beyond = self._missed_any + rejected + sum(self._misses(seq, now) for seq in still)
            if requests - beyond < self._attainment * requests * (1 - SLACK):
                alone = requests - rejected < self._attainment * requests * (1 - SLACK)
                self._stop(REJECTED if alone else "attainment", beyond, cluster)

    def _book(self, seq: Sequence) -> None:
        """A finished request."""
        values = {count.metric: _value(seq, count.metric) for count in self._counts.values()}
        missed = False
        for count in self._counts.values():
            value = values[count.metric]
            count.total += value
            if value > count.limit:
                count.missed += 1
                missed = True
        self._missed_any += missed

    def _misses(self, seq: Sequence, now: float) -> bool:
        return any(_at_least(seq, count.metric, now) > count.limit for count in self._counts.values())

    def _stop(self, key: str, missed: int, cluster: Cluster) -> None:
        spec, inputs = cluster.scenario.spec, cluster.inputs
        tiers = {
            name: {"capacity_bytes": sum(tier.capacity for tier in tiers)}
            for name, tiers in zip(cluster.tier_names, cluster.tiers, strict=True)
        }
        gpus = spec.hardware.replicas * spec.hardware.parallel.gpus
        named = {"profile": inputs.profile.name, "gpus": gpus, "gpu_power_limit_w": inputs.profile.power_limit}
        hardware = {"hardware": named, "tiers": tiers}
        raise Stopped(key, cluster.clock.now, missed, len(cluster.trace), hardware, self._rejected)


def most_missed(requests: int, percentile: float) -> int:
    """Requests that may be beyond a limit with their percentile (numpy's, interpolated) still within it, at most.

    Fewer requests that finish allow fewer; one more than the order statistic asks for is allowed, since the percentile
    interpolates and `percentile / 100 * (requests - 1)` rounds.
    """
    return requests - math.floor(percentile / 100 * (requests - 1))


def _lost(count: _Count, beyond: int, rejected: int, requests: int) -> bool:
    """True if no completion meets the target (as `sim.summary` judges it)."""
    if rejected and not count.statistic.startswith("p"):
        return True
    if count.statistic == "mean":  # what is to come may take no time, and finish
        return count.total / requests > count.limit
    if count.statistic == "max":
        return beyond > 0
    percentile = float(count.statistic[1:])
    if rejected and requests - beyond - rejected < percentile / 100 * requests * (1 - SLACK):
        return True
    return beyond > most_missed(requests, percentile)


def _count(key: str, limit: float) -> _Count:
    metric, _, statistic = key.partition("_")
    return _Count(metric, statistic, limit * (1 + SLACK))


def _value(seq: Sequence, metric: str) -> float:
    """Latency of a finished request, s; 0 where it has none."""
    if metric == "ttft":
        return seq.first_token_s - seq.arrival_s
    if metric == "e2e":
        return seq.finish_s - seq.arrival_s
    return (seq.finish_s - seq.first_token_s) / (seq.output_tokens - 1) if seq.output_tokens > 1 else 0.0


def _at_least(seq: Sequence, metric: str, now: float) -> float:
    """What the latency of a request that is not finished will be at least, s."""
    first = seq.first_token_s
    if metric == "ttft":
        return (now if math.isnan(first) else first) - seq.arrival_s
    if metric == "e2e":
        return now - seq.arrival_s
    return 0.0 if math.isnan(first) or seq.output_tokens < 2 else (now - first) / (seq.output_tokens - 1)
