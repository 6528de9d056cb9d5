"""The model in which arXiv 2502.07115 compares schedules with the best in hindsight: rounds of unit time, memory in
tokens.

A request of prompt s and output o that starts in round p holds s + t tokens in round p + t - 1, t = 1 .. o, and is done
at the end of round p + o - 1; nobody is interrupted, and what all hold may exceed M in no round. The latency of a
request is the time from its arrival to its end. SOURCE: section 2, from notes on the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from traces.random import stream


class Job(NamedTuple):
    """A request: tokens of prompt and output, round of its arrival."""

    prompt: int
    output: int
    arrival: int = 0


Running = tuple[tuple[int, int], ...]
"""(request, rounds that it has run), of all that run."""


def instance(number: int, *, online: bool, requests: int = 5) -> tuple[int, tuple[Job, ...]]:
    """Memory and requests of a random instance: M from 30 to 50, prompts of 1 to 5, outputs of 1 to M - prompt tokens,
    all at once or a Poisson process of 0.5 to 1.5 requests a round. SOURCE: section 5.1, recalled; there 40 to 60."""
    draws = stream(number, "mc_sf.online" if online else "mc_sf.at_once")
    memory = int(draws.integers(30, 51))
    rate = 0.5 + draws.random()
    at, jobs = 0.0, []
    for _ in range(requests):
        at += float(-np.log1p(-draws.random()) / rate) if online else 0.0
        prompt = int(draws.integers(1, 6))
        jobs.append(Job(prompt, int(draws.integers(1, memory - prompt + 1)), int(at)))
    return memory, tuple(jobs)


def fits(jobs: tuple[Job, ...], memory: int, running: Running) -> bool:
    """True if those that run, from the next round on, stay within memory until all have ended."""
    left = [(jobs[i].prompt + age, jobs[i].output - age) for i, age in running]
    return all(sum(held + end for held, rest in left if rest >= end) <= memory for _, end in left)


def mc_sf(jobs: tuple[Job, ...], memory: int) -> int:
    """Total latency of MC-SF."""
    return _simulated(jobs, memory, lambda i: (jobs[i].output, i))


def in_order(jobs: tuple[Job, ...], memory: int) -> int:
    """Total latency by arrival with the same check of memory (MC-Benchmark)."""
    return _simulated(jobs, memory, lambda i: (jobs[i].arrival, i))


def _simulated(jobs: tuple[Job, ...], memory: int, key: Callable[[int], tuple[int, int]]) -> int:
    running: Running = ()
    left, time, total = list(range(len(jobs))), 0, 0
    while left or running:
        for i in sorted((i for i in left if jobs[i].arrival <= time), key=key):
            if not fits(jobs, memory, (*running, (i, 0))):
                break
            running = (*running, (i, 0))
            left.remove(i)
        time += 1
        aged = [(i, age + 1) for i, age in running]
        total += sum(time - jobs[i].arrival for i, age in aged if age == jobs[i].output)
        running = tuple((i, age) for i, age in aged if age < jobs[i].output)
    return total


def optimum(jobs: tuple[Job, ...], memory: int) -> int:
    """The least total latency of any schedule, exactly: dynamic programming over who waits and who has run how long.

    The sum of latencies is, over all rounds, that of requests which have arrived and not ended. Time matters while some
    have not arrived. Meant for five or six requests.
    """
    last = max(job.arrival for job in jobs)

    @cache
    def least(time: int, waiting: frozenset[int], running: Running) -> int:
        if not waiting and not running:
            return 0
        best = 1 << 60
        here = sorted(i for i in waiting if jobs[i].arrival <= time)
        present = len(here) + len(running)
        for chosen in _sets(jobs, memory, running, here, 0):
            now = tuple((i, age + 1) for i, age in (*running, *((i, 0) for i in chosen)))
            after = tuple(sorted((i, age) for i, age in now if age < jobs[i].output))
            if not now and len(here) == len(waiting):
                continue  # nothing would ever change
            rest = waiting - set(chosen)
            best = min(best, present + least(min(time + 1, last), rest, after))
        return best

    return least(0, frozenset(range(len(jobs))), ())


def _sets(jobs: tuple[Job, ...], memory: int, running: Running, here: list[int], start: int) -> list[tuple[int, ...]]:
    """Every set of waiting requests that can start together."""
    found: list[tuple[int, ...]] = [()]
    for place in range(start, len(here)):
        more = (*running, (here[place], 0))
        if fits(jobs, memory, more):
            found += [(here[place], *others) for others in _sets(jobs, memory, more, here, place + 1)]
    return found


def ratio(*, online: bool, instances: int = 12) -> float:
    """Mean over instances of the total latency of MC-SF over the least one."""
    ratios = []
    for number in range(instances):
        memory, jobs = instance(number, online=online)
        ratios.append(mc_sf(jobs, memory) / optimum(jobs, memory))
    return sum(ratios) / len(ratios)
