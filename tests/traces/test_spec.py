import json

import numpy as np
import pytest
from pydantic import ValidationError

from hw_profiles.errors import InputError
from traces.arrivals import limit, poisson_arrivals, rate_scale, spread_arrivals, stagger_sessions
from traces.catalog import load_trace
from traces.clients import converse
from traces.closed_loop import ClosedLoopSpec, close_loop
from traces.generate import GenerateSpec, generate
from traces.spec import TraceSpec, build

LINES = [{"timestamp": t, "input_length": 3, "output_length": t + 1, "hash_ids": [t]} for t in range(5)]


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "sub" / "own.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in LINES))
    return path


def of(value):
    return TraceSpec.model_validate(value)


def test_a_string_is_a_name_or_a_path(own, tmp_path):
    assert of("quickstart") == of({"name": "quickstart"})
    assert of("sub/own.jsonl") == of({"path": "sub/own.jsonl"})
    assert of("own.jsonl") == of({"path": "own.jsonl"})
    assert of(own).path == str(own)


def test_a_relative_path_starts_at_the_scenarios_folder(own, tmp_path, monkeypatch):
    assert len(build(of("sub/own.jsonl"), 0, tmp_path)) == 5
    monkeypatch.chdir(own.parent)
    with pytest.raises(InputError, match="cannot read it"):
        build(of("./own.jsonl"), 0, tmp_path)
    assert len(build(of(str(own)), 0, "/")) == 5


def test_resolved_means_the_same_from_elsewhere(own, tmp_path):
    spec = of("sub/own.jsonl").resolved(tmp_path)
    assert spec.path == str(own)
    assert len(build(spec, 0, "/")) == 5
    assert of("quickstart").resolved(tmp_path) == of("quickstart")


def test_generated_traffic_takes_the_seed_of_the_scenario():
    spec = of({"generate": {"requests": 20, "rate": 3.0}})
    assert list(build(spec, 4)) == list(generate(GenerateSpec(requests=20, rate=3.0), 4))
    assert list(build(spec, 4)) != list(build(spec, 5))


def test_limit_then_spread_then_rate():
    spec = of({"name": "quickstart", "limit": 100, "rate_scale": 2, "spread_arrivals": "3s"})
    by_hand = rate_scale(spread_arrivals(limit(load_trace("quickstart"), 100), 3.0, 7), 2)
    assert list(build(spec, 7)) == list(by_hand)


def test_without_options_the_trace_is_as_it_is():
    assert list(build(of("quickstart"), 0)) == list(load_trace("quickstart"))


@pytest.mark.parametrize(
    "value",
    [
        "quickstart",
        {"path": "a/b.jsonl", "limit": 3, "rate_scale": 0.1, "spread_arrivals": "1.5 s"},
        {"generate": {"requests": 20, "rate": 3.0, "think_time": "45 s"}, "rate_scale": 2},
        {"clients": {"clients": 4, "rounds": {"min": 2, "max": 5}, "think_time": {"mean": "9 s"}, "ramp_up": "1 s"}},
        {"name": "agentic-coding", "closed_loop": True, "sessions": 5},
        {"name": "agentic-coding", "closed_loop": {"think_time": "5 s", "max_think": "1 min", "max_parallel": 4}},
    ],
)
def test_the_written_form_reads_back(value):
    spec = of(value)
    written = spec.model_dump(mode="json", exclude_none=True)
    assert of(json.loads(json.dumps(written))) == spec


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        of("quickstart").limit = 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"clients": {"count": 8}}, r"clients\.count"),
        ({"clients": 8}, "clients"),
        ({"name": "quickstart", "clients": {"clients": 8}}, "exactly one of .*, has name and clients"),
        ({"clients": {"clients": 8}, "arrival_rate": 2}, "arrival_rate: clients send in a closed loop"),
        ({"clients": {"clients": 8}, "stagger_sessions": "2 s"}, "stagger_sessions: clients send in a closed loop"),
        ({"clients": {"clients": 8}, "closed_loop": True}, "closed_loop: clients send in a closed loop"),
        ({"clients": {"clients": 8}, "spread_arrivals": "2 s"}, "spread_arrivals: clients have ramp_up"),
        ({"name": "quickstart", "closed_loop": True, "arrival_rate": 2}, "arrival_rate: .*closed_loop.session_rate"),
        ({"name": "quickstart", "closed_loop": {"clients": 2, "session_rate": 2.0}}, "excludes session_rate"),
        ({"name": "quickstart", "closed_loop": {"clients": 0}}, "clients"),
        ({"name": "quickstart", "closed_loop": 3}, "closed_loop"),
        ({"name": "quickstart", "sessions": 0}, "sessions"),
        ("quikstart", "did you mean 'quickstart'"),
        ({}, "needs exactly one of name, path, generate, prefixes, clients, daily, has none"),
        ({"name": "quickstart", "path": "a.jsonl"}, "has name and path"),
        ({"name": "quickstart", "rate_scale": 0}, "rate_scale"),
        ({"name": "quickstart", "rate_scale": float("inf")}, "rate_scale"),
        ({"name": "quickstart", "rate_scale": True}, "rate_scale"),
        ({"name": "quickstart", "limit": 0}, "limit"),
        ({"name": "quickstart", "spread_arrivals": 3}, "no unit"),
        ({"name": "quickstart", "spread_arrivals": "-3s"}, "negative"),
        ({"name": "quickstart", "speed": 3}, "speed"),
        ({"generate": {"ratee": 3}}, "generate.ratee"),
        (7, "TraceSpec"),
    ],
)
def test_bad_sections_are_refused(value, words):
    with pytest.raises(ValidationError, match=words):
        of(value)


