"""The LMCache agent and the LLMServingSim format: one request a line, with block ids."""

import json

import numpy as np
import pytest

from hw_profiles.errors import InputError
from traces.llmservingsim import read_llmservingsim
from traces.lmcache_agent import read_lmcache_agent
from traces.stats import ideal_hits

AGENT = {"session": "a", "turn": 0, "t_us": 0, "start_us": 9_000_000, "input_length": 70, "output_length": 3}
AGENT |= {"hash_ids": [1, 2]}
SIM = {"arrival_time_ns": 1_500_000_000, "input_toks": 40, "output_toks": 3, "hash_ids_16": [1, 2]}


def write(tmp_path, rows):
    path = tmp_path / "t.lengths.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_agents_share_ids_and_are_sorted_by_time(tmp_path):
    rows = [
        AGENT,
        {**AGENT, "turn": 1, "t_us": 2_500_000, "hash_ids": [1, 3]},
        {**AGENT, "turn": 2, "t_us": -1_000_000, "hash_ids": [1, 4]},  # logged late
        {**AGENT, "session": "b", "start_us": 10_000_000, "hash_ids": [1, 2]},
    ]
    trace = read_lmcache_agent(write(tmp_path, rows), strict=True).validate()
    assert trace.arrival_s.tolist() == [0.0, 1.0, 2.0, 4.5 - 1.0]
    assert [r.hash_ids[1] for r in trace] == [4, 2, 2, 3]
    assert trace.session_ids.tolist() == [0, 0, 1, 0]
    assert trace.turns.tolist() == [0, 1, 0, 2]  # in order of time, not of `turn`
    assert trace.after.tolist() == [-1, 0, -1, 1]
    assert np.isnan(trace.delay_s).all()  # nothing says when a request ended
    assert ideal_hits(trace).tolist() == [0, 64, 70, 64]
    assert (trace.block_tokens, trace.warnings) == (64, ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"session": 3}, "session: found 3, expected a text"),
        ({"turn": -1}, "turn: found -1"),
        ({"t_us": 0.5}, "t_us: found 0.5"),
        ({"start_us": -1}, "start_us: found -1"),
        ({"input_length": 0}, "input_length: found 0"),
        ({"output_length": 0}, "output_length: found 0, expected a whole number from 1"),
        ({"output_length": True}, "output_length: found true"),
        ({"hash_ids": [1]}, "hash_ids: found 1 ids, expected 2 (70 tokens in blocks of 64)"),
        ({"hash_ids": [1, "2"]}, 'hash_ids: found "2"'),
        ({"hash_ids": [1, 2**62]}, "hash_ids: found 4611686018427387904"),
        ({"hash_ids": None}, "hash_ids: found null, expected a list"),
    ],
)
def test_a_bad_agent_line(refused, changes, words):
    lines = [json.dumps(AGENT), json.dumps({**AGENT, **changes})]
    assert words in refused(read_lmcache_agent, lines, 2)


@pytest.mark.parametrize("key", [*AGENT])
def test_a_missing_key_of_an_agent_line(refused, key):
    lines = [json.dumps(AGENT), json.dumps({k: v for k, v in AGENT.items() if k != key})]
    assert f"{key}: missing" in refused(read_lmcache_agent, lines, 2)


def test_loose_ids_of_an_agent_warn(tmp_path):
    path = write(tmp_path, [AGENT, {**AGENT, "hash_ids": [9, 2]}])
    assert f"{path}:2: hash_ids: an id follows" in read_lmcache_agent(path).warnings[0]
    with pytest.raises(InputError, match="hash_ids: an id follows"):
        read_lmcache_agent(path, strict=True)


def test_full_blocks_get_a_partial_one_behind_them(tmp_path):
    rows = [SIM, SIM, {**SIM, "input_toks": 32}, {**SIM, "input_toks": 15, "hash_ids_16": []}]
    trace = read_llmservingsim(write(tmp_path, rows), strict=True).validate()
    assert trace.name == "t"
    assert trace.arrival_s.tolist() == [1.5] * 4
    assert [r.hash_ids for r in trace] == [[1, 2, 3], [1, 2, 4], [1, 2], [5]]
    assert ideal_hits(trace).tolist() == [0, 32, 32, 0]


def test_disorder_is_sorted_with_a_warning(tmp_path):
    path = write(tmp_path, [SIM, {**SIM, "arrival_time_ns": 7, "output_toks": 9}])
    trace = read_llmservingsim(path)
    assert trace.output_tokens.tolist() == [9, 3]
    assert trace.warnings == (f"{path}:2: 1 line(s) earlier than the line before; sorted by arrival_time_ns",)
    with pytest.raises(InputError, match=r"jsonl:2: arrival_time_ns: earlier"):
        read_llmservingsim(path, strict=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arrival_time_ns": 1.5}, "arrival_time_ns: found 1.5"),
        ({"input_toks": -4}, "input_toks: found -4"),
        ({"output_toks": None}, "output_toks: found null"),
        ({"hash_ids_16": [1, 2, 3]}, "hash_ids_16: found 3 ids, expected 2 (40 tokens in full blocks of 16)"),
        ({"hash_ids_16": [1, -2]}, "hash_ids_16: found -2"),
    ],
)
def test_a_bad_workload_line(refused, changes, words):
    assert words in refused(read_llmservingsim, [json.dumps(SIM), json.dumps({**SIM, **changes})], 2)
