"""What the reader of a run should be warned of: knobs that did nothing, bounds, and numbers that were not measured."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np

from hw_profiles.loader import list_profiles
from hw_profiles.units import format_bytes
from policies.tables import PREFETCH
from sim.assumptions import bounds
from sim.cluster import Cluster
from sim.front_caveats import front_caveats
from sim.kind_spec import KERNELS


def caveats(cluster: Cluster, summary: Mapping[str, Any]) -> list[str]:
    """Warnings of a finished run with this summary, one line each; those of its trace first."""
    label = "is a bound (clairvoyant, arrival order), not a policy; it promises nothing on latency"
    spec = cluster.scenario.spec
    warnings = [*cluster.inputs.trace.warnings, *(f"{bound} {label}" for bound in bounds(spec))]
    for tier, (restored, left_out) in cluster.restored.items():
        if left_out:
            total = restored + left_out
            warnings.append(f"warm_start: {left_out} of {total} blocks of {tier} found no room, the coldest ones")
    if changed := summary.get("from_snapshot", {}).get("changed"):
        at = summary["from_snapshot"]["at_s"]
        text = f"begins with a snapshot: until {at:g} s without the changes of {', '.join(changed)}; "
        warnings.append(text + "all numbers but those after the snapshot are of both parts")
    rejected = summary["requests"]["rejected"]
    if rejected:
        statuses = cluster.served.statuses[1]
        reasons = sorted({status.partition(": ")[2] for status in statuses if status.startswith("rejected")})
        warnings.append(f"{rejected} requests were rejected: {' and '.join(reasons)}")
    warnings += [
        *_tiers(cluster),
        *_prefetch(cluster),
        *front_caveats(cluster),
        *_priority(cluster),
        *_host_memory(cluster),
        *(() if cluster.inputs.planned is None else cluster.inputs.planned.idle),
        *_kernels(cluster),
        *_estimated(cluster),
        *_extrapolated(cluster, summary["profile"]),
    ]
    return warnings


def _tiers(cluster: Cluster) -> list[str]:
    """Tiers that stay empty."""
    found = []
    trace, token_bytes = cluster.inputs.trace, cluster.inputs.token_bytes
    if not trace.block_tokens and len(cluster.tier_names) > 1:
        caching = cluster.scenario.spec.engine.prefix_caching
        why = "the trace has no prefix information" if caching else "engine.prefix_caching is false"
        found.append(f"{why}: nothing can be reused, so lower tiers stay empty")
    for tiers in cluster.tiers[1:]:
        for tier in tiers[:1]:
            full = max(tier.block_tokens, trace.block_tokens)
            if tier.capacity < full * token_bytes:
                none = tier.capacity < tier.block_tokens * token_bytes
                found.append(
                    f"tiers.{tier.name}: {format_bytes(tier.capacity)} is less than one block of {full} tokens "
                    f"({format_bytes(full * token_bytes)}), so it holds {'nothing' if none else 'no full block'}"
                )
    return found


def _prefetch(cluster: Cluster) -> list[str]:
    """A prefetch policy of kvsim's own that can fetch nothing here, and options of it that it does not look at."""
    named = cluster.scenario.spec.policies.prefetch
    if named is None or named.name == "none" or named.name not in PREFETCH:
        return []
    label, options = f"policies.prefetch: {named.name}", named.model_extra or {}
    tiers = [name for name, there in zip(cluster.tier_names, cluster.tiers, strict=True) if there]
    into = options.get("into", signature(PREFETCH[named.name]).parameters["into"].default)
    into = tiers[min(1, len(tiers) - 1)] if into is None else into
    found = []
    if into not in tiers:
        found.append(f"{label} fetches into {into}, which has no size, so it fetches nothing")
    elif into == tiers[-1]:
        found.append(f"{label} fetches into {into}, and no tier lies behind that, so it fetches nothing")
    if named.name == "next_turn":
        trace = cluster.trace
        if trace.session_ids is None:
            found.append(f"{label}: the trace tells no conversations apart, so it fetches nothing")
        elif options.get("estimate", "recorded") == "recorded" and not np.isfinite(trace.think_s).any():
            found.append(
                f"{label}: the trace does not say when next turns come, so `estimate: recorded` fetches nothing"
            )
    if "timeout" in options and (stop := options.get("stop", "best_effort")) != "timeout":
        found.append(f"{label}: `timeout` is for `stop: timeout`, and with `stop: {stop}` it does nothing")
    return found


def _priority(cluster: Cluster) -> list[str]:
    """Priorities that nothing looks at, and an engine that looks for some where there are none."""
    if (cluster.trace.priorities is None) != (cluster.scenario.spec.engine.scheduling == "priority"):
        return []
    return [
        "engine.scheduling is priority and the trace has none: all requests are alike"
        if cluster.trace.priorities is None
        else "the trace has priorities, which engine.scheduling: fcfs does not look at"
    ]


def _host_memory(cluster: Cluster) -> list[str]:
    """Room in host memory that nothing is kept in."""
    footprint, limit = cluster.inputs.footprint, cluster.scenario.spec.engine.host_kv_memory
    if limit is None or (footprint is not None and not footprint.host.zero):
        return []
    return ["engine.host_kv_memory: no policy within a sequence keeps KV in host memory, so it does nothing"]


def _kernels(cluster: Cluster) -> list[str]:
    """A profile with the kernels of another engine than the one that schedules, where there is one with its own."""
    kind, name = cluster.scenario.spec.engine.kind, cluster.inputs.profile.name
    plain = name
    for ending in KERNELS.values():
        plain = plain.removesuffix(ending)
    sibling = plain + KERNELS.get(kind, "")
    if sibling == name or sibling not in list_profiles():
        return []
    return [f"engine.kind is {kind} and profile {name} has another engine's kernels: {sibling} has that engine's"]


def _estimated(cluster: Cluster) -> list[str]:
    """A profile whose kernel times nobody measured. SOURCE of the errors: `kvsim validate kernels`, all pairs."""
    profile = cluster.inputs.profile
    if profile.kind != "datasheet":
        return []
    errors = "whole decode steps of such profiles are 12 % off in the median of 20 pairs of machines, 32 % at worst"
    return [f"kernel times of profile {profile.name} are estimated from datasheets: {errors}"]


def _extrapolated(cluster: Cluster, profile: Mapping[str, Any]) -> list[str]:
    """Times from outside the range that was measured."""
    found = []
    copies = profile["extrapolated_copies_fraction"]
    if copies is not None and copies > 0.5:
        found.append(f"{copies:.0%} of the bytes of devices moved in copies of sizes that were not measured")
    fraction = profile["extrapolated_fraction"]
    if fraction > 0.5:
        known = cluster.inputs.profile.validity.prefix[1]
        unseen = "" if known else " (which has no prefill after a cached prefix)"
        found.append(f"{fraction:.0%} of the step time lies outside the range that the profile was measured on{unseen}")
    return found
