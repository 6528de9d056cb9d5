"""The model of unit rounds: MC-SF by hand, and the least latency against all schedules."""

from itertools import product

import pytest

from sim.reproduce.unit_rounds import Job, in_order, instance, mc_sf, optimum


def feasible(jobs, memory, starts):
    """True if the requests may start in these rounds."""
    ends = [start + job.output for start, job in zip(starts, jobs, strict=True)]
    for now in range(max(ends)):
        rows = zip(starts, jobs, ends, strict=True)
        held = sum(job.prompt + now - start + 1 for start, job, end in rows if start <= now < end)
        if held > memory:
            return False
    return all(start >= job.arrival for start, job in zip(starts, jobs, strict=True))


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("number", range(6))
def test_the_least_latency_is_that_of_the_best_schedule(number, online):
    _, drawn = instance(number, online=online, requests=3)
    jobs = tuple(Job(job.prompt, min(job.output, 5), min(job.arrival, 3)) for job in drawn)
    memory = max(job.prompt + job.output for job in jobs) + 2
    horizon = range(12)
    best = min(
        sum(start + job.output - job.arrival for start, job in zip(starts, jobs, strict=True))
        for starts in product(horizon, repeat=3)
        if feasible(jobs, memory, starts)
    )
    assert optimum(jobs, memory) == best
    assert best <= mc_sf(jobs, memory) <= in_order(jobs, memory) * 2


def test_by_hand():
    """Two that do not fit together: the shorter ends after 2 rounds, the other, of 3, after 5. With room, after 3."""
    jobs = (Job(1, 3), Job(2, 2))
    assert mc_sf(jobs, 5) == 2 + 5
    assert mc_sf(jobs, 7) == 2 + 3
    assert in_order(jobs, 5) == 3 + 5
