"""Searches where more is not always better, and what they say of it; and of requests that are rejected."""

import pytest

from kvsim import Scenario
from sim.whatif.plan import PlanJob, run_plan, with_slo
from sim.whatif.plan_document import frontier
from sim.whatif.points import Point
from sim.whatif.prices import Cost, Prices
from sim.whatif.runs import Job

PRICES = Prices("USD", {"h100-sxm": 2.0}, 0, {}, 0)
COST = Cost("USD", 2.0, 0, 0, 0, 2.0, 1.0, None, None, (), {})
QUICK = {
    "schema": "kvsim-scenario/1",
    "trace": {"name": "quickstart", "limit": 30},
    "hardware": {"profile": "h100-sxm"},
}
SCENARIO = Scenario.from_dict(QUICK | {"model": "llama-3.1-8b", "tiers": [{"name": "hbm"}], "slo": {"ttft_p99": "1s"}})


@pytest.fixture
def search(monkeypatch):
    """Search replicas 1.. from `start`, whose runs come to these P99s (s; limit 1 s), None for one that ended early."""

    def run(start, *p99s):
        def point(asked):
            value = p99s[asked.index]
            lost = value is None
            target = {"target_ms": 1e3, "value_ms": None if lost else 1e3 * value, "met": not lost and value <= 1}
            stopped = {"lost": "ttft_p99", "stopped": "lost"} if lost else {}
            return Point(asked.index, asked.shown, target["met"], {"ttft_p99": target}, None, COST, **stopped)

        monkeypatch.setattr("sim.whatif.plan.run_point", point)
        scenario = SCENARIO.set("hardware.replicas", start)
        return run_plan(PlanJob(Job.of("it", scenario), "replicas", tuple(range(1, len(p99s) + 1)), PRICES))

    return run


@pytest.mark.parametrize(
    ("start", "p99s", "answer"),
    [
        (3, (None, 0.99, 1.01, 0.98, 0.97), "2"),  # below a start that misses closely
        (5, (3.0, 0.99, 1.1, 1.1, 0.9, 0.9), "2"),  # below an answer
        (4, (None, 0.99, None, 0.9, 0.9), "2"),  # below a run that ended early
        (4, (0.9, 2.0, 2.0, 0.9, 0.9), "4"),  # but not below clear misses
        (6, (2.0, 0.99, 1.01, 1.05, 1.1, 1.1, 1.1, 1.15), "2"),  # where the largest misses closely
        (4, (2.0, 0.99, 1.01, 2.0, 2.0), None),  # but not where all that ran missed clearly
    ],
)
def test_a_close_miss_does_not_end_the_search_below_it(search, start, p99s, answer):
    found = search(start, *p99s)
    assert (found.answer and found.answer.shown) == answer


def test_what_misses_again_and_what_was_not_tried_are_named(search):
    found = search(3, 2.0, 0.99, 1.01, 0.98, 1.02)
    assert any(note.startswith("3 misses the SLO again") for note in found.notes)
    assert not any("not tried" in note for note in found.notes)
    found = search(9, *[2.0] * 8, 0.9, 0.9)
    assert found.answer.shown == "9"
    assert "not tried, but taken to miss the SLO as values after them do: 1 to 7" in found.notes


def test_nothing_meets_it_and_the_nearest_run_is_named(search):
    found = search(2, 3.0, 1.5, 1.7, 1.9)
    assert found.notes == (
        "no value tried meets the SLO; at 2, the nearest of the runs that ended, ttft_p99 binds: 1.5 s against 1 s, "
        "1.5 times the limit",
    )


@pytest.mark.parametrize("slo", ["ttft_p99=2s,tpot_p95=50ms", "ttft=2s,attainment=90%"])
def test_rejected_requests_bind(slo):
    scenario = with_slo(Scenario.from_dict(QUICK | {"model": "opt-30b", "tiers": [{"name": "hbm"}]}), slo)
    share = 0.9 if "attainment" in slo else None
    found = run_plan(PlanJob(Job.of("it", scenario), "replicas", (1, 2), PRICES, share))
    assert found.answer is None
    assert found.points[0].lost == "rejected"  # no latency is to blame
    for text in (found.notes[-1], found.points[1].rejected):
        assert "28 of 30 requests are rejected: prompt + output longer than the model's context" in text


def test_a_run_that_misses_for_what_it_rejects_is_not_on_the_frontier():
    scenario = Scenario.from_dict(
        QUICK | {"model": "opt-30b", "tiers": [{"name": "hbm"}], "slo": {"ttft_p95": "1000s"}}
    )
    found = run_plan(PlanJob(Job.of("it", scenario), "replicas", (1, 2), PRICES))
    last = found.points[-1]
    assert last.whole
    assert not last.met
    assert last.worst[1] < 1
    assert frontier([found]) == []


@pytest.mark.parametrize(("rate", "told"), [(0.01, True), (100.0, False)])
def test_where_prompts_take_longer_than_the_limit_alone_the_answer_says_so(rate, told):
    changes = [("trace.rate_scale", rate), ("slo", {"ttft_p99": "1 ms"}), ("trace.limit", 20)]
    found = run_plan(PlanJob(Job.of("it", SCENARIO.set_all(changes)), "replicas", (1, 2), PRICES))
    assert ("computes their own prompts" in found.notes[0]) is told
