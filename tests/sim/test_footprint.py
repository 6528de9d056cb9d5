"""Planned memory in the engine: plain where it is plain, by formula where it is not, and never beyond capacity."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hw_profiles.lines import CONTEXT, Line, constant, upto
from sim.engine.footprint import Footprint, PlannedMemory
from sim.inputs import load_inputs
from sim.run import simulate

CHECKED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
FOOTPRINTS = {
    "plain": Footprint(),
    "window": Footprint(upto(64)),
    "prompt budget": Footprint(Line(slope=1.0, prompt=-1.0, prompt_caps=((100, 1.0),))),
    "quantised": Footprint(CONTEXT * 0.28125 + upto(128) * 0.71875),
    "quantised from the start": Footprint(CONTEXT * 0.3, CONTEXT * 0.3),
    "digests": Footprint(upto(200) + CONTEXT * (1 / 32), CONTEXT * (33 / 32)),
    "layers apart": Footprint(upto(40) * 0.25 + upto(90) * 0.25 + upto(300) * 0.5),
    "codes later": Footprint(upto(64) + (CONTEXT - upto(64)) * 0.1, CONTEXT),
    "state": Footprint(constant(33.3), CONTEXT),
    "row": Footprint(at_once=True),
    "slot": Footprint(at_once=True, slot_tokens=1800),
}


@pytest.fixture(scope="session")
def planned(scenario):
    """Simulate with a footprint, every invariant checked often."""

    def go(rows, footprint, *, host_limit=None, single_step=False, blocks=None, **keywords):
        engine = {"prefix_caching": False, **keywords.pop("engine", {})}
        made = scenario(rows, blocks=blocks, engine=engine, **keywords)
        inputs = replace(load_inputs(made), footprint=footprint, host_limit=host_limit)
        return simulate(made, inputs=inputs, check=True, single_step=single_step)

    return go


@st.composite
def cases(draw):
    """Up to 10 requests, and room for one or a few of them as the footprint counts."""
    now, rows = 0.0, []
    for i in range(draw(st.integers(2, 10))):
        now += draw(st.sampled_from([0, 0, 0.003, 0.05, 1]))
        tokens, output = draw(st.sampled_from([16, 100, 512, 1200])), draw(st.sampled_from([1, 3, 17, 80, 300]))
        rows.append((now, tokens, output, [10 * i + k for k in range(-(-tokens // 512))]))
    footprint = FOOTPRINTS[draw(st.sampled_from(list(FOOTPRINTS)))]
    block = draw(st.sampled_from([1, 16, 64]))
    memory = PlannedMemory(footprint, block)
    longest = max(memory.whole_blocks(i, i + o - 1) for _, i, o, _ in rows)
    engine = {
        "block_tokens": block,
        "max_num_seqs": draw(st.sampled_from([1, 2, 4, 16])),
        "max_num_batched_tokens": draw(st.sampled_from([16, 100, 512, 2048])),
        "scheduling": draw(st.sampled_from(["fcfs", "priority"])),
    }
    blocks = int(longest * draw(st.sampled_from([1.0, 1.5, 3.0, 20.0])))
    return rows, footprint, {"engine": engine, "blocks": blocks}


@CHECKED
@given(case=cases())
def test_nobody_is_lost_capacity_is_kept_and_strides_are_exact(planned, same_requests, case):
    rows, footprint, keywords = case
    result = planned(rows, footprint, **keywords)
    engine, steps, requests = keywords["engine"], result.frames["steps"], result.frames["requests"]
    assert (requests.status == "finished").all()
    assert (steps.decode_seqs + steps.prefill_tokens <= engine["max_num_batched_tokens"]).all()
    assert (steps.decode_seqs + steps.prefill_seqs <= engine["max_num_seqs"]).all()
    tier = result.summary["tiers"]["hbm"]
    assert tier["peak_bytes"] <= tier["capacity_bytes"]
    if footprint.at_once:
        assert result.summary["preemptions"] == 0
    singles = planned(rows, footprint, **keywords, single_step=True)
    same_requests(result, singles)
    pd.testing.assert_frame_equal(result.frames["preemptions"], singles.frames["preemptions"], check_exact=True)


@CHECKED
@given(case=cases())
def test_a_plain_footprint_is_no_footprint(planned, case):
    rows, _, keywords = case
    longest = -(-max(i + o for _, i, o, _ in rows) // keywords["engine"]["block_tokens"])
    keywords = {**keywords, "blocks": max(longest, keywords["blocks"])}
    results = [planned(rows, footprint, **keywords) for footprint in (None, Footprint())]
    for name in ("requests", "steps", "preemptions"):
        pd.testing.assert_frame_equal(*(r.frames[name] for r in results), check_exact=True)
    assert results[0].summary["tiers"] == results[1].summary["tiers"]


@pytest.mark.parametrize("name", list(FOOTPRINTS))
@pytest.mark.parametrize(("tokens", "output"), [(600, 700), (30, 400), (500, 1)])
def test_the_peak_of_one_sequence_is_the_formula(planned, hand, name, tokens, output):
    footprint = FOOTPRINTS[name]
    result = planned([(0, tokens, output, [1, 2][: -(-tokens // 512)])], footprint)
    final = tokens + output - 1
    line, prefilling = footprint.decoding, footprint.prefilling
    held = line.at(footprint.slot_tokens or final, tokens)
    blocks = max(-(-round(x * 1e4) // 160_000) for x in (held, prefilling.at(tokens, tokens)))
    assert result.summary["tiers"]["hbm"]["peak_bytes"] == blocks * 16 * hand.token_bytes


def test_smaller_sequences_run_together(planned):
    """Room for two prompts of 1,024 tokens as they are; with a budget of 100 tokens most is free once they decode."""
    rows = [(0.2 * i, 1024, 200, [2 * i, 2 * i + 1]) for i in range(8)]
    kept, dropped = (planned(rows, f, blocks=160) for f in (Footprint(), FOOTPRINTS["prompt budget"]))
    assert dropped.frames["steps"].decode_seqs.max() > kept.frames["steps"].decode_seqs.max()
    assert dropped.summary["duration_s"] < kept.summary["duration_s"]


def test_host_memory_limits_who_is_admitted(planned):
    """Each needs 1,000 bytes per token at its final length: 1,099 tokens."""
    rows = [(0, 1000, 100, [2 * i, 2 * i + 1]) for i in range(4)]
    footprint = Footprint(host=CONTEXT * 1000.0)
    free, tight = (planned(rows, footprint, host_limit=limit) for limit in (None, 2.5 * 1_099_000))
    assert free.frames["steps"].running.max() == 4
    assert tight.frames["steps"].running.max() == 2
    assert free.summary["host_kv"] == {"limit_bytes": None, "peak_bytes": 4 * 1_099_000}
    assert tight.summary["host_kv"] == {"limit_bytes": 2.5 * 1_099_000, "peak_bytes": 2 * 1_099_000}
    assert (tight.frames["requests"].status == "finished").all()
    none = planned(rows, footprint, host_limit=1_098_000)
    assert set(none.frames["requests"].status) == {"rejected"}
    assert "host memory" in none.frames["requests"].reason[0]


def test_host_memory_of_a_scenario(run):
    """KV of a policy that keeps it in host memory: room for two of three requests, an assumption, and a peak."""
    rows = [(0, 1000, 100, [2 * i, 2 * i + 1]) for i in range(3)]
    engine = {"prefix_caching": False}
    free = run(rows, engine=engine, policies={"offload": "host_kv"}).summary
    each = free["host_kv"]["peak_bytes"] / 3
    assert each == pytest.approx(1099 * free["hardware"]["kv_bytes_per_token"], rel=1e-6)
    assert "engine.host_kv_memory is not set" in " ".join(free["assumptions"])
    engine["host_kv_memory"] = f"{2.5 * each:.0f} B"
    tight = run(rows, engine=engine, policies={"offload": "host_kv"})
    assert tight.frames["steps"].running.max() == 2
    assert tight.summary["host_kv"] == {"limit_bytes": round(2.5 * each), "peak_bytes": 2 * each}
    idle = run(rows, engine=engine).summary
    assert "host_kv_memory" in " ".join(idle["warnings"])
    assert "host_kv" not in idle


def test_windows_that_are_kept_apart_are_no_part_of_a_planned_sequence(scenario):
    """gpt-oss-120b, H2O: of 8,000 tokens its full layers keep a fifth of the prompt, sliding ones all, or a window."""
    rows, held = [(0, 6000, 5, list(range(12)))], {}
    for hybrid in (True, False):
        engine = {"prefix_caching": False, "hybrid_kv_cache": hybrid}
        made = scenario(rows, model="gpt-oss-120b", engine=engine, policies={"retention": "h2o"})
        inputs = load_inputs(made)
        held[hybrid] = inputs.footprint.decoding.at(8000, 6000) * inputs.token_bytes
    sliding = 18 * 2 * 8 * 64 * 2  # layers, keys and values of 8 heads of 64 in 16 bits
    assert held[False] - held[True] == pytest.approx(8000 * sliding)
    assert held[True] == pytest.approx(1200 * sliding, rel=0.03)  # and the sums of scores
