"""docs/glossary.md: what every metric and field of a run means, from the tables that the simulator itself uses.

`python -m reports.glossary > docs/glossary.md` writes it again.
"""

import sys
from collections.abc import Iterator, Sequence

from sim.fields import GROUPS
from sim.metrics import METRICS

TERMS = (
    ("Block", "Tokens whose KV is cached, found and evicted together; named by a hash of them and all before."),
    ("Tier", "A place that holds KV: HBM, host DRAM, CXL or C2C memory, SSD, a remote store. HBM comes first."),
    ("Link", "What bytes cross between tiers, one direction at a time: PCIe, NVLink-C2C, a drive, a network."),
    ("Offload, store", "To copy KV away from the GPU. Load: to copy it toward the GPU for a request."),
    ("Prefetch", "To copy KV toward the GPU before a request has come to its turn."),
    ("Prefix hit", "Prompt tokens whose KV was cached in some tier and that are not computed again."),
    ("Eviction", "To drop blocks to make room; the policy of the tier says which."),
    ("Admission", "Whether a block may enter a tier at all."),
    ("Inclusive tier", "One that keeps its copy of what is loaded from it; an exclusive one gives it up."),
    ("Pinned block", "One that a running request or a copy uses, so that it cannot be evicted."),
    ("Preemption", "A running request loses its KV because HBM is full, waits, and is computed again."),
    ("Prefill, decode", "To compute the prompt, in chunks; to make the tokens after the first, one a step."),
    ("Step", "One pass of the model over the batch. Stride: steps with nothing to decide, simulated as one event."),
    ("Within a sequence", "Policies on parts of a request's own KV: which tokens are kept, read or fetched, and how."),
    ("SLO", "Limits on latencies that a run is judged by. Goodput counts only requests that meet them."),
    ("Profile", "What a machine can do: memory, links, formulas of kernel times; each value with interval and source."),
    ("Regret", "Load and compute seconds of a run over the least that any policy could do with, less 1."),
)  # fmt: skip

GROUP_TITLES = {
    "tiers": ("Tiers", "`summary.json`, `tiers.<name>`; summed over all tiers of a name."),
    "links": ("Links", "`links.<name>`; one that has a capacity is a bandwidth that several links share."),
    "time": ("Replica time, by what replicas did", "`time`; every second of every replica is in one row."),
    "replica_time": ("Replica time, by what bounds it", "`replica_time`; the same seconds, split another way."),
    "queue": ("Requests at a time", "`queue`."),
    "attribution": ("Parts of TTFT and E2E", "`attribution`; they add up to the latency of each request."),
    "disaggregation": ("Two pools", "`disaggregation`; the last three are of each of its `pools`."),
    "prefetch": ("Prefetches", "`prefetch`, of runs with a prefetch policy."),
    "speculation": ("Speculative decoding", "`speculation`, of runs with `engine.speculation`."),
    "turns": ("Turns of conversations", "`turns`."),
    "rounds": ("Rounds of a closed loop", "`rounds`, of clients and of conversations in a closed loop."),
    "fleet": ("Replicas that come and go", "`fleet`, of runs with a scaling policy."),
    "from_snapshot": ("After a snapshot", "`from_snapshot`, of runs that begin with a snapshot."),
    "response_cache": ("Caches of answers", "`response_cache`, of runs with one under `policies.reuse`."),
    "metadata_index": ("The index of prefixes", "`metadata_index`, of runs with one under `policies.reuse`."),
    "bound": ("Against the least possible", "`bound`, of `kvsim run --bound`."),
}  # fmt: skip


def markdown() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Glossary"
    yield ""
    yield "Made by `python -m reports.glossary` from the tables that console, report and summary.json use."
    yield "Offload and store mean away from the GPU, load means toward it. Latencies are those of finished requests."
    yield from _table("Words", "", ("word", "meaning"), TERMS)
    rows = [(m.label, m.key, m.unit, m.better, m.definition[0].upper() + m.definition[1:]) for m in METRICS]
    note = "`kvsim list metrics`; a key is what `kvsim sweep` searches by. A run leaves out what it has nothing for."
    yield from _table("Metrics", note, ("metric", "key", "unit", "better", "definition"), rows, code=1)
    for group, fields in GROUPS.items():
        title, note = GROUP_TITLES[group]
        columns = ("field", "key", "unit", "definition")
        yield from _table(title, note, columns, [(f.label, f.key, f.unit, f.definition) for f in fields], code=1)


def _table(
    title: str, note: str, columns: Sequence[str], rows: Sequence[Sequence[str]], code: int = -1
) -> Iterator[str]:
    yield from ("", f"## {title}", "", *([note, ""] if note else []))
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(f'`{cell}`' if at == code else cell for at, cell in enumerate(row))} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
