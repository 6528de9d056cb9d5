"""Scheduling policies in the engine: the forecast, the promise of MC-SF, predictions, strides."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from sim.engine.forecast import NEVER, Forecast, Held
from sim.run import simulate
from sim.scenario import Scenario

rows = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 640), st.integers(1, 120), st.integers(0, 3)), min_size=2, max_size=25
)


def trace_of(drawn: list[tuple[int, int, int, int]]) -> list[tuple[float, int, int, list[int]]]:
    """Requests of a few families whose prompts begin alike; arrivals in tenths of a second."""
    out = []
    for at, tokens, output, family in sorted(drawn):
        full, rest = divmod(tokens, 512)
        ids = [1000 * family + i for i in range(full)] + ([10_000 + 1000 * family + tokens] if rest else [])
        out.append((at / 10, tokens, output, ids))
    return out


# ---- the forecast


def brute(held: list[Held], block: int) -> int:
    """The most blocks that sequences without shared blocks hold in any step."""
    steps = max((h.last for h in held if h.last < NEVER), default=0)
    steps = max(steps, *(h.grows for h in held))
    return max(
        sum(-(-(h.tokens + min(s, h.grows) - 1) // block) for h in held if s <= h.last) for s in range(1, steps + 1)
    )


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 80), st.integers(0, 20)), min_size=1, max_size=12),
    st.sampled_from([1, 16]),
)
def test_the_peak_is_that_of_every_step(drawn, block):
    """Looking at the ends alone finds the most that all of them hold in any step."""
    held = [Held(tokens, grows, grows + stays if stays < 18 else NEVER, 0) for tokens, grows, stays in drawn]
    forecast = Forecast(block, 1, 0)
    for one in held[:-1]:
        forecast.add(one)
    assert forecast.peak(held[-1], 0) == brute(held, block)


def test_shared_blocks_count_once_and_stay_while_somebody_uses_them():
    forecast = Forecast(1, 1, pinned=100)
    forecast.add(Held(101, 10, 10, covered=100))
    forecast.add(Held(101, 20, 20, covered=100))
    # the same 100 for all three; step 5: 5 + 5 + 5 of their own, step 10: 10 + 10, step 20: 20
    assert forecast.peak(Held(101, 5, 5, covered=100), 0) == 120
    loose = Forecast(1, 1, pinned=150)  # 50 that only a copy holds
    loose.add(Held(101, 10, 10, covered=100))
    assert loose.peak(Held(1, 1, 1, covered=0), 0) == 150 + 10


# ---- runs


def preemptions(result: Any) -> int:
    return int(result.summary["preemptions"])


@settings(max_examples=10, deadline=None)
@given(
    drawn=rows,
    blocks=st.integers(48, 90),
    budget=st.sampled_from([64, 256, 2048]),
    dram=st.sampled_from([None, "1 GiB"]),
    name=st.sampled_from(["mc_sf", "memory_aware_fcfs"]),
)
def test_nobody_gives_way_if_predictions_are_exact(scenario, same_requests, drawn, blocks, budget, dram, name):
    """With chunked prompts, shared prefixes and loads; and strides are single steps to the bit."""
    built = scenario(
        trace_of(drawn),
        blocks=blocks,
        dram=dram,
        engine={"max_num_batched_tokens": budget, "max_num_seqs": 16},
    ).set("policies.scheduling", name)
    result = simulate(built, check=True)
    assert preemptions(result) == 0
    assert result.summary["requests"]["finished"] == len(drawn)
    same_requests(result, simulate(built, check=True, single_step=True))


@settings(max_examples=4, deadline=None)
@given(drawn=rows, blocks=st.integers(48, 90), dram=st.sampled_from([None, "1 GiB"]), error=st.sampled_from([0.0, 1.5]))
def test_strides_are_single_steps_for_the_others(scenario, same_requests, drawn, blocks, dram, error):
    engine = {"max_num_batched_tokens": 256, "max_num_seqs": 16}
    for policy in ("fcfs", {"name": "shortest_first", "error": error, "aging": 3}, {"name": "mc_sf", "error": error}):
        built = scenario(trace_of(drawn), blocks=blocks, dram=dram, engine=engine).set("policies.scheduling", policy)
        same_requests(simulate(built, check=True), simulate(built, check=True, single_step=True))


@settings(max_examples=4, deadline=None)
@given(drawn=rows, blocks=st.integers(48, 90), dram=st.sampled_from([None, "1 GiB"]))
def test_fcfs_is_the_engine_without_a_policy(scenario, same_requests, drawn, blocks, dram):
    plain = scenario(trace_of(drawn), blocks=blocks, dram=dram)
    same_requests(simulate(plain, check=True), simulate(plain.set("policies.scheduling", "fcfs"), check=True))


def pressed(**changes: Any) -> Scenario:
    """The sample, on a GPU with little memory."""
    return Scenario.from_dict(
        {
            "schema": "kvsim-scenario/1",
            "trace": {"name": "quickstart", "limit": 200},
            "model": "llama-3.1-8b",
            "hardware": {"profile": "h100-sxm"},
            "engine": {"num_gpu_blocks": 3000},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Summaries of `pressed` by policy."""
    policies: dict[str, Any] = {name: name for name in ("fcfs", "memory_aware_fcfs", "shortest_first", "mc_sf")}
    policies |= {f"error {e}": {"name": "mc_sf", "error": e} for e in (0.5, 2.0)}
    policies |= {f"aging {a}": {"name": "mc_sf", "aging": a} for a in (50, 1e6)}
    return {
        name: simulate(pressed(policies={"scheduling": policy}), check=True).summary
        for name, policy in policies.items()
    }