def agent_trace(tmp_path):
    path = tmp_path / "agents.jsonl"
    request = {"type": "n", "in": 9, "out": 1, "hash_ranges": [[1, 2]]}
    row = {"block_size": 4, "hash_id_scope": "local", "requests": [{**request, "t": t} for t in (0.0, 7.0)]}
    path.write_text((json.dumps(row) + "\n") * 30)
    return str(path)


def test_sessions_are_staggered_before_the_limit(tmp_path):
    path = agent_trace(tmp_path)
    trace = build(of({"path": path, "stagger_sessions": "60 s", "limit": 10}), 3)
    assert list(trace) == list(limit(stagger_sessions(load_trace(path), 60.0, 3), 10))
    assert len(set(trace.arrival_s.tolist())) == 10
    assert len(set(trace.session_ids.tolist())) < 10  # second turns are among the first ten


def test_an_arrival_rate_replaces_the_times_of_the_trace():
    trace = build(of({"name": "quickstart", "arrival_rate": 4, "limit": 9}), 3)
    assert list(trace) == list(limit(poisson_arrivals(load_trace("quickstart"), 4.0, 3), 9))


def test_arrival_rate_and_staggering_exclude_each_other():
    with pytest.raises(ValueError, match="excludes stagger_sessions"):
        of({"name": "quickstart", "arrival_rate": 4.0, "stagger_sessions": "1 s"})
    for bad in (0, -1.0, float("inf"), "4"):
        with pytest.raises(ValidationError):
            of({"name": "quickstart", "arrival_rate": bad})


def test_new_options_are_written_only_where_they_are_set():
    assert set(of("quickstart").model_dump(mode="json", exclude_none=True)) == {"name", "rate_scale", "spread_arrivals"}
    spec = of({"name": "quickstart", "stagger_sessions": "90 s"})
    assert of(json.loads(json.dumps(spec.model_dump(mode="json", exclude_none=True)))) == spec


def test_the_first_sessions_then_the_limit(tmp_path):
    path = agent_trace(tmp_path)
    trace = build(of({"path": path, "sessions": 4, "limit": 6}), 0)
    assert trace.session_ids.tolist() == [0, 1, 2, 3, 0, 1]


def test_a_loop_is_closed_after_all_else(tmp_path):
    path = agent_trace(tmp_path)
    spec = {"path": path, "stagger_sessions": "60 s", "sessions": 8, "rate_scale": 2}
    trace = build(of({**spec, "closed_loop": {"clients": 3, "max_think": "2 s"}}), 5)
    by_hand = close_loop(build(of(spec), 5), ClosedLoopSpec(clients=3, max_think="2 s"), 5)
    assert list(trace) == list(by_hand)
    assert trace.closed_loop
    assert int((trace.after < 0).sum()) == 3


def test_clients_take_the_seed_of_the_scenario():
    value = {"clients": {"clients": 3, "input_tokens": {"mean": 90, "sigma": 1}}}
    assert list(build(of(value), 4)) == list(converse(of(value).clients, 4))
    assert list(build(of(value), 4)) != list(build(of(value), 5))
    scaled = build(of({**value, "clients": {**value["clients"], "think_time": "4 s"}, "rate_scale": 2, "limit": 9}), 4)
    assert set(scaled.delay_s[scaled.after >= 0].tolist()) == {2.0}
    assert len(scaled) == 9


FIXED = {"generate": {"requests": 60, "rate": 4, "turns": 3, "seed": 1}}
LOADS = [
    ({"name": "quickstart"}, False),
    (FIXED | {"rate_scale": 2.0, "closed_loop": True}, False),
    (FIXED | {"priority": {"by": "turn", "limits": [1]}}, False),
    (FIXED | {"priority": {"by": "session", "shares": [0.3]}}, True),
    (FIXED | {"closed_loop": {"session_rate": 2.0}}, True),
    (FIXED | {"closed_loop": {"think_time": {"mean": "2s"}}}, True),
    (FIXED | {"spread_arrivals": "1s"}, True),
    (FIXED | {"stagger_sessions": "1s"}, True),
    (FIXED | {"arrival_rate": 3.0}, True),
    ({"generate": {"requests": 20, "rate": 4}}, True),
]


@pytest.mark.parametrize(("document", "drawn"), LOADS)
def test_a_load_is_drawn_where_the_seed_changes_it(document, drawn):
    spec = TraceSpec.model_validate(document)
    assert spec.drawn == drawn
    one, other = (build(spec, seed) for seed in (1, 2))
    columns = ("arrival_s", "input_tokens", "output_tokens", "delay_s", "priorities")
    pairs = [(getattr(one, name), getattr(other, name)) for name in columns]
    same = [a is b or (a is not None and np.array_equal(a, b, equal_nan=True)) for a, b in pairs]
    assert all(same) != drawn
