"""The fields of summary.json by tier, link, time and prefetch, declared once, with unit and definition.

The summary carries this table under `definitions`, so a reader of the file, the console and the report say the same.
"""

from __future__ import annotations

from typing import Any

from sim.field import Field
from sim.fields_optional import (
    BOUND,
    DISAGGREGATION,
    FLEET,
    FROM_SNAPSHOT,
    METADATA_INDEX,
    PREFETCH,
    RESPONSE_CACHE,
    ROUNDS,
    SPECULATION,
    TURNS,
)

TIERS = (
    Field("count", "Instances", "", "Tiers of this name: one per replica, one per node, or one for the cluster."),
    Field("capacity_bytes", "Capacity", "B", "Bytes of KV that it can hold, over all instances."),
    Field("peak_bytes", "Peak", "B", "Most bytes in use at one time, summed over instances (each at its own time)."),
    Field(
        "stored_bytes",
        "Stored",
        "B",
        "Bytes that came in: stored from the side of the GPU, or kept when they were loaded or prefetched from behind; "
        "for HBM what became cached there, computed or loaded.",
    ),
    Field(
        "loaded_bytes",
        "Loaded",
        "B",
        "Bytes copied from it toward the GPU, to load or to prefetch; for HBM the cached bytes that prompts reused.",
    ),
    Field("evicted_blocks", "Evicted blocks", "blocks", "Blocks dropped to make room, at the trace's granularity."),
    Field("evicted_bytes", "Evicted", "B", "Bytes of the blocks dropped to make room."),
    Field("replaced_bytes", "Replaced", "B", "Bytes given up because a request computed or loaded them again."),
    Field(
        "never_loaded_bytes",
        "Never loaded",
        "B",
        "Bytes that no request had reused, and no prefetch had fetched, when they were evicted or expired or the run "
        "ended.",
    ),
    Field("moved_bytes", "Moved", "B", "Bytes that left an exclusive tier because they were loaded toward the GPU."),
    Field("passed_bytes", "Passed", "B", "Bytes that crossed it on their way to the GPU and left no copy."),
    Field("expired_blocks", "Expired blocks", "blocks", "Blocks that their policy dropped for their age."),
    Field("refused_bytes", "Refused", "B", "Bytes that were to be stored, but for which no room could be made."),
    Field("prefetched_bytes", "Prefetched", "B", "Bytes that prefetches brought into it, part of what was stored."),
    Field(
        "prefetch_used_bytes",
        "Prefetched, used",
        "B",
        "Of the prefetched bytes, those that a request then reused, or that were fetched on; the rest was in vain.",
    ),
    Field(
        "prefetch_late_bytes",
        "Prefetched, late",
        "B",
        "Of the prefetched bytes, those still on their way when a request first came for them: it waited, or computed "
        "them.",
    ),
)

LINKS = (
    Field("count", "Instances", "", "Links of this name: of the GPUs of a replica together, of a drive, or of a node."),
    Field("bytes", "Moved", "B", "Bytes copied over all of them."),
    Field("transfers", "Transfers", "", "Batches of copies; one batch has one place in the queue."),
    Field("busy_s", "Busy", "s", "Seconds with a copy in service, summed over instances."),
    Field("utilization", "Utilisation", "ratio", "Busy time / (instances x duration of the run)."),
    Field("queue_p99_ms", "Queue, P99", "ms", "99th percentile over transfers of the wait in the queue."),
    Field(
        "capacity_bytes_per_s",
        "Capacity",
        "B/s",
        "For a bandwidth that links share: what all instances carry; utilisation is bytes / (capacity x duration).",
    ),
)

TIME = (
    Field("compute_s", "computing", "s", "Steps, as long as they would have been without copies."),
    Field("interference_s", "slowed by copies", "s", "What copies beside them added to steps."),
    Field("layer_wait_s", "waiting for layers", "s", "Steps waited for a layer of a prefix (layer-wise loading)."),
    Field("kv_move_s", "waiting for KV in a step", "s", "Layers waited for KV that their own step copied (policies)."),
    Field(
        "load_wait_s",
        "waiting for loads",
        "s",
        "Nothing could run, but requests waited for KV on its way to them, or for memory that KV had yet to leave.",
    ),
    Field("store_wait_s", "waiting for stores", "s", "A step waited until evicted KV had left the memory it needs."),
    Field("idle_s", "idle", "s", "No request to serve."),
)

