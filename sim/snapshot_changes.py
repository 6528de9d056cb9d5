"""What a run may change at the time of the snapshot that it begins with, and how a running cluster takes it over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.units import format_bytes
from sim.cluster import Cluster
from sim.hierarchy.tier import Tier
from sim.inputs import Inputs
from sim.replicas import engine_limits
from sim.scenario import Scenario

Apply = Callable[[Cluster], None]


def changes(before: Scenario, after: Scenario) -> list[str]:
    """Dotted paths of the resolved scenarios that differ, `warm_start` left out; each in CHANGES.

    Raises InputError for the first that a running system cannot take over.
    """
    old, new = dict(_leaves(before.resolved())), dict(_leaves(after.resolved()))
    paths = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    for path in paths:
        found, was = new.get(path), old.get(path)
        if path.endswith(".capacity") and _none(was) != _none(found):
            raise InputError(
                "a tier cannot come or go while the system runs", where=after.where, path=path, found=found
            )
        if not any(re.fullmatch(pattern, path) for pattern in CHANGES):
            raise InputError(
                f"differs from the run of the snapshot, where it is {was}, and cannot change while the system runs",
                where=after.where,
                path=path,
                found=found,
                allowed=ALLOWED,
            )
    return paths


def take_over(cluster: Cluster, scenario: Scenario, inputs: Inputs, paths: list[str]) -> None:
    """Let a running cluster go on as `scenario` says, which differs from its own in `paths` (of `changes`).

    The memory that the engine has for KV, and the batch sizes that it has captured graphs of, stay what they are.
    """
    own = cluster.inputs
    if own.caps.keys() != inputs.caps.keys():
        name = next(iter(own.caps.keys() ^ inputs.caps.keys()))
        raise InputError("a shared bandwidth cannot come or go while the system runs", path=f"links.{name}")
    cluster.scenario = scenario
    cluster.inputs = replace(
        own,
        profile=inputs.profile,
        links=inputs.links,
        caps=inputs.caps,
        devices=inputs.devices,
        snapshot=inputs.snapshot,
    )
    cluster.topology.changed(scenario, cluster.inputs)
    todo = dict.fromkeys(apply for path in paths for pattern, apply in CHANGES.items() if re.fullmatch(pattern, path))
    for apply in APPLY_ORDER:
        if apply in todo:
            apply(cluster)


# ---- one by one


def _capacities(cluster: Cluster) -> None:
    """What no longer fits leaves, the coldest first; the eviction policies learn of the new sizes."""
    topology = cluster.topology
    for level, tiers in enumerate(cluster.tiers):
        for tier in tiers if level else ():
            capacity = topology.capacity(level)
            if capacity == tier.capacity:
                continue
            held = tier.pinned + tier.reserved
            if held > capacity:
                raise InputError(
                    "what is being copied to and from the tier at the time of the snapshot does not fit",
                    path=f"tiers.{tier.name}.capacity",
                    found=format_bytes(capacity),
                    allowed=f"{format_bytes(held)} or more",
                )
            tier.capacity = tier.full = capacity
            tier.make_room(0)
            tier.counters.peak_bytes = min(tier.counters.peak_bytes, capacity)
            _new_policy(cluster, tier, level)


def _evictions(cluster: Cluster) -> None:
    for level, tiers in enumerate(cluster.tiers):
        for tier in tiers:
            _new_policy(cluster, tier, level)


def _new_policy(cluster: Cluster, tier: Tier, level: int) -> None:
    tier.change_policy(cluster.topology.eviction_of(tier, level))
    for replica in cluster.replicas:
        replica.cache.policies_changed()


def _offloads(cluster: Cluster) -> None:
    for replica in cluster.replicas:
        for level, place in enumerate((replica.cache.mover.here, *replica.cache.lower)):
            place.offload = cluster.topology.offload_of(level, place.tier, place.behind, replica.index)


def _admissions(cluster: Cluster) -> None:
    for replica in cluster.replicas:
        for level, place in enumerate(replica.cache.lower, start=1):
            place.admission = cluster.topology.admission_of(level, place.tier, replica.index)


def _prefetches(cluster: Cluster) -> None:
    """What is being fetched goes on; requests that come from now on are the new policy's."""
    apart = cluster.disaggregation
    for replica in cluster.replicas:
        if apart is None or apart.computes_prompts(replica.index):
            replica.prefetch_by(cluster.topology.prefetch())


def _routing(cluster: Cluster) -> None:
    cluster.routing.change(cluster.scenario)


def _limits(cluster: Cluster) -> None:
    if cluster.disaggregation is not None:
        raise InputError("pools of a disaggregated system have limits of their own", path="engine.max_num_seqs")
    for replica in cluster.replicas:
        limits = engine_limits(cluster.scenario.spec.engine, replica.cache)
        running = len(replica.batch.running)
        if running > limits.max_num_seqs:
            raise InputError(
                f"replica {replica.index} runs more sequences at the time of the snapshot",
                path="engine.max_num_seqs",
                found=limits.max_num_seqs,
                allowed=f"{running} or more",
            )
        replica.batch.limits = limits


def _links(cluster: Cluster) -> None:
    """Copies under way go on at their own pace, under the new shared bandwidths; later ones have the new link."""
    cluster.topology.ways.changed(cluster.inputs)


def _slo(_: Cluster) -> None:
    """Targets are looked at when the run is over."""


CHANGES: Mapping[str, Apply] = {
    r"tiers\.(?!hbm\.)\w+\.capacity": _capacities,
    r"(policies|tiers\.\w+)\.eviction(\..*)?": _evictions,
    r"(policies|tiers\.\w+)\.offload(\..*)?": _offloads,
    r"(policies|tiers\.\w+)\.admission(\..*)?": _admissions,
    r"policies\.prefetch(\..*)?": _prefetches,
    r"routing(\..*)?": _routing,
    r"engine\.(max_num_seqs|max_num_batched_tokens)": _limits,
    r"links\.\w+\.(bandwidth|latency)": _links,
    r"slo\..*": _slo,
}
"""Paths that may differ, as regular expressions, and what lets a running cluster take them over."""

APPLY_ORDER = tuple(CHANGES.values())
ALLOWED = (
    "capacity of tiers behind HBM, eviction, offload, admission and prefetch policies, routing, engine.max_num_seqs, "
    "engine.max_num_batched_tokens, bandwidth and latency of links, slo"
)


def _none(capacity: object) -> bool:
    return capacity in (None, "0 B")


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, plain value) of a resolved scenario; list items by their name, the order of tiers as one value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if path or key != "warm_start":
                yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list) and node and all(isinstance(item, Mapping) and "name" in item for item in node):
        yield path, [item["name"] for item in node]
        for item in node:
            yield from _leaves({k: v for k, v in item.items() if k != "name"}, f"{path}.{item['name']}")
    else:
        yield path, node
