"""What a run's numbers take for granted, in words, for its summary and its report."""

from __future__ import annotations

from hw_profiles.units import format_bytes
from sim.spec import ScenarioSpec


def assumptions(spec: ScenarioSpec) -> list[str]:
    """The assumptions of a run of `spec`, one paragraph each."""
    ahead = spec.engine.l2_prefetch
    prefetch = f" but for {format_bytes(ahead)} of KV per layer that are prefetched into it" if ahead else ""
    return [
        "Modelled: arrivals, lengths and prefix sharing of the trace; vLLM v1 scheduling (token budget, chunked "
        "prefill, FCFS, preemption by recompute); prefix caching by chained hashes in full engine blocks; one copy "
        "engine per direction and GPU over shared bandwidths; one copy per contiguous piece of an engine block "
        "(engine.kv_layout); loading of cached prefixes as engine.loading says (by default a request waits for its "
        "own, its batch does not).",
        f"Step time: matrix products, attention (cold in L2{prefetch}), elementwise kernels and launches from the "
        "profile's fitted models. Host time per step is engine.host_time (0 s: asynchronous scheduling hides it).",
        *_prefetch(ahead),
        "Output tokens are private to their request: they hold HBM, stay cached until evicted, and are neither hit by "
        "another request nor offloaded.",
        "Copies slow the kernels of their GPU, by bytes moved during a step and the profile's interference factors "
        "(estimates unless the profile says otherwise).",
        f"Not modelled in this version: L2 residency{' (but for that prefetch)' if ahead else ''}, bandwidth that GPUs "
        "of a host share (unless `links:` gives it), tensor parallelism, speculation, tokenisation, client network.",
    ]


def _prefetch(ahead: int) -> list[str]:
    if not ahead:
        return []
    return [
        "Prefetch into L2 (engine.l2_prefetch): the kernels before an attention cover it, HBM time that they do not "
        "need is free, and what exceeds L2 is evicted before its use and read twice. The knee of L2 is fitted; the "
        "gain is a formula of kvsim's own, checked against one publication (arXiv 2504.06319)."
    ]