REPLICA_TIME = (
    Field("compute_s", "arithmetic", "s", "Kernels, as far as arithmetic bounds them; all attention of prompts."),
    Field("hbm_s", "HBM", "s", "Kernels, as far as reading and writing HBM bounds them."),
    Field(
        "link_wait_s",
        "links",
        "s",
        "GPUs exchanging, waits for KV to be loaded or copied away, and what copies added to steps.",
    ),
    Field("launch_s", "launches", "s", "Fixed times of kernels, waits for launches, host time per step."),
    Field(
        "bubble_s",
        "bubbles",
        "s",
        "Stages of a pipeline waiting for each other; of the average stage.",
    ),
    Field("idle_s", "idle", "s", "No request to serve."),
)

QUEUE = (
    Field("waiting", "waiting", "requests", "Arrived or preempted and not yet in a step, loads included."),
    Field("running", "running", "requests", "In the batches, from the first chunk on."),
)

ATTRIBUTION = (
    Field(
        "queue", "in the queue", "ms", "From its arrival until its first chunk, but for loads and its own prefetches."
    ),
    Field("gateway_wait", "at the gateway", "ms", "In the queue before any replica took it: none served, or had room."),
    Field(
        "lookup",
        "looked up before",
        "ms",
        "In caches of answers and in the index of prefixes, before it was sent to a replica (policies.reuse).",
    ),
    Field(
        "prefetch_wait",
        "waiting for its prefetch",
        "ms",
        "In the queue while a prefetch of its own, which must be complete or given up first, was under way.",
    ),
    Field(
        "load",
        "loading from",
        "ms",
        "Admitted, and waiting for its prefix to be in HBM; counted to the tier whose KV came last (load_<tier>).",
    ),
    Field("prefill", "computing its prompt", "ms", "Steps with chunks of its prompt; without what copies added."),
    Field(
        "handoff_memory",
        "waiting for decode memory",
        "ms",
        "After its first token, until the decode instance had memory for its KV (disaggregation).",
    ),
    Field(
        "handoff_transfer",
        "KV to the decode instance",
        "ms",
        "After that, the rest of its KV on the way to the decode instance (disaggregation).",
    ),
    Field(
        "handoff_place",
        "waiting for a decode step",
        "ms",
        "Its KV was there, and no step of the decode instance had a place for it yet (disaggregation).",
    ),
    Field(
        "decode", "decoding", "ms", "Steps that made its tokens after the first, with decoding alone; without copies."
    ),
    Field("decode_beside", "decoding beside prompts", "ms", "The same in steps that computed prompts of others too."),
    Field("recompute", "computing again", "ms", "Steps that computed what it had before it was preempted."),
    Field(
        "preempted",
        "preempted",
        "ms",
        "From its preemption until the first chunk of its recomputation, loading again included.",
    ),
    Field("copies", "slowed by copies", "ms", "What copies beside them added to its steps."),
    Field("layer_wait", "waiting for layers", "ms", "Its steps waited for a layer of a prefix (layer-wise loading)."),
    Field(
        "kv_moves",
        "KV moved in steps",
        "ms",
        "Layers of its steps waited for KV that the step copied (policies).",
    ),
    Field("store_wait", "waiting for stores", "ms", "Its steps waited until evicted KV had left the memory they need."),
)

GROUPS: dict[str, tuple[Field, ...]] = {
    "tiers": TIERS,
    "links": LINKS,
    "time": TIME,
    "replica_time": REPLICA_TIME,
    "queue": QUEUE,
    "attribution": ATTRIBUTION,
    "disaggregation": DISAGGREGATION,
    "prefetch": PREFETCH,
    "turns": TURNS,
    "rounds": ROUNDS,
    "speculation": SPECULATION,
    "fleet": FLEET,
    "from_snapshot": FROM_SNAPSHOT,
    "response_cache": RESPONSE_CACHE,
    "metadata_index": METADATA_INDEX,
    "bound": BOUND,
}


def definitions() -> dict[str, dict[str, dict[str, Any]]]:
    """What `summary["definitions"]` holds: label, unit and definition by group and key."""
    return {
        group: {f.key: {"label": f.label, "unit": f.unit, "definition": f.definition} for f in fields}
        for group, fields in GROUPS.items()
    }
