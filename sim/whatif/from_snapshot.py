"""Many runs that go on from one snapshot: the way there is made once, and each run goes on in a copy of the process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sim.cluster import Cluster
from sim.forked import in_children
from sim.inputs import Inputs, load_inputs
from sim.policy_failure import failures_named
from sim.run import Stopwatch, drain, go_on, no_collections, on_the_way, result_of
from sim.sampler import Sampler
from sim.scenario import Scenario
from sim.snapshot import SUFFIX
from sim.whatif.runs import Job, Run, kept, named


@dataclass(frozen=True)
class Shared:
    """Jobs that begin with the same snapshot, and how many of them may go on at a time."""

    jobs: tuple[Job, ...]
    at_once: int


def snapshot_of(job: Job) -> Path | None:
    """The file of the snapshot that a job begins with, if it does and this system can copy processes."""
    warm = job.document.get("warm_start")
    path = warm.get("path") if isinstance(warm, dict) else warm
    if not isinstance(path, str) or not path.endswith(SUFFIX) or not hasattr(os, "fork"):
        return None
    return (job.base_dir / Path(path).expanduser()).resolve()


def run_shared(shared: Shared) -> list[Run]:
    """The runs of all jobs, in their order. Raises InputError that says which one it was."""
    with no_collections():
        loaded = []
        for job in shared.jobs:
            with named(job):
                scenario = job.scenario
                loaded.append((job, scenario, load_inputs(scenario, strict=job.strict)))
        snapshot = loaded[0][2].snapshot
        assert snapshot is not None
        cluster = on_the_way(snapshot, strict=shared.jobs[0].strict)
        Sampler(cluster, None)
        with failures_named(lambda: cluster.clock.now, snapshot.where):
            cluster.clock.run_to(snapshot.at_s)
        return in_children([partial(_rest, cluster, *each) for each in loaded], shared.at_once)


def _rest(cluster: Cluster, job: Job, scenario: Scenario, inputs: Inputs) -> Run:
    """What follows on the snapshot, in a copy of the process: the cluster is its own."""
    with named(job):
        started = Stopwatch()
        go_on(cluster, scenario, inputs)
        drain(cluster)
        result = result_of(cluster, inputs, started)
        if job.out is not None:
            result.save(job.out)
    return kept(job.label, result.summary, result.tables["requests"])
