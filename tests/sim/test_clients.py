"""Closed loops in the engine: when requests are sent, how many are under way, and that nothing is lost."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster import Cluster
from sim.inputs import load_inputs
from sim.run import simulate
from sim.sampler import MOST_POINTS, POINTS
from traces.clients import ClientsSpec, converse

QUICK = {"clients": 4, "rounds": 3, "input_tokens": 700, "output_tokens": 20, "think_time": "2 s"}


@pytest.fixture
def clients(run):
    """The result of a run with `clients:` changed from QUICK."""

    def go(changes=None, **sections):
        return run(trace={"clients": {**QUICK, **(changes or {})}}, **sections)

    return go


def table(result):
    return result.tables["requests"].to_pandas().sort_values("request_id").reset_index(drop=True)


def under_way(rows):
    """The most requests between sending and end at a time; one that ends frees its place for one sent just then."""
    ends = rows["finish_s"].dropna()
    sent = rows.loc[ends.index, "arrival_s"]
    order = np.lexsort((np.repeat([1, -1], len(ends)), np.concatenate((sent, ends))))
    return int(np.cumsum(np.repeat([1, -1], len(ends))[order]).max(initial=0))


def test_one_client_sends_exactly_its_think_time_after_the_end(clients, hand):
    result = clients({"clients": 1, "rounds": 3, "output_tokens": 1, "input_tokens": 512}, blocks=1000)
    rows = table(result)
    assert rows["arrival_s"][0] == 0.0
    assert rows["arrival_s"][1:].tolist() == [end + 2.0 for end in rows["finish_s"][:-1]]
    # its prompt meets an idle engine, with the full blocks of the prompt before in HBM
    prompts = [(512, 0), (1025 - 512, 512), (1538 - 1024, 1024)]
    steps = [hand.mixed_step([chunk], sampled=1) for chunk in prompts]
    assert rows["ttft_s"].tolist() == pytest.approx(steps, rel=1e-9)
    assert rows["e2e_s"].tolist() == pytest.approx(steps, rel=1e-9)
    assert result.summary["duration_s"] == pytest.approx(sum(steps) + 2 * 2.0, rel=1e-9)
    assert rows["hit_hbm_tokens"].tolist() == [0, 512, 1024]


def test_every_follower_is_sent_its_wait_after_the_end(clients):
    changes = {
        "conversations": 2,
        "think_time": {"mean": "1 s"},
        "ramp_up": "3 s",
        "input_tokens": {"mean": 600, "sigma": 1},
    }
    trace = converse(ClientsSpec.model_validate({**QUICK, **changes}), 0)
    rows = table(clients(changes))
    assert len(rows) == len(trace) == 24
    for i in range(24):
        before = int(trace.after[i])
        due = trace.arrival_s[i] if before < 0 else rows["finish_s"][before] + trace.delay_s[i]
        assert rows["arrival_s"][i] == due
    assert (rows["arrival_s"] >= trace.arrival_s - 1e-9).all()  # the trace's are the earliest possible
    assert rows["input_tokens"].tolist() == trace.input_tokens.tolist()


@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 7),
    st.sampled_from(["0 s", "10 ms", {"mean": "200 ms"}]),
    st.integers(1, 2),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_never_more_under_way_than_allowed(scenario, count, rounds, most, think, replicas, short):
    spec = {"clients": count, "rounds": rounds, "max_parallel": most, "think_time": think}
    spec |= {"input_tokens": {"mean": 400, "sigma": 1, "max": 3000}, "output_tokens": 3, "first_input_tokens": 600}
    built = scenario(
        trace={"clients": spec},
        blocks=90 if short else 2000,
        dram="1 GiB",
        hardware={"profile": "h100-sxm", "replicas": replicas},
    )
    result = simulate(built, check=True)
    rows = table(result)
    assert rows["request_id"].tolist() == list(range(count * rounds))
    assert under_way(rows) <= min(most, count)
    trace = converse(ClientsSpec.model_validate(spec), 0)
    ended = rows["finish_s"].fillna(rows["arrival_s"])  # a rejected request ends when it is sent
    for i in np.flatnonzero(trace.after >= 0).tolist():
        assert rows["arrival_s"][i] >= ended[int(trace.after[i])] + trace.delay_s[i]


def test_the_limit_binds_and_waiting_at_the_client_is_no_latency(clients):
    changes = {"clients": 8, "rounds": 1, "think_time": "0 s"}
    free, one = table(clients(changes)), table(clients({**changes, "max_parallel": 1}))
    assert (under_way(free), under_way(one)) == (8, 1)
    assert one["arrival_s"][1:].tolist() == one["finish_s"][:-1].tolist()  # first come, first served
    # each meets an idle engine as the only one; together they wait for each other
    assert one["ttft_s"].max() == pytest.approx(one["ttft_s"].min(), rel=1e-9)
    assert free["ttft_s"].max() > 2 * one["ttft_s"].max()


def test_senders_wait_in_all(scenario):
    trace = {"clients": {**QUICK, "clients": 3, "rounds": 1, "max_parallel": 1}}
    built = scenario(trace=trace)
    cluster = Cluster(built, load_inputs(built))
    cluster.clock.drain(None, lambda: None)
    cluster.arrivals.check()
    first, second, third = cluster.served.column("finish_s")
    assert cluster.arrivals.sender_wait_s == pytest.approx(first + second)
    assert cluster.arrivals.most_under_way == 1
    assert third > second > first


def test_a_limit_holds_for_recorded_conversations_too(run):
    generated = {"requests": 60, "rate": 20.0, "turns": 3.0, "think_time": "1 s", "max_input": 4000}
    result = run(trace={"generate": generated, "closed_loop": {"max_parallel": 2}})
    rows = table(result)
    assert under_way(rows) == 2
    assert len(rows) == 60
    free = run(trace={"generate": generated, "closed_loop": True})
    assert under_way(table(free)) > 2
    assert free.summary["duration_s"] < result.summary["duration_s"]


def test_the_same_run_twice(clients):
    changes = {"clients": 12, "think_time": {"mean": "1 s"}, "max_parallel": 5}
    one, two = clients(changes, dram="1 GiB", blocks=300), clients(changes, dram="1 GiB", blocks=300)
    for name, found in one.tables.items():
        assert found.equals(two.tables[name])


def test_strides_and_single_steps_agree(scenario, same_requests):
    spec = {**QUICK, "clients": 9, "think_time": {"mean": "300 ms"}, "max_parallel": 4}
    built = scenario(trace={"clients": spec}, blocks=500, dram="1 GiB")
    same_requests(*(simulate(built, single_step=single) for single in (False, True)))


def test_variants_see_the_same_lengths_and_a_faster_system_ends_sooner(clients):
    changes = {"clients": 10, "input_tokens": {"mean": 900, "sigma": 1}, "output_tokens": {"mean": 60, "sigma": 1}}
    h100 = clients(changes)
    a100 = clients(changes, hardware={"profile": "a100-80"})
    fast, slow = table(h100), table(a100)
    for column in ("request_id", "input_tokens", "output_tokens"):
        assert fast[column].tolist() == slow[column].tolist()
    assert h100.summary["duration_s"] < a100.summary["duration_s"]
    assert (fast["arrival_s"] <= slow["arrival_s"]).all()  # nobody is sent before its turn before was answered
    longer = clients({**changes, "think_time": "4 s"})
    assert table(longer)["input_tokens"].tolist() == fast["input_tokens"].tolist()
    assert longer.summary["duration_s"] == pytest.approx(h100.summary["duration_s"] + 2 * 2.0, rel=0.05)


def test_under_open_load_think_times_change_nothing(scenario):
    built = scenario(trace={"generate": {"requests": 40, "rate": 8.0, "turns": 3.0, "think_time": "1 s"}})
    inputs = load_inputs(built)
    assert not inputs.trace.closed_loop
    longer = replace(inputs, trace=replace(inputs.trace, delay_s=10 * inputs.trace.delay_s))
    found = []
    for given_inputs in (inputs, longer):
        cluster = Cluster(built, given_inputs)
        cluster.clock.drain(None, lambda: None)
        assert cluster.served.column("arrival_s").tolist() == inputs.trace.arrival_s.tolist()
        found.append([cluster.served.column(name).tolist() for name in ("index", "first_token_s", "finish_s")])
    assert found[0] == found[1]


def test_a_conversation_goes_on_after_a_rejected_turn(clients):
    """The second and third round are longer than the cache; every later conversation begins all the same."""
    result = clients({"clients": 1, "conversations": 2, "input_tokens": 700}, blocks=50)
    rows = table(result)
    assert rows["status"].tolist() == ["finished", "rejected", "rejected"] * 2
    assert rows["arrival_s"][1] == rows["finish_s"][0] + 2.0
    arrivals = rows["arrival_s"].tolist()
    assert arrivals[2:4] == [arrivals[1] + 2.0, arrivals[2] + 2.0]  # a rejected request ends when it is sent
    assert result.summary["requests"] == {"arrived": 6, "finished": 2, "rejected": 4}


def test_all_turns_rejected_without_think_time_come_to_an_end(clients):
    changes = {"clients": 3, "rounds": 400, "think_time": "0 s", "max_parallel": 1}
    rows = table(clients(changes, blocks=40))
    assert (rows["status"] == "rejected").sum() == len(rows) == 1200
    assert (rows["arrival_s"] == 0).all()


@pytest.mark.parametrize("think", ["0 s", "100 s"])
def test_samples_are_even_and_few_however_long_it_takes(clients, think):
    changes = {"clients": 2, "rounds": 12, "output_tokens": 300, "think_time": think}
    result = clients(changes)
    samples = result.tables["samples"].to_pandas()
    times = np.unique(samples["time_s"])
    assert POINTS < len(times) <= MOST_POINTS + 1
    assert np.diff(times) == pytest.approx(times[1] - times[0])
    assert times[0] == 0
    assert times[-1] >= table(result)["finish_s"].max()


def test_progress_ends_with_all_requests(scenario):
    calls = []
    built = scenario(trace={"clients": QUICK})
    simulate(built, progress=lambda *call: calls.append(call))
    now, expected, done, total = calls[-1]
    assert done == total == 12
    assert expected >= now
    assert all(b[0] > a[0] and b[2] >= a[2] for a, b in pairwise(calls))


def test_a_resolved_scenario_runs_the_same(scenario, tmp_path):
    built = scenario(trace={"clients": {**QUICK, "think_time": {"mean": "1 s"}, "rounds": {"min": 2, "max": 4}}})
    (tmp_path / "again.yaml").write_text(built.to_yaml())
    again = type(built).load(tmp_path / "again.yaml")
    assert simulate(built).tables["requests"].equals(simulate(again).tables["requests"])
