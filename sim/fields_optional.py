"""Fields of the sections of summary.json that only some runs have (sim.fields)."""

from __future__ import annotations

from sim.field import Field

DISAGGREGATION = (
    Field("requests", "Handed over", "requests", "Requests that one instance computed and another one decoded."),
    Field("bytes", "Moved", "B", "KV that crossed the links between prefill and decode instances."),
    Field("reused_bytes", "Not sent", "B", "KV of their prompts that decode instances had cached."),
    Field("transfer_ms", "Transfer", "ms", "From a request's first byte on the link to its last one."),
    Field("memory_wait_ms", "Waited for memory", "ms", "From the first token until the decode instance had memory."),
    Field("transfer_wait_ms", "Waited for KV", "ms", "From then until all KV of the prompt was there."),
    Field("place_wait_ms", "Waited for a step", "ms", "From then until a step of the decode instance had a place."),
    Field(
        "second_token_ms", "First gap", "ms", "From the first token to the second, the first of the decode instance."
    ),
    Field(
        "preemptions", "Preemptions", "", "Times a decode instance ran out of memory; it computes again what it lost."
    ),
    Field("busy", "Busy", "ratio", "Time in steps / replica-seconds of the pool."),
    Field("waiting", "Waiting for KV", "ratio", "Nothing ran until KV had come, or had left memory / replica-seconds."),
    Field("hbm_peak", "HBM, peak", "ratio", "Most of an instance's KV memory in use at a time; mean of the pool."),
)

PREFETCH = (
    Field("fetched_bytes", "Prefetched", "B", "Bytes that prefetches brought nearer to the GPU, over all tiers."),
    Field("used_bytes", "Used", "B", "Those that a request reused, or that were fetched on toward the GPU."),
    Field("wasted_bytes", "Wasted", "B", "The others: evicted, expired or left at the end of the run without use."),
    Field(
        "late_bytes",
        "Late",
        "B",
        "Those still on their way when a request first came for them: it waited, or computed them.",
    ),
)

FLEET = (
    Field("replica_s", "Replica-seconds", "s", "By state (off, starting, serving, draining), until the last finish."),
    Field("on_share", "On", "ratio", "Replica-seconds starting, serving or draining / those of all replicas."),
    Field("mean_on", "Replicas on, mean", "", "Starting, serving or draining, over time: what is paid for."),
    Field("mean_serving", "Replicas serving, mean", "", "Those that take requests, over time."),
    Field("gpu_hours", "GPU-hours", "h", "GPUs of the replicas that are on, over time."),
    Field("starts", "Starts", "", "Starts that were begun; those that serve from the start on are not counted."),
    Field("stops", "Stops", "", "Times that a replica which had served was turned off."),
    Field("cancelled_starts", "Starts given up", "", "Turned off before they served."),
    Field("kept", "Taken back", "", "Draining replicas that were to serve again before they were off."),
    Field("start_mean_s", "Start, mean", "s", "From the decision until it serves: weights, then the engine."),
    Field("weight_bytes", "Weights", "B", "What the GPUs of a replica load at its start."),
    Field("gateway", "Gateway", "", "Requests that no replica took when they came, and how long they waited there."),
)

TURNS = (
    Field("turn", "Turn", "", "Place of the request in its conversation, from 1."),
    Field("and_later", "And later", "", "True for the last row if it holds later turns too."),
    Field("requests", "Requests", "", "Finished requests of that turn."),
    Field("input_tokens", "Prompt tokens", "tokens", "Prompt tokens of those requests."),
    Field("hit_tokens", "Reused", "tokens", "Those of them that were reused instead of computed, by tier."),
)

FROM_SNAPSHOT = (
    Field("at_s", "Snapshot", "s", "When the run went on from the snapshot that it began with."),
    Field("changed", "Changed", "", "Keys of the scenario that changed at that time."),
    Field("requests_before", "Ended before", "requests", "Requests that had ended by then."),
    Field("requests_under_way", "Under way", "requests", "Requests that were under way then."),
    Field("requests", "Sent later", "requests", "Finished requests that were sent later; what follows is of these."),
    Field("ttft_ms", "TTFT", "ms", "From sending to the first token."),
    Field("tpot_ms", "TPOT", "ms", "Time per output token after the first."),
    Field("e2e_ms", "E2E", "ms", "From sending to the last token."),
    Field("hit_ratio", "Hit ratio", "ratio", "Reused tokens of all tiers / prompt tokens."),
    Field("requests_per_s", "Requests/s", "1/s", "Of those requests, over the time from the snapshot to the last end."),
)

