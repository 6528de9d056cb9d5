"""What a scheduler may not go beyond."""

from __future__ import annotations

from dataclasses import dataclass

from sim.engine.queue import Scheduling


@dataclass(frozen=True)
class EngineLimits:
    """Limits of the scheduler.

    whole_prompts  static batches run prompts whole, whatever `max_num_batched_tokens`
    chunked        prompts that do not fit a step run in chunks
    no_evict       a request is admitted only if all that it will ever need fits (sim.engine.inflight)
    mixed, conservativeness, longest_prefix_first: see sim.engine.prefill_first
    reserve_full_isl  a request starts only if there is room for its whole prompt, not just for its first chunk
    watermark      bytes of HBM that are kept free when a request starts beside others
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    scheduling: Scheduling = "fcfs"
    whole_prompts: bool = False
    chunked: bool = True
    no_evict: bool = False
    mixed: bool = True
    conservativeness: float = 1.0
    longest_prefix_first: bool = False
    reserve_full_isl: bool = False
    watermark: int = 0
