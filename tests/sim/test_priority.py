"""engine.scheduling: priority. Who is served first, who gives way, and that nothing else changes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from sim.run import simulate

CHECKED = settings(  # a failing example is shown as found: making it smaller would take minutes
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
BY_PRIORITY = {"scheduling": "priority"}


def family(i):
    """Blocks of a prompt of up to 2,048 tokens that nobody shares."""
    return lambda tokens: [10 * i + k for k in range(-(-tokens // 512))]


@st.composite
def cases(draw):
    """Up to 14 requests of three priorities, and an engine with room for one or a few of them."""
    now, rows = 0.0, []
    for i in range(draw(st.integers(2, 14))):
        now += draw(st.sampled_from([0, 0, 0.003, 0.05, 1]))
        tokens, output = draw(st.sampled_from([16, 100, 512, 1200])), draw(st.sampled_from([1, 3, 17, 80, 300]))
        rows.append((now, tokens, output, family(i)(tokens), draw(st.integers(-1, 1))))
    longest = max(tokens + output for _, tokens, output, *_ in rows)
    engine = {
        "block_tokens": (block := draw(st.sampled_from([16, 64]))),
        "max_num_seqs": draw(st.sampled_from([1, 2, 4, 16])),
        "max_num_batched_tokens": draw(st.sampled_from([16, 100, 512, 2048])),
        **BY_PRIORITY,
    }
    blocks = int(longest * draw(st.sampled_from([1.05, 1.5, 3.0, 20.0]))) // block + 1
    return rows, {"engine": engine, "blocks": blocks, "dram": draw(st.sampled_from([None, "400 MiB"]))}


@CHECKED
@given(case=cases())
def test_limits_hold_nobody_is_lost_and_strides_are_exact(run, same_requests, case):
    rows, keywords = case
    result = run(rows, **keywords)
    engine, steps, requests = keywords["engine"], result.frames["steps"], result.frames["requests"]
    assert (steps.decode_seqs + steps.prefill_tokens <= engine["max_num_batched_tokens"]).all()
    assert (steps.decode_seqs + steps.prefill_seqs <= engine["max_num_seqs"]).all()
    assert (requests.status == "finished").all()
    hits = requests.hit_hbm_tokens + (requests.hit_dram_tokens if keywords["dram"] else 0)
    assert (hits + requests.computed_tokens - requests.recomputed_tokens == requests.input_tokens).all()
    assert requests.get("priority", 0 * requests.replica).tolist() == [row[4] for row in rows]
    singles = run(rows, **keywords, single_step=True)
    same_requests(result, singles)
    for name in ("transfers", "preemptions"):
        pd.testing.assert_frame_equal(result.frames[name], singles.frames[name], check_exact=True)


@CHECKED
@given(case=cases())
def test_nobody_is_admitted_before_one_that_comes_first(run, case):
    """Without tiers and preemption: who was there when another was admitted, and comes before it, was admitted too."""
    rows, keywords = case
    requests = run(rows, **{**keywords, "dram": None, "blocks": 4000}).frames["requests"]
    assert requests.preemptions.sum() == 0
    order = requests.iloc[np.argsort([row[4] for row in rows], kind="stable")]
    for place, one in enumerate(order.itertuples()):
        later = order.iloc[place + 1 :]
        assert (later.admit_s[later.admit_s > one.arrival_s] >= one.admit_s).all()


@CHECKED
@given(case=cases())
def test_equal_priorities_without_preemption_are_fcfs(run, case):
    rows, keywords = case
    engine = keywords["engine"]
    results = []
    for scheduling in ("fcfs", "priority"):
        same = {**keywords, "blocks": 4000, "engine": {**engine, "scheduling": scheduling}}
        results.append(run([row[:4] for row in rows], **same).frames["requests"])
    pd.testing.assert_frame_equal(*results, check_exact=True)


def test_one_at_a_time_they_finish_by_priority_then_arrival(run):
    priorities = [0, 2, 1, 0, -5, 1]
    rows = [(0.001 * (i > 0), 300, 20, family(i)(300), p) for i, p in enumerate(priorities)]
    requests = run(rows, engine={"max_num_seqs": 1, **BY_PRIORITY}).frames["requests"]
    assert np.argsort(requests.finish_s).tolist() == [0, 4, 3, 2, 5, 1]  # the first was alone when it came


def test_the_last_by_priority_gives_way_not_the_newest(run):
    rows = [(0, 512, 512, family(0)(512), 1), (0, 512, 512, family(1)(512), 0)]
    by_priority, fcfs = (run(rows, blocks=100, engine={"scheduling": s}) for s in ("priority", "fcfs"))
    assert by_priority.frames["requests"].preemptions.tolist()[1] == 0 < by_priority.summary["preemptions"]
    assert fcfs.frames["requests"].preemptions.tolist()[0] == 0 < fcfs.summary["preemptions"]


def test_a_prompt_in_chunks_takes_the_room_of_what_comes_after_it(run):
    """The prompt that comes first by priority grows by chunks beside a long decode, which gives way to it."""
    rows = [(0, 1200, 300, family(0)(1200), 1), (0.05, 1200, 2, family(1)(1200), 0)]
    engine = {"max_num_batched_tokens": 100, "max_num_seqs": 4, "scheduling": "priority", "reserve_full_isl": False}
    requests = run(rows, blocks=140, engine=engine).frames["requests"]
    assert requests.preemptions.tolist()[0] >= 1
    assert requests.preemptions.tolist()[1] == 0
    assert requests.finish_s[1] < requests.finish_s[0]


def test_a_preempted_request_goes_back_to_its_place(run):
    """Of lower priority than those that wait, it is computed again after them; by arrival it would be next."""
    rows = [(0, 512, 400, family(0)(512), 0), (0, 512, 400, family(1)(512), 2)]
    rows += [(0.1, 400, 3, family(2 + i)(400), 1) for i in range(3)]
    for scheduling in ("priority", "fcfs"):
        frames = run(rows, blocks=80, engine={"scheduling": scheduling}).frames
        again = frames["preemptions"].restart_s.max()
        assert set(frames["preemptions"].request_id) == {1}
        others = frames["requests"].first_chunk_s[2:]
        assert again > others.max() if scheduling == "priority" else again <= others.min()


def test_summary_by_priority(run):
    rows = [(0.01 * i, 400, 50, family(i)(400), i % 2) for i in range(20)]
    summary = run(rows, engine={"max_num_seqs": 2, **BY_PRIORITY}).summary
    first, second = summary["priorities"]
    assert (first["priority"], first["requests"], second["requests"]) == (0, 10, 10)
    assert first["queue_ms"]["mean"] < summary["queue_ms"]["mean"] < second["queue_ms"]["mean"]
    assert not [warning for warning in summary["warnings"] if "priorit" in warning]


@pytest.mark.parametrize(("scheduling", "warned"), [("priority", "trace has none"), ("fcfs", "does not look at")])
def test_a_knob_without_its_other_half_is_warned_of(run, scheduling, warned):
    rows = [(0, 100, 2, family(0)(100), *([] if scheduling == "priority" else [3]))]
    summary = run(rows, engine={"scheduling": scheduling}).summary
    assert warned in " ".join(summary["warnings"])
    assert "priorities" not in summary  # no latency by what nothing looked at


def test_classes_by_rule(scenario):
    chat = {"clients": 40, "rounds": 3, "input_tokens": {"mean": 600, "sigma": 1}}

    def classes(**rule):
        trace = {"clients": chat, "priority": rule}
        built = simulate(scenario(trace=trace, engine=BY_PRIORITY))
        return built.frames["requests"]

    rows = classes(by="session", shares=[0.25, 0.25])
    assert (rows.groupby("session").priority.nunique() == 1).all()
    shares = rows.groupby("session").priority.first().value_counts(normalize=True)
    assert shares[0] + shares[1] == pytest.approx(0.5, abs=0.2)
    rows = classes(by="input_tokens", limits=[500, 2000])
    expected = (rows.input_tokens >= 500).astype(int) + (rows.input_tokens >= 2000)
    assert rows.priority.tolist() == expected.tolist()
    assert set(rows.priority) == {0, 1, 2}
    rows = classes(by="turn", limits=[1])
    assert rows.priority.tolist() == (rows.turn >= 1).astype(int).tolist()
    rows = classes(by="request", shares=[0.5])
    assert (rows.groupby("session").priority.nunique() == 2).any()


@pytest.mark.parametrize(
    "rule",
    [
        {"by": "session"},
        {"by": "turn", "shares": [0.5]},
        {"by": "turn", "limits": [3, 3]},
        {"by": "request", "shares": [0.9, 0.2]},
        {"by": "input_tokens", "limits": [1], "shares": [0.1]},
    ],
)
def test_bad_rules(scenario, rule):
    with pytest.raises(InputError, match="priority"):
        scenario(trace={"name": "quickstart", "priority": rule})


@pytest.mark.parametrize(
    ("rule", "missing"),
    [({"by": "session", "shares": [0.1]}, "conversations"), ({"by": "turn", "limits": [1]}, "turns")],
)
def test_rules_need_what_they_look_at(scenario, prompt, rule, missing):
    path = scenario([(0, 100, 2, prompt(0, 100))]).spec.trace.path
    with pytest.raises(InputError, match=missing):
        simulate(scenario(trace={"path": path, "priority": rule}))


def test_bad_priorities_of_a_trace_are_named(run, prompt):
    with pytest.raises(InputError, match=r"priority: found 1\.5"):
        run([(0, 100, 2, prompt(0, 100), 1.5)])
