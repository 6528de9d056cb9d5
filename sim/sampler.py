"""Looks at the cluster on an even grid of simulated time: queue lengths and occupancy for the report."""

from __future__ import annotations

from collections.abc import Callable

from sim.clock import ARRIVAL_FIRST
from sim.cluster import Cluster
from sim.invariants import ensure
from sim.scenario import Progress

POINTS = 300
"""Samples over the span of the arrivals, as far as it is known; afterwards it goes on at the same interval."""
MOST_POINTS = 4 * POINTS

Row = tuple[str, str, str, float]


class Sampler:
    """Samples until every request is done. Also reports progress, and calls `watch` at every sample.

    How long a run takes is not known beforehand: an overloaded system drains for long, and in a closed loop the system
    itself decides when requests arrive. When samples get too many, every second one is dropped and the interval
    doubles, so that the grid stays even.
    """

    def __init__(
        self, cluster: Cluster, progress: Progress | None, watch: Callable[[Cluster], None] | None = None
    ) -> None:
        self._cluster = cluster
        self._progress = progress
        self._watch = watch
        if watch is not None:
            cluster.served.recent = []
        self._span = float(cluster.trace.arrival_s[-1])
        self._interval = max(self._span / POINTS, 1e-3)
        self._samples: list[tuple[float, list[Row]]] = []
        cluster.clock.at(0.0, self._sample, ARRIVAL_FIRST)

    def _sample(self) -> None:
        cluster = self._cluster
        now = cluster.clock.now
        rows: list[Row] = []
        for replica in cluster.replicas:
            label = str(replica.index)
            replica.book(now)
            rows.append(("replica", label, "running", len(replica.batch.running)))
            rows.append(("replica", label, "waiting", replica.batch.queue_length))
            rows.append(("replica", label, "loading", len(replica.batch.loading)))
            rows.append(("replica", label, "load_wait_s", replica.accounts.times.load_wait_s))
        for tiers in cluster.tiers:
            for tier in tiers:
                rows.append(("tier", tier.label, "used_bytes", tier.used + tier.reserved))
                rows.append(("tier", tier.label, "pinned_bytes", tier.pinned + tier.reserved))
        if cluster.fleet is not None:
            rows.extend(cluster.fleet.samples())
        self._samples.append((now, rows))
        if self._progress is not None:
            self._progress(now, self._expected_s(now), cluster.done, len(cluster.trace))
        if self._watch is not None:
            self._watch(cluster)
        if len(self._samples) > MOST_POINTS:
            self._interval *= 2
            del self._samples[1::2]
        if cluster.done < len(cluster.trace):
            ensure(not cluster.clock.idle, f"at {now:.3f} s nothing is left to happen, but requests are not done")
            cluster.clock.at(now + self._interval, self._sample, ARRIVAL_FIRST)
        else:
            self._write()

    def _expected_s(self, now: float) -> float:
        """When the last request arrives, s: known in an open trace, else at the pace so far."""
        if not self._cluster.trace.closed_loop:
            return self._span
        return max(self._span, now * len(self._cluster.trace) / max(1, self._cluster.done))

    def _write(self) -> None:
        self._cluster.recorder.samples.extend((time, *row) for time, rows in self._samples for row in rows)
