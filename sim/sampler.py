"""Looks at the cluster on an even grid of simulated time: queue lengths and occupancy for the report."""

from __future__ import annotations

from sim.clock import ARRIVAL_FIRST
from sim.cluster import Cluster
from sim.invariants import ensure
from sim.scenario import Progress

POINTS = 300
"""Samples over the span of the arrivals; the drain after the last arrival goes on at the same interval."""
MOST_POINTS = 4 * POINTS


class Sampler:
    """Samples until every request is done. Also reports progress."""

    def __init__(self, cluster: Cluster, progress: Progress | None) -> None:
        self._cluster = cluster
        self._progress = progress
        self._span = float(cluster.trace.arrival_s[-1])
        self._interval = max(self._span / POINTS, 1e-3)
        self._taken = 0
        cluster.clock.at(0.0, self._sample, ARRIVAL_FIRST)

    def _sample(self) -> None:
        cluster = self._cluster
        now = cluster.clock.now
        add = cluster.recorder.samples.append
        for replica in cluster.replicas:
            label = str(replica.index)
            replica.book(now)
            add(now, "replica", label, "running", len(replica.batch.running))
            add(now, "replica", label, "waiting", replica.batch.queue_length)
            add(now, "replica", label, "loading", len(replica.batch.loading))
        for tiers in cluster.tiers:
            for tier in tiers:
                add(now, "tier", tier.label, "used_bytes", tier.used + tier.reserved)
                add(now, "tier", tier.label, "pinned_bytes", tier.pinned + tier.reserved)
        if self._progress is not None:
            self._progress(now, self._span, cluster.done, len(cluster.trace))
        self._taken += 1
        if self._taken > MOST_POINTS:
            self._interval *= 2  # a long drain: keep the table small
            self._taken //= 2
        if cluster.done < len(cluster.trace):
            ensure(not cluster.clock.idle, f"at {now:.3f} s nothing is left to happen, but requests are not done")
            cluster.clock.at(now + self._interval, self._sample, ARRIVAL_FIRST)
