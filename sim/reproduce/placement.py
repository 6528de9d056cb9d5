"""Dynamic placement in heterogeneous memory (arXiv 2508.13231): HBM and host memory of a GH200, read at once.

SOURCE: notes on the paper, which formulates the problem and bounds it by simulated annealing that knows the future: up
to 5.87 times the simple placements. It has no online policy. Contexts, shares of attended tokens and capacities of its
figures were not read, so the factor is shown for a sweep of ours and not judged.
"""

from __future__ import annotations

from functools import cache

from hw_profiles.loader import load_profile
from sim.placement.study import BOUND, FLOOR, Study, attended_pages, machine_of, run_place
from sim.reproduce.rows import Figure, Table

PAGE_BYTES = 32 * 4096
"""32 tokens of a layer of Llama-3.1-8B: 4 KiB each."""
FIXED = ("host_only", "static", "proportional")
ONLINE = ("least_recently_attended", "attention_recency")
PAGES, STEPS = 550, 100
CASES = ((40, 64), (40, 128), (128, 128), (128, 256))
"""(attended pages, pages that fit HBM) of 550."""


@cache
def study(attended: int, capacity: int) -> Study:
    """All placements of one case."""
    machine = machine_of(load_profile("gh200"), PAGE_BYTES, PAGES, capacity)
    layers = attended_pages(PAGES, attended, setting="recommended", steps=STEPS, layers=1)
    return run_place(machine, layers, (*FIXED, *ONLINE), moves=12_000)


def _gains(attended: int, capacity: int) -> dict[str, float]:
    return {row.policy: row.gain for row in study(attended, capacity).rows}


def over_static() -> float:
    """The most by which the annealed placement is faster than HBM until it is full and the rest in host memory."""
    return max(found[BOUND] / found["static"] for found in (_gains(*case) for case in CASES))


def never_beaten() -> float:
    """Cases in which no policy is better than the annealed placement, and that no better than the floor."""
    found = [_gains(*case) for case in CASES]
    return float(sum(max(g[p] for p in (*FIXED, *ONLINE)) <= g[BOUND] <= g[FLOOR] * (1 + 1e-9) for g in found))


def moving_pays() -> float:
    """Cases in which an online policy is ahead of every placement that never changes."""
    found = [_gains(*case) for case in CASES]
    return float(sum(max(g[p] for p in ONLINE) > max(g[p] for p in FIXED) for g in found))


def limit() -> float:
    """Gain over host memory alone if everything is attended and fits, over (B_hbm + B_host) / B_host."""
    machine = machine_of(load_profile("gh200"), PAGE_BYTES, PAGES, PAGES)
    layers = attended_pages(PAGES, PAGES, setting="recommended", steps=3, layers=1)
    found = run_place(machine, layers, ("proportional",), moves=0)
    return found.rows[0].gain / found.limit


WHERE = f"GH200, {PAGES} pages of 32 tokens (Llama-3.1-8B), {STEPS} steps, synthetic importance"
TABLES = (
    Table(
        "placement",
        "bound",
        "S",
        WHERE,
        (
            Figure(
                "annealed bound over the static placement, up to",
                5.87,
                "x",
                (),
                over_static,
                "not comparable",
                "the paper's contexts, sparsity and capacities were not read; ours: "
                + ", ".join(f"{a} of {c} pages in HBM attended" for a, c in CASES),
            ),
            Figure(
                "cases in which the bound is not beaten, nor beats the floor", len(CASES), "cases", (), never_beaten
            ),
            Figure(
                "cases in which moving pages beats every placement that stays", len(CASES), "cases", (), moving_pays
            ),
        ),
        "ordering",
        quick=True,
    ),
    Table(
        "placement",
        "limit",
        "D",
        WHERE,
        (
            Figure(
                "gain of dealing all pages by rate, over (B_hbm + B_host) / B_host",
                1.0,
                "x",
                (),
                limit,
                "arithmetic",
            ),
        ),
        quick=True,
    ),
)
