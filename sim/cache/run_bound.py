"""How far a run was from the least seconds of loading and computing that its own lookups allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sim.cache.bound import DEFINITION, Visits, lower_bound, regret
from sim.cache.prices import prices_of, spent_s
from sim.cluster import Cluster
from sim.framework_spec import full_step

IN_A_RUN = (
    "Of a run: the tokens are those of its requests, the lookups those of its admissions, in their order and at their "
    "times; a request has its blocks in hand until it ends. All replicas and nodes count as one cache of their summed "
    "capacity, and work repeated after a preemption is on neither side. The answer of a turn, which the next turn has "
    "in its prompt, may be found there without having been computed as a prompt, so the bound takes it as free once."
)
AHEAD = "Blocks were prefetched, so the bound takes loading as free."


def bound_of_run(cluster: Cluster, requests: pa.Table) -> dict[str, Any]:
    """The `bound` of a run's summary, from its finished `requests`: seconds, their lower bound, and the regret.

    `regret` is None where nothing was computed.
    """
    spec, inputs = cluster.scenario.spec, cluster.inputs
    finished = requests.filter(pc.and_(pc.is_finite(requests["finish_s"]), pc.greater_equal(requests["replica"], 0)))
    column = {name: finished[name].to_numpy() for name in finished.column_names if name not in ("status", "reason")}
    lengths = column["input_tokens"]
    held = cluster.topology.held_bytes()
    hits = np.stack([column[f"hit_{tier}_tokens"] for tier in held], axis=1)
    size, token_bytes = spec.engine.block_tokens, inputs.token_bytes
    prices = prices_of(
        cluster.topology.costs(0),
        list(held),
        chunk=full_step(spec.engine),
        longest=int(lengths.max(initial=1)),
        token_bytes=token_bytes,
    )
    reusable = (lengths - 1) // size * size if inputs.trace.block_tokens else np.zeros_like(lengths)
    visits = Visits(
        inputs.trace,
        column["request_id"],
        column["admit_s"],
        column["finish_s"],
        reusable,
        column["preemptions"] == 0,
        answers=True,
    )
    capacities = [size // token_bytes for size in held.values()]
    ahead = cluster.topology.prefetch() is not None
    bound = lower_bound(visits, capacities, prices, fetched_ahead=ahead)
    load_s, compute_s = spent_s(prices, lengths, hits)
    return {
        "load_recompute_s": load_s + compute_s,
        "lower_bound_s": bound.seconds,
        "regret": regret(load_s + compute_s, bound.seconds) if bound.seconds else None,
        "load_s": load_s,
        "compute_s": compute_s,
        "first_use_s": bound.first_s,
        "definition": " ".join((DEFINITION, IN_A_RUN, *([AHEAD] if ahead else []))),
    }