def test_the_shortest_first_is_served_sooner_on_average_and_the_longest_wait_longer(found):
    for plain, shortest in (("fcfs", "shortest_first"), ("memory_aware_fcfs", "mc_sf")):
        assert found[shortest]["e2e_ms"]["mean"] < 0.9 * found[plain]["e2e_ms"]["mean"]
        assert found[shortest]["queue_ms"]["max"] > found[plain]["queue_ms"]["max"]
    assert found["fcfs"]["preemptions"] > 0 < found["shortest_first"]["preemptions"]
    assert found["memory_aware_fcfs"]["preemptions"] == 0 == found["mc_sf"]["preemptions"]


def test_errors_of_predictions_cost_what_they_should(found):
    """Who is predicted too short gives way to what comes, and the order is less good."""
    assert found["error 0.5"]["preemptions"] > 0
    means = [found[name]["e2e_ms"]["mean"] for name in ("mc_sf", "error 0.5", "error 2.0")]
    assert means == sorted(means)
    assert means[0] < means[2]


def test_aging_bounds_the_longest_wait(found):
    waits = [found[name]["queue_ms"]["max"] for name in ("mc_sf", "aging 50", "aging 1000000.0")]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > waits[2]
    assert found["aging 1000000.0"]["e2e_ms"] == found["memory_aware_fcfs"]["e2e_ms"]  # by arrival


def test_predictions_are_of_the_request_and_the_seed_alone():
    """The same in every replica and however many requests there are; another seed draws others."""
    policy = {"scheduling": {"name": "shortest_first", "error": 1.0}}

    def runs(**changes: Any) -> Any:
        return simulate(pressed(policies=policy, **changes)).summary["e2e_ms"]

    assert runs() == runs()
    assert runs() != runs(seed=1)


def test_it_works_with_plans_within_a_sequence(found):
    """Memory is then what plans keep; whoever is admitted counts with the most that it will ever hold."""
    engine = {"num_gpu_blocks": 900, "prefix_caching": False}
    retention = {"name": "streaming_llm", "sinks": 4, "window": 1020}
    for name in ("mc_sf", "memory_aware_fcfs"):
        built = pressed(engine=engine, policies={"scheduling": name, "retention": retention})
        summary = simulate(built, check=True).summary
        assert summary["preemptions"] == 0
        assert summary["requests"]["finished"] > 0


