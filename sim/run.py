"""One simulation from start to result."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import isfunction
from typing import Any

import pyarrow as pa

from hw_profiles.errors import InputError
from hw_profiles.sampling import Draw
from policies.eviction.fifo import FIFO
from sim import checks
from sim.attribution import attribute
from sim.cache_state import state_table
from sim.clock import SNAPSHOT_LAST
from sim.cluster import Cluster
from sim.config_hash import config_sha256, installed_version
from sim.disaggregation_summary import handed_columns
from sim.engine.replica import Replica
from sim.fleet.summary import with_gateway
from sim.forked import in_children
from sim.inputs import Inputs, load_inputs
from sim.invariants import ensure
from sim.policy_failure import failures_named
from sim.provenance import value_rows
from sim.result import Result
from sim.sampler import Sampler
from sim.scenario import Progress, Scenario
from sim.snapshot import Snapshot, fingerprint, taken
from sim.snapshot_changes import changes, take_over
from sim.summary import summarize
from sim.tables import columns_table, numbers, preemptions_table, requests_table, with_columns

CHECK_EVERY_EVENTS = 10_000


def simulate(
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    check: bool = False,
    strict: bool = False,
    single_step: bool = False,
    bound: bool = False,
    save_cache_state: bool = False,
    save_cache_state_at: float | None = None,
    save_snapshot_at: float | None = None,
    draw: Draw | None = None,
    inputs: Inputs | None = None,
    watch: Callable[[Cluster], None] | None = None,
) -> Result:
    """Run a scenario. `check` recounts every invariant often; `single_step` does not stride (same result, slower).

    With `bound` the summary also has `bound`: the run's load + compute seconds against the least that its lookups allow
    (sim.cache.run_bound). With `save_cache_state` the result has what the tiers held at the end, with
    `save_cache_state_at` (s) at that time, with `save_snapshot_at` (s) how to go on from then. With `draw` the machine
    is one drawn from the intervals of its values (sim.uncertainty). `inputs` are those of the scenario, if they are
    loaded already. `watch` is called with the cluster at every sample, and may raise to end the run.
    Raises InputError for input that turns out wrong, InvariantError if the simulator broke one of its own rules.
    """
    if bound and scenario.spec.warm_start is not None:
        raise InputError("the bound is of caches that are empty at first", where=scenario.where, path="warm_start")
    started = Stopwatch()
    with no_collections():
        inputs = load_inputs(scenario, strict=strict, draw=draw) if inputs is None else inputs
        if inputs.snapshot is None:
            cluster = Cluster(scenario, inputs, single_step=single_step)
        else:
            cluster = on_the_way(inputs.snapshot, strict=strict, single_step=single_step)
            cluster.clock.at(inputs.snapshot.at_s, partial(go_on, cluster, scenario, inputs), SNAPSHOT_LAST)
        Sampler(cluster, progress, watch)
        states: list[pa.Table] = []
        snapshots: list[Snapshot] = []
        if save_cache_state_at is not None:
            cluster.clock.at(save_cache_state_at, partial(_keep, states, state_now, cluster), SNAPSHOT_LAST)
        if save_snapshot_at is not None:
            if inputs.snapshot is not None:
                raise InputError("no snapshot of a run that began with one", where=scenario.where, path="warm_start")
            sha = config_sha256(scenario, inputs)
            cluster.clock.at(save_snapshot_at, partial(_keep, snapshots, taken, cluster, sha), SNAPSHOT_LAST)
        drain(cluster, check=check)
        if save_cache_state:
            states.append(state_at_end(cluster))
        result = result_of(cluster, inputs, started, bound=bound)
        if watch is None:  # who watches may keep it
            let_go(cluster)
        del cluster
    return replace(result, cache_state=states[-1] if states else None, snapshot=snapshots[-1] if snapshots else None)


def _keep(kept: list[Any], take: Callable[..., Any], *of: object) -> None:
    kept.append(take(*of))


@contextmanager
def no_collections() -> Iterator[None]:
    """No search for garbage cycles: a run allocates many small objects and makes no cycles worth finding. What is left
    of its runtime objects afterwards, and their columns, is found at the end."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
            gc.collect(0)  # what came meanwhile


