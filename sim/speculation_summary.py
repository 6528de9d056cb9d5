"""What speculation came to in a run: its part of the summary, and the tokens recounted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from sim.cluster import Cluster
from sim.engine.speculative import SpeculativeGroup
from sim.invariants import ensure
from sim.tables import numbers


def groups(cluster: Cluster) -> list[SpeculativeGroup]:
    """The decoding sequences of each replica that verifies drafts."""
    found = (replica.batch.decoding for replica in cluster.replicas)
    return [group for group in found if isinstance(group, SpeculativeGroup)]


def speculation(cluster: Cluster, steps: pa.Table) -> dict[str, Any] | None:
    """`summary["speculation"]`; None without. Fields: sim.fields.SPECULATION."""
    asked = cluster.inputs.speculation
    if asked is None:
        return None
    of = groups(cluster)
    verified, drafted, accepted, kept = (
        sum(getattr(group, name) for group in of) for name in ("verified", "drafted", "accepted", "kept")
    )
    spec, draft = asked.spec, asked.model
    return {
        "method": spec.method,
        "tokens": spec.tokens,
        "model": None if draft is None else draft.name,
        "weight_bytes": asked.weight_bytes,
        "kv_bytes_per_token": 0 if draft is None else spec_bytes(cluster),
        "verified": verified,
        "drafted": drafted,
        "accepted": accepted,
        "acceptance_rate": accepted / drafted if drafted else None,
        "accepted_length": 1 + accepted / verified if verified else None,
        "kept": kept,
        "tokens_per_step": kept / verified if verified else None,
        "wasted": drafted - accepted,
        "wasted_share": (drafted - accepted) / drafted if drafted else None,
        "past_the_end": verified + accepted - kept,
        "draft_s": float(numbers(steps, "works_s").sum()),
    }


def spec_bytes(cluster: Cluster) -> int:
    """KV bytes that a token leaves in the drafter's layers, on all GPUs of a replica."""
    asked, tp = cluster.inputs.speculation, cluster.scenario.spec.hardware.tp
    return 0 if asked is None or asked.model is None else tp * asked.model.kv_bytes_per_token_at(asked.tp)


def check_speculation(cluster: Cluster, verified: int) -> int:
    """Recount drafted and gained tokens against the table of steps, whose sequences verified so many times.

    Gives the tokens that answers gained in these steps. Raises InvariantError.
    """
    asked, of = cluster.inputs.speculation, groups(cluster)
    ensure(asked is not None and len(of) == len(cluster.replicas), "a replica does not verify drafts")
    assert asked is not None
    ensure(sum(group.verified for group in of) == verified, "verifications of steps and replicas differ")
    for group in of:
        most = group.verified * asked.spec.tokens
        ensure(0 <= group.accepted <= group.drafted <= most, "more drafted tokens were right than there are")
        full = asked.spec.method != "ngram" or asked.spec.match in (None, 1.0)
        ensure(not full or group.drafted == most, "a step drafted fewer tokens than it should")
        gained = group.verified + group.accepted
        ensure(group.verified <= group.kept <= gained, "answers gained tokens that nobody verified")
    return int(np.sum([group.kept for group in of]))
