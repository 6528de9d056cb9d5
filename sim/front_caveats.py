"""Knobs of routing, admission control and what is asked before them that did nothing in a run."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from policies.tables import ADMISSION_CONTROL, REUSE
from sim.cluster import Cluster


def front_caveats(cluster: Cluster) -> list[str]:
    """Warnings, one line each."""
    spec = cluster.scenario.spec
    return [*_routing(cluster), *_admission(spec.admission_control), *_reuse(cluster)]


def _routing(cluster: Cluster) -> list[str]:
    """A router that looks for conversations where there are none, and an option of reports that never come."""
    named, found = cluster.scenario.spec.routing, []
    if named.name == "session_sticky" and cluster.trace.session_ids is None and len(cluster.replicas) > 1:
        found.append("routing: session_sticky: the trace tells no conversations apart, so only requests are counted")
    if "add_sent" in (options := named.model_extra or {}) and not options.get("stale"):
        found.append(f"routing: {named.name}: `add_sent` is for `stale`, and without that it does nothing")
    return found


def _admission(named: Any) -> list[str]:
    """Options of early rejection for a limit on steps that it does not have."""
    if named is None or named.name != "early_rejection":
        return []
    options, label = named.model_extra or {}, "admission_control: early_rejection"
    if options.get("tpot") is None:
        return [
            f"{label}: `{name}` is for `tpot`, and without that it does nothing"
            for name in ("load", "decode_time")
            if name in options
        ]
    load = _option(ADMISSION_CONTROL, "early_rejection", options, "load")
    if "decode_time" in options and load != "then":
        return [f"{label}: `decode_time` is for `load: then`, and with `load: {load}` it does nothing"]
    return []


def _reuse(cluster: Cluster) -> list[str]:
    """A cache that cannot know equal prompts, and options of an index for another way to ask it."""
    found = []
    for named in cluster.scenario.spec.policies.reuse:
        label, options = f"policies.reuse: {named.name}", named.model_extra or {}
        if named.name == "response_cache" and not cluster.trace.block_tokens:
            found.append(f"{label}: the trace does not say which prompts are the same, so it finds none")
        if named.name == "metadata_index":
            by = _option(REUSE, named.name, options, "by")
            found += [
                f"{label}: `{name}` is for `by: {way}`, and with `by: {by}` it does nothing"
                for name, way in (("known", "point"), ("sequential", "range"))
                if name in options and by != way
            ]
    return found


def _option(table: Mapping[str, type], name: str, options: Mapping[str, Any], key: str) -> Any:
    """The value of an option, or its default."""
    return options.get(key, signature(table[name]).parameters[key].default)