ROUNDS = (
    Field("round", "Round", "", "Place of the requests in their conversations, from 1."),
    Field("and_later", "And later", "", "True for the last row if it holds later rounds too."),
    Field("requests", "Requests", "", "Finished requests of that round."),
    Field("start_s", "Start", "s", "When the first of them was sent."),
    Field("end_s", "End", "s", "When the last of them ended."),
    Field("input_tokens", "Prompt tokens", "tokens", "Prompt tokens of those requests."),
    Field("hit_tokens", "Reused", "tokens", "Those of them that were reused instead of computed, by tier."),
    Field("hit_ratio", "Hit ratio", "ratio", "Reused tokens of all tiers / prompt tokens."),
    Field(
        "unlimited_hit_ratio",
        "Hit ratio of unlimited tiers",
        "ratio",
        "The same if nothing were ever evicted and all replicas shared it, in whole blocks of the engine.",
    ),
    Field("ttft_ms", "TTFT", "ms", "From sending to the first token: mean and percentiles of the round."),
    Field("requests_per_s", "Requests/s", "1/s", "Requests of the round / the time from its start to its end."),
    Field("input_tokens_per_s", "Prompt tokens/s", "tokens/s", "Prompt tokens over the same time."),
    Field("output_tokens_per_s", "Output tokens/s", "tokens/s", "Output tokens over the same time."),
)

SPECULATION = (
    Field("verified", "Verifications", "", "Verifying steps of sequences."),
    Field("drafted", "Drafted", "tokens", "Tokens drafted for them."),
    Field("accepted", "Accepted", "tokens", "Drafted tokens that were right, and so were all before them."),
    Field("acceptance_rate", "Acceptance", "ratio", "Accepted / drafted tokens."),
    Field("accepted_length", "Accepted length", "tokens", "1 + accepted / verifications."),
    Field("kept", "Kept", "tokens", "Tokens that answers gained: accepted ones and one per verification, to the end."),
    Field("tokens_per_step", "Tokens per step", "tokens", "Kept / verifications."),
    Field("wasted", "Wasted", "tokens", "Drafted - accepted."),
    Field("past_the_end", "Past the end", "tokens", "Verified tokens beyond the end of an answer, dropped."),
    Field("draft_s", "Drafting", "s", "Seconds of steps in which the drafter ran, over all replicas."),
)

RESPONSE_CACHE = (
    Field("hits", "Answered", "requests", "Requests that a cache of answers answered; they never reach a GPU."),
    Field("hit_ratio", "Answered share", "ratio", "Those / finished requests."),
    Field("bypassed_input_tokens", "Prompts bypassed", "tokens", "Prompt tokens of those requests."),
    Field("bypassed_output_tokens", "Answers bypassed", "tokens", "Output tokens of those requests."),
    Field("gpu_ttft_mean_ms", "TTFT of the others", "ms", "Mean TTFT of the requests that replicas served."),
    Field("gpu_tpot_mean_ms", "TPOT of the others", "ms", "Mean time per output token of those."),
)

METADATA_INDEX = (
    Field("lookups", "Lookups", "requests", "Requests that asked the index before they were sent to a replica."),
    Field("keys", "Keys asked", "keys", "Keys of blocks that they asked for."),
    Field("written_keys", "Keys written", "keys", "Keys of blocks that were written when requests ended."),
    Field("lookup_mean_ms", "Lookup, mean", "ms", "From the question to its answer: queue, server and network."),
    Field("lookup_p99_ms", "Lookup, P99", "ms", "99th percentile of the same."),
    Field("queue_mean_ms", "Queue, mean", "ms", "The part of it before the server begins."),
    Field("utilization", "Utilisation", "ratio", "Busy time of the server / time until the last finish."),
)

BOUND = (
    Field("load_recompute_s", "Load + compute", "s", "Seconds to load and to compute the run's prompts, one by one."),
    Field("load_s", "Load", "s", "The part of it that loads what tiers had, over links that nothing else uses."),
    Field("compute_s", "Compute", "s", "The part of it that computes the rest."),
    Field("lower_bound_s", "Lower bound", "s", "What no policy could do with less, in tiers of these sizes."),
    Field("first_use_s", "First uses", "s", "The part of the bound for tokens that no earlier request had."),
    Field("regret", "Regret", "ratio", "Load + compute / lower bound - 1."),
)