def drain(cluster: Cluster, *, check: bool = False) -> None:
    """Run a cluster until nothing is left to happen, and recount its state. Raises InputError, InvariantError."""
    with failures_named(lambda: cluster.clock.now, cluster.scenario.where):
        cluster.clock.drain(CHECK_EVERY_EVENTS if check else None, lambda: checks.check_state(cluster))
    checks.check_state(cluster)


def let_go(cluster: Cluster) -> None:
    """Take what tiers hold from a cluster that nobody looks at any more: nearly all objects that there are, which the
    next search for garbage cycles would go through several times."""
    for tiers in cluster.tiers:
        for tier in tiers:
            for block in tier.blocks.values():
                block.run = None
            tier.blocks.clear()
            tier.policy = FIFO.__new__(FIFO)  # the old one, which may be a user's, is left as it is


class Stopwatch:
    """Seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall, CPU), s."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def result_of(cluster: Cluster, inputs: Inputs, started: Stopwatch, *, bound: bool = False) -> Result:
    """Tables and summary of a cluster whose run is over. inputs: of its scenario, as they were loaded."""
    scenario, recorder, lost = cluster.scenario, cluster.recorder, cluster.preemptions
    steps = columns_table(recorder.steps)
    requests = requests_table(cluster.served, cluster.tier_names, lookups=cluster.front.asks)
    if cluster.disaggregation is not None:
        requests = with_columns(requests, handed_columns(cluster.disaggregation, requests))
    requests = with_gateway(cluster, with_columns(requests, attribute(requests, steps, lost)))
    if cluster.trace.priorities is not None:
        requests = with_columns(requests, {"priority": cluster.trace.priorities[numbers(requests, "request_id")]})
    checks.check_end(cluster, requests)
    summary = summarize(cluster, requests, steps, config_sha256(scenario, inputs), installed_version())
    if bound:
        from sim.cache.run_bound import bound_of_run

        summary["bound"] = bound_of_run(cluster, requests)
    tables = {
        "requests": requests,
        "steps": steps,
        "transfers": columns_table(recorder.transfers),
        "samples": columns_table(recorder.samples),
        "preemptions": preemptions_table(lost, cluster.tier_names),
    }
    wall_s, cpu_s = started.read()
    summary["simulator"] = {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "events": cluster.clock.events,
        "steps": sum(r.accounts.steps for r in cluster.replicas),
        "requests_per_cpu_s": cluster.done / cpu_s,
        "compiled": not isfunction(Replica.enqueue),  # `make compile`
    }
    return Result(summary, tables, scenario.to_yaml(), value_rows(cluster))


# ---- from a snapshot on


def on_the_way(snapshot: Snapshot, *, strict: bool = False, single_step: bool = False) -> Cluster:
    """A cluster that makes the run of a snapshot again. Raises InputError if it would be another run."""
    base = snapshot.base
    inputs = load_inputs(base, strict=strict)
    if inputs.snapshot is not None:
        raise InputError("a snapshot of a run that began with one", where=snapshot.where)
    if config_sha256(base, inputs) != snapshot.config_sha256:
        problem = "another version of kvsim, or of a file that the scenario names, made this snapshot: take it again"
        raise InputError(problem, where=snapshot.where)
    return Cluster(base, inputs, single_step=single_step)


def go_on(cluster: Cluster, scenario: Scenario, inputs: Inputs) -> None:
    """The time of the snapshot has come: what `scenario` changes is taken over. Raises InputError."""
    snapshot = inputs.snapshot
    assert snapshot is not None
    if not cluster.single_step:  # which has other rows so far
        ensure(fingerprint(cluster) == snapshot.state_sha256, f"{snapshot.where}: the same run came to another state")
    try:
        take_over(cluster, scenario, inputs, changes(snapshot.base, scenario))
    except InputError as error:
        raise error.at(where=scenario.where) from None


def state_at_end(cluster: Cluster) -> pa.Table:
    """What the tiers hold when nothing is left to happen. Raises InputError for a policy that fails."""
    with failures_named(lambda: cluster.clock.now, cluster.scenario.where):
        return state_table((tier for tiers in cluster.tiers for tier in tiers), cluster.identity())


def state_now(cluster: Cluster) -> pa.Table:
    """What the tiers hold, requests being under way. A policy may move things when it is asked for its order, so a copy
    of this process is."""
    return in_children([lambda: state_table((t for tiers in cluster.tiers for t in tiers), cluster.identity())])[0]