def test_a_prefetch_that_must_be_waited_for_lets_others_go_first():
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "8 GiB"}, {"name": "ssd", "capacity": "100 GiB"}]
    links = {f"ssd_{way}": {"bandwidth": "2 GB/s", "latency": "100 us"} for way in ("read", "write")}
    prefetch = {"name": "on_arrival", "into": "dram", "stop": "wait_complete"}
    sections: dict[str, Any] = {"tiers": tiers, "links": links}
    for name in ("fcfs", "mc_sf"):
        built = pressed(**sections, policies={"scheduling": name, "prefetch": prefetch})
        one, other = simulate(built, check=True), simulate(built, check=True, single_step=True)
        assert one.summary["e2e_ms"] == other.summary["e2e_ms"]
    plain = simulate(pressed(**sections, policies={"prefetch": prefetch}), check=True)
    with_policy = simulate(pressed(**sections, policies={"prefetch": prefetch, "scheduling": "fcfs"}), check=True)
    assert plain.summary["e2e_ms"] == with_policy.summary["e2e_ms"]


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"kind": "sglang"}, "engine.kind.*found 'sglang'.*vllm"),
        ({"scheduling": "priority"}, "engine.scheduling.*found 'priority'.*fcfs"),
    ],
)
def test_two_that_say_whom_to_admit_are_refused(engine, said):
    with pytest.raises(InputError, match=said):
        pressed(engine=engine, policies={"scheduling": "mc_sf"})


MINE = """
from kvsim import Scheduler

class Mine(Scheduler):
    def __init__(self, *, answer: str = "last") -> None:
        self._answer = answer

    def rank(self, request):
        return {"text": "first", "last": 0}.get(self._answer, 0)

    def choose(self, queue):
        if self._answer == "fewest":  # the prompt of which least is left to compute
            left = [r.known_tokens - r.cached_tokens() for r in queue.waiting]
            assert queue.free_tokens <= queue.capacity_tokens and queue.now >= queue.waiting[0].arrival_s
            assert all(r.tokens >= 1 and r.predicted_tokens >= 1 for r in queue.running)
            return left.index(min(left))
        return {"none": None, "beyond": len(queue.waiting), "last": len(queue.waiting) - 1}[self._answer]
"""


@pytest.mark.parametrize("answer", ["last", "fewest"])
def test_a_policy_of_ones_own_may_look_at_everybody(tmp_path, same_requests, answer):
    (tmp_path / "mine.py").write_text(MINE)
    document = pressed().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["policies"] = {"scheduling": {"name": "mine.py:Mine", "answer": answer}}
    built = Scenario.from_dict(document, base_dir=tmp_path)
    same_requests(simulate(built, check=True), simulate(built, check=True, single_step=True))


@pytest.mark.parametrize(
    ("answer", "said"),
    [("none", "admitted nobody while nothing runs"), ("beyond", "expected a place"), ("text", "expected a number")],
)
def test_a_policy_that_breaks_its_contract_ends_the_run_in_one_line(tmp_path, answer, said):
    (tmp_path / "mine.py").write_text(MINE)
    document = pressed().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["policies"] = {"scheduling": {"name": "mine.py:Mine", "answer": answer}}
    with pytest.raises(InputError, match=said):
        simulate(Scenario.from_dict(document, base_dir=tmp_path))


def test_of_every_pair_who_is_shorter_goes_first(run):
    """Five requests at once, one at a time: they end in ascending order of their outputs."""
    outputs = [50, 10, 40, 20, 30]
    result = run(
        [(0.0, 100, n, [i]) for i, n in enumerate(outputs)],
        engine={"max_num_seqs": 1},
        policies={"scheduling": "mc_sf"},
    )
    ends = result.frames["requests"].finish_s.tolist()
    first = outputs[0]
    for (a, end_a), (b, end_b) in product(zip(outputs, ends, strict=True), repeat=2):
        if a < b and first not in (a, b):
            assert end_a < end_b


def test_it_works_with_speculation():
    """How many tokens a step gives nobody knows: who is admitted counts with all that it may ever take."""
    engine = {"num_gpu_blocks": 3000, "speculation": {"method": "ngram", "tokens": 4, "acceptance": 0.6}}
    for name in ("mc_sf", "shortest_first"):
        built = pressed(engine=engine, policies={"scheduling": name})
        one, other = simulate(built, check=True), simulate(built, check=True, single_step=True)
        assert one.summary["e2e_ms"] == other.summary["e2e_ms"]
        assert (one.summary["preemptions"] == 0) is (name == "mc_sf")
