"""Waiting requests count in the order in which the scheduler takes them: `queue_aware` under a scheduling policy."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sim.engine.queue import ByPriority, Ranked, Waiting
from sim.hierarchy.queued import QueueIndex
from sim.run import simulate
from sim.scenario import Scenario


def asked(index: int, *keys: int, priority: int = 0) -> SimpleNamespace:
    return SimpleNamespace(index=index, keys=keys, priority=priority, queued=0)


def watched(queue: Waiting, *seqs: SimpleNamespace) -> QueueIndex:
    found = QueueIndex()
    found.watch(lambda: queue, lambda index: None)
    found.place(0)  # somebody asks, so that it is kept
    for seq in seqs:
        queue.arrive(seq)
        found.came(seq)
    return found


def test_a_place_is_that_of_the_queue() -> None:
    """Request 2 comes last and is ranked first; it shares block 7 with request 0, and 1 waits alone with block 8."""
    seqs = [asked(0, 5, 7), asked(1, 8), asked(2, 7)]
    ranks = {0: 30.0, 1: 20.0, 2: 10.0}
    by_rank = watched(Ranked(lambda seq: (ranks[seq.index], seq.queued)), *seqs)
    assert [by_rank.place(key) for key in (7, 8, 5)] == [0, 1, 2]
    by_arrival = watched(Waiting(), *seqs)
    assert [by_arrival.place(key) for key in (5, 7, 8)] == [0, 0, 1]
    urgent = [asked(0, 5), asked(1, 8, priority=-1)]
    by_priority = watched(ByPriority(), *urgent)
    assert by_priority.place(8) == 0 < by_priority.place(5)
    assert by_rank.place(9) == by_priority.place(9) == float("inf")


def test_one_that_gave_way_and_has_another_rank_is_found_in_its_new_place() -> None:
    ranks = {0: 10.0, 1: 20.0, 2: 30.0}
    queue = Ranked(lambda seq: (ranks[seq.index], seq.queued))
    seqs = [asked(0, 7), asked(1, 8), asked(2, 7)]
    found = watched(queue, *seqs)
    queue.remove(seqs[0])
    found.went(seqs[0])
    assert [found.place(key) for key in (7, 8)] == [1, 0]
    ranks[0] = 40.0
    queue.put_back(seqs[0])
    found.came(seqs[0])
    assert [found.place(key) for key in (7, 8)] == [1, 0]
    queue.remove(seqs[2])
    found.went(seqs[2])
    assert [found.place(key) for key in (7, 8)] == [1, 0]
    ranks[0] = 5.0
    queue.remove(seqs[0])
    found.went(seqs[0])
    queue.put_back(seqs[0])
    found.came(seqs[0])
    assert [found.place(key) for key in (7, 8)] == [0, 1]


def crowd() -> Scenario:
    """Thirty conversations of which two run at a time, the shortest answer first, over a small host memory."""
    rate = {"bandwidth": "3 GB/s", "latency": "100 us"}
    return Scenario.from_dict(
        {
            "schema": "kvsim-scenario/1",
            "trace": {
                "clients": {
                    "clients": 30,
                    "conversations": 1,
                    "rounds": 4,
                    "first_input_tokens": 3000,
                    "input_tokens": 700,
                    "output_tokens": {"mean": 60, "sigma": 1.0},
                    "think_time": "10 ms",
                    "block_tokens": 64,
                }
            },
            "model": "llama-3.1-8b",
            "hardware": {"profile": "h100-sxm"},
            "engine": {"max_num_seqs": 2, "max_num_batched_tokens": 2048},
            "tiers": [
                {"name": "hbm", "capacity": "2 GiB"},
                {"name": "dram", "capacity": "2 GiB", "eviction": "queue_aware"},
                {"name": "ssd", "capacity": "1 TiB"},
            ],
            "links": {"ssd_read": rate, "ssd_write": rate},
            "policies": {"scheduling": "shortest_first"},
        }
    )


def test_host_memory_keeps_what_the_scheduler_takes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the order of arrival it would keep the blocks of those who came first, whom a short answer overtakes."""
    by_rank = crowd().run().summary["prefix"]["hit_tokens"]["dram"]
    monkeypatch.setattr(Ranked, "order", Waiting.order)
    monkeypatch.setattr(Ranked, "behind_head", Waiting.behind_head)
    by_arrival = crowd().run().summary["prefix"]["hit_tokens"]["dram"]
    assert by_rank > 1.3 * by_arrival > 0


def test_steps_one_by_one_give_the_same() -> None:
    strides, singles = simulate(crowd(), check=True), simulate(crowd(), check=True, single_step=True)
    assert strides.tables["requests"].equals(singles.tables["requests"])
